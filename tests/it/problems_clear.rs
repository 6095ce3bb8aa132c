//! What was wrong is not shown any more once it is mended.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::app::App;
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::files::guarded;
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// Everything `/services` has to complain of.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let document = daemon.services();
    let mut list = Vec::new();
    let mut add = |problems: &serde_json::Value| {
        let problems = problems.as_array().expect("a list");
        list.extend(problems.iter().map(|one| one["message"].to_string()));
    };
    add(&document["problems"]);
    for service in document["services"].as_array().expect("a list") {
        add(&service["problems"]);
        if service["state"] != "serving" {
            add(&serde_json::json!([{"message": service["state"]}]));
        }
    }
    add(&document["restartNeeded"]);
    list
}

#[test]
fn every_fault_is_gone_with_its_cause() {
    let _machine = shared_machine();
    let ports = free_ports(4);
    let app = App::start(scripts::ok);
    let good = guarded(ports[0], app.port());
    let tree = Tree::with(&[
        ("shop/cart", &good),
        ("shop/users", &guarded(ports[1], app.port())),
    ]);
    let daemon = Setup::new(&tree).start();
    let settings = fs::read_to_string(tree.root().join("config/outrigger.yaml")).unwrap();
    let moved = |port: u16| guarded(port, app.port());
    let bad_files = [
        ("no YAML", "port: [\n".to_owned()),
        ("port 0", moved(0)),
        (
            "an unknown dependency",
            format!("{good}dependencies: [nobody]\n"),
        ),
        ("another's port", moved(ports[1])),
        ("a warning", format!("{good}name: other\n")),
        (
            "no authentication",
            good.split("auth").next().unwrap().to_owned(),
        ),
        (
            "a missing secret",
            format!("{good}description: ${{env:NOWHERE}}\n"),
        ),
        ("an unknown key", format!("{good}prot: 1\n")),
        (
            "missing certificates",
            format!("{good}tls: {{cert: a, key: b}}\n"),
        ),
    ];
    for (what, bad) in &bad_files {
        tree.write("shop/cart", bad);
        daemon.reload();
        assert!(!complaints(&daemon).is_empty(), "{what} is a fault");
        tree.write("shop/cart", &good);
        daemon.reload();
        assert_eq!(complaints(&daemon), [""; 0], "{what}");
    }
    // Mended where it is not shown.
    tree.write("shop/cart", moved(ports[1]));
    daemon.reload();
    assert!(!complaints(&daemon).is_empty());
    tree.write("shop/users", moved(ports[2]));
    daemon.reload();
    assert_eq!(complaints(&daemon), [""; 0], "the other gave way");
    // Not in any file.
    let listener = TcpListener::bind(("127.0.0.1", ports[3])).unwrap();
    tree.write("shop/cart", moved(ports[3]));
    daemon.reload();
    assert!(complaints(&daemon)[0].contains("is in use"));
    drop(listener);
    daemon.reload();
    assert_eq!(complaints(&daemon), [""; 0], "the port is free");
    // Of the tree and of the settings.
    let link = tree.services().join("shop/link");
    symlink("nowhere", &link).unwrap();
    let settings_file = tree.put(
        "config/outrigger.yaml",
        format!("{settings}log: {{level: loud}}\n"),
    );
    daemon.reload();
    assert!(complaints(&daemon).len() >= 2);
    fs::remove_file(&link).unwrap();
    fs::write(&settings_file, format!("{settings}workers: 3\n")).unwrap();
    daemon.reload();
    assert_eq!(complaints(&daemon).len(), 1, "a restart is needed");
    fs::write(&settings_file, &settings).unwrap();
    daemon.reload();
    assert_eq!(complaints(&daemon), [""; 0]);
}

#[test]
fn each_message_says_once_how_bad_it_is() {
    let tree = Tree::with(&[
        (
            "shop/cart",
            "name: other\nauth: {apiKey: {keys: [{id: a, key: short}]}}\n",
        ),
        ("shop/users", "port: 0\nauth: none\n"),
    ]);
    let (code, output) = run_to_end(
        Path::new(tree.root()),
        &["check"],
        &[("OUTRIGGER_LISTEM", "1")],
    );
    assert_eq!(code, 64, "{output}");
    let (mut errors, mut warnings) = (0, 0);
    for line in output.lines() {
        let words = line.matches("warning:").count() + line.matches("error:").count();
        assert!(words <= 1, "{line}");
        errors += usize::from(line.starts_with("error: "));
        warnings += usize::from(line.starts_with("warning: "));
    }
    assert_eq!((errors, warnings), (1, 4), "{output}");
}
