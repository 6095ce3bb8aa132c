//! No truncation, omission or disappearance of files opens or closes anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::{Request, accepts};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{guarded, key, open};
use crate::support::isolation::Wrapper;
use crate::support::load::{Load, Plain};
use crate::support::ports::{free_port, free_ports};
use crate::support::process::is_root;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until};

/// An API key of the environment, as the reference framework has it.
const DEFAULT_KEY: &str = "an-api-key-of-the-environment-1";

/// A file with everything that guards: keys, a rule for fewer callers, an
/// exemption. `{port}` and `{app}` have five digits.
const GUARDED: &str = "\
port: {port}
upstream: {app}
healthCheck: false
auth:
  apiKey:
    keys:
      - {id: web, sha256: {web}}
      - {id: ops, sha256: {ops}}
  rules:
    - {paths: [\"/public/**\"], strategy: none}
    - {paths: [\"/admin/**\"], allow: {keys: [ops]}}
    - {paths: [\"/closed\"], deny: true}
tracing: {enabled: true}
";

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn yaml(port: u16, app: u16) -> String {
    GUARDED
        .replace("{port}", &port.to_string())
        .replace("{app}", &app.to_string())
        .replace("{web}", &sha256(&key(1)))
        .replace("{ops}", &sha256(&key(2)))
}

/// A request that must not reach the app, whatever the file was cut to.
fn never_allowed() -> Vec<Request> {
    vec![
        Request::get("/"),
        Request::get("/admin/x"),
        Request::get("/admin/x").key(&key(1)),
        Request::get("/closed").key(&key(2)),
        Request::get("/").key(&key(3)),
    ]
}

/// Puts every prefix of a full file in the place of that file at once, each in a
/// service of its own, and reloads.
fn truncate_all(tree: &Tree, files: &[(String, String, String)], daemon: &Daemon) {
    for (name, file, text) in files {
        let length: usize = name
            .trim_start_matches(|byte: char| !byte.is_ascii_digit())
            .parse()
            .unwrap();
        fs::write(tree.folder(name).join(file), &text[..length]).unwrap();
    }
    daemon.reload();
}

#[test]
fn no_prefix_of_a_guarded_file_weakens_it() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let length = yaml(10_000, app.port()).len();
    let ports = free_ports(u16::try_from(length).unwrap());
    let files: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(cut, port)| {
            (
                format!("cut/p{cut}"),
                "service.config.yaml".to_owned(),
                yaml(*port, app.port()),
            )
        })
        .collect();
    let tree = Tree::new();
    for (name, _, text) in &files {
        tree.write(name, text);
    }
    let daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").key(&key(1)).status(ports[0]), Some(200));
    truncate_all(&tree, &files, &daemon);
    let mut weaker = Vec::new();
    for (port, (name, ..)) in ports.iter().zip(&files) {
        for request in never_allowed() {
            let before = app.count();
            let status = request.status(*port);
            if app.count() != before || status == Some(200) {
                weaker.push(format!(
                    "{name}: {:?} {status:?}",
                    String::from_utf8_lossy(&request.bytes())
                ));
            }
        }
    }
    figure!(
        "{length} prefixes, one service each; resident {} KiB",
        daemon.resident_kib()
    );
    assert!(
        weaker.is_empty(),
        "{} weakened:\n{}",
        weaker.len(),
        weaker.join("\n")
    );
}

#[test]
fn every_prefix_of_the_examples_is_refused() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    for example in ["users", "orders", "payments"] {
        let path = format!(
            "{}/examples/ecommerce/{example}/service.config.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let original = fs::read_to_string(path).unwrap();
        let document = original.trim_end();
        cut_example(&app, example, document);
    }
}

/// Starts one service per prefix from the whole example, then cuts each.
fn cut_example(app: &App, example: &str, document: &str) {
    let port_at = document.find("\"port\": ").unwrap() + "\"port\": ".len();
    let with_port = |port: u16| {
        let mut text = document.to_owned();
        text.replace_range(port_at..port_at + 4, &port.to_string());
        let head = format!("{{\n  \"upstream\": {},", app.port());
        // Nobody there to depend on.
        text.replacen('{', &head, 1)
            .replace("\"dependencies\"", "\"x-dependencies\"")
    };
    let ports = free_ports(u16::try_from(with_port(10_000).len()).unwrap());
    let tree = Tree::new();
    let file = "service.config.json";
    let files: Vec<_> = (0..)
        .zip(&ports)
        .map(|(cut, port)| (format!("cut/p{cut}"), file.to_owned(), with_port(*port)))
        .collect();
    for (name, file, text) in &files {
        fs::create_dir_all(tree.folder(name)).unwrap();
        fs::write(tree.folder(name).join(file), text).unwrap();
    }
    let daemon = Setup::new(&tree)
        .env("SERVICE_API_KEY", DEFAULT_KEY)
        .env("SERVICE_JWT_SECRET", "a-jwt-secret-of-at-least-32-bytes")
        .start();
    let request = Request::get("/").key(DEFAULT_KEY);
    let before: Vec<_> = ports
        .iter()
        .map(|port| (Request::get("/").status(*port), request.status(*port)))
        .collect();
    truncate_all(&tree, &files, &daemon);
    for (index, port) in ports.iter().enumerate() {
        let after = (Request::get("/").status(*port), request.status(*port));
        assert_eq!(after, before[index], "{example} cut after {index} bytes");
        let state = &daemon.service(&files[index].0)["state"];
        assert_eq!(state, "stale", "{example} cut after {index} bytes");
    }
    figure!(
        "{example}: {} prefixes, each kept its last good version: {:?}",
        ports.len(),
        before[0]
    );
}

#[test]
fn nothing_opens_by_omission() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &guarded(port, app.port()))]);
    let daemon = Setup::new(&tree).start();
    tree.replace(
        "shop/cart",
        format!("port: {port}\nupstream: {}\n", app.port()),
    );
    daemon.reload();
    assert_eq!(Request::get("/").status(port), Some(401));
    let told = daemon.service("shop/cart").to_string();
    assert!(told.contains("strategy: none"), "no hint: {told}");
    tree.replace("shop/cart", open(port, app.port(), 1));
    daemon.reload();
    assert_eq!(
        Request::get("/").status(port),
        Some(200),
        "written out, it opens"
    );
}

/// A daemon that polls fast, with two services under load.
fn two_services(tree: &Tree, app: &App, ports: &[u16]) -> (Daemon, Vec<Load>) {
    tree.write("shop/one", open(ports[0], app.port(), 1));
    tree.write("shop/two", open(ports[1], app.port(), 1));
    let daemon = Setup::new(tree)
        .reload("{poll: 200ms, quiet: 20ms, max: 50ms}")
        .start();
    let loads = ports
        .iter()
        .take(2)
        .map(|port| Load::start(*port, 1, Duration::from_millis(5), Plain(Request::get("/"))))
        .collect();
    (daemon, loads)
}

#[track_caller]
fn nothing_was_lost(loads: Vec<Load>) {
    for load in loads {
        let report = load.stop();
        assert_eq!(
            (report.failures, report.announced_closes),
            (0, 0),
            "{:#?}",
            report.words
        );
    }
}

#[test]
fn a_tree_that_is_gone_closes_nothing() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(2));
    let tree = Tree::new();
    let mount = tree.root().join("mount");
    fs::rename(tree.services(), &mount).unwrap();
    symlink("mount", tree.services()).unwrap();
    let (daemon, loads) = two_services(&tree, &app, &ports);
    let gone = tree.root().join("gone");
    // As when a mount goes away, and as when it comes up empty.
    fs::rename(&mount, &gone).unwrap();
    holds_for(
        "both answer without the tree",
        Duration::from_secs(4),
        || ports.iter().all(|port| accepts(*port)),
    );
    daemon.wait_for_line(&["services"]);
    let told = daemon.services()["problems"].to_string();
    assert!(
        told.contains("services"),
        "the missing tree is no problem? {told}"
    );
    fs::create_dir(&mount).unwrap();
    holds_for(
        "both answer with an empty tree",
        Duration::from_secs(4),
        || ports.iter().all(|port| accepts(*port)),
    );
    fs::remove_dir(&mount).unwrap();
    fs::rename(&gone, &mount).unwrap();
    wait_until("no problem is left", SOON, || {
        daemon.services()["problems"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    nothing_was_lost(loads);
}

#[test]
fn a_domain_that_cannot_be_read_closes_nothing() {
    let _machine = shared_machine();
    let wrapper = if is_root() {
        let Some(wrapper) = Wrapper::nobody() else {
            return;
        };
        wrapper
    } else {
        Wrapper::default()
    };
    let (app, ports) = (App::start(scripts::ok), free_ports(2));
    let tree = Tree::with(&[
        ("shop/one", &open(ports[0], app.port(), 1)),
        ("other/two", &open(ports[1], app.port(), 1)),
    ]);
    let chmod = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(tree.root(), 0o755);
    let daemon = Setup::new(&tree)
        .reload("{poll: 200ms, quiet: 20ms, max: 50ms}")
        .within(wrapper)
        .start();
    let domain = tree.services().join("shop");
    for (path, back) in [
        (domain.clone(), 0o755),
        (tree.file("shop/one"), 0o644),
        (tree.services(), 0o755),
    ] {
        chmod(&path, 0);
        daemon.reload();
        holds_for("both answer", Duration::from_secs(3), || {
            ports.iter().all(|port| accepts(*port))
        });
        let told = daemon.services().to_string();
        assert!(
            told.to_lowercase().contains("permission"),
            "{}: {told}",
            path.display()
        );
        chmod(&path, back);
        daemon.reload();
        let told = daemon.services().to_string();
        assert!(
            !told.to_lowercase().contains("permission"),
            "{}: {told}",
            path.display()
        );
    }
}

#[test]
fn a_removal_needs_two_clean_scans() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(3));
    let tree = Tree::with(&[("shop/three", &open(ports[2], app.port(), 1))]);
    let (daemon, loads) = two_services(&tree, &app, &ports);
    tree.remove("shop/three");
    let took = wait_until("the removed service's port closes", SOON, || {
        !accepts(ports[2])
    });
    figure!("a removal took {took:?}");
    assert!(took >= Duration::from_secs(2), "closed after {took:?}");
    assert!(!daemon.services().to_string().contains("shop/three"));
    nothing_was_lost(loads);
}

#[test]
fn most_of_the_tree_is_removed_only_when_confirmed() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(2));
    let tree = Tree::new();
    let (daemon, loads) = two_services(&tree, &app, &ports);
    tree.remove("shop/one");
    tree.remove("shop/two");
    holds_for("both answer", Duration::from_secs(5), || {
        ports.iter().all(|port| accepts(*port))
    });
    nothing_was_lost(loads);
    let outcome = daemon.admin_post("/reload?confirm=removals", "");
    assert_eq!(outcome.status, 200, "{}", outcome.text());
    wait_until("both ports close", SOON, || {
        ports.iter().all(|port| !accepts(*port))
    });
}
