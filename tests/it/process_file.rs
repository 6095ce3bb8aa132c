//! The settings of the process, like those of services, are never lost by
//! accident: what happens to their file opens nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::isolation::Wrapper;
use crate::support::ports::free_ports;
use crate::support::process::is_root;
use crate::support::scripts;
use crate::support::tree::{Tree, replace};
use crate::support::wait::{SOON, shared_machine, wait_until};

const TOKEN: &str = "an-admin-token-of-32-characters-";

/// What guards comes last, where a cut file loses it first.
const GUARDS: &str = "auth: {required: true}\n";

/// Errors that belong to no service, as `/services` tells them.
fn problems(daemon: &Daemon) -> String {
    let list = daemon.services()["problems"].clone();
    let mut list: Vec<_> = list.as_array().cloned().unwrap_or_default();
    list.retain(|problem| problem["severity"] != "warning");
    match list.is_empty() {
        true => String::new(),
        false => serde_json::Value::from(list).to_string(),
    }
}

fn refused(daemon: &Daemon) -> f64 {
    let labels = [("result", "refused")];
    let metrics = daemon.metrics();
    let count = metrics.sum("outrigger_config_reloads_total", &labels);
    count.unwrap_or_default()
}

/// A name, what is done to the file, what is undone after the file is written
/// again, and what is said.
type Misfortune = (&'static str, fn(&Path), &'static str);

const MISFORTUNES: [Misfortune; 10] = [
    ("deleted", |file| fs::remove_file(file).unwrap(), "is gone"),
    (
        "its folder deleted",
        |file| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        "is gone",
    ),
    (
        "its folder swapped for an empty one",
        |file| {
            let folder = file.parent().unwrap();
            fs::create_dir(folder.with_extension("empty")).unwrap();
            fs::rename(folder, folder.with_extension("away")).unwrap();
            fs::rename(folder.with_extension("empty"), folder).unwrap();
        },
        "is gone",
    ),
    (
        "renamed",
        |file| fs::rename(file, file.with_extension("bak")).unwrap(),
        "is gone",
    ),
    (
        "a link to nowhere",
        |file| {
            fs::remove_file(file).unwrap();
            symlink("nowhere", file).unwrap();
        },
        "is gone",
    ),
    (
        "emptied",
        |file| fs::write(file, "").unwrap(),
        "is empty now",
    ),
    (
        "cut at a line",
        |file| {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.strip_suffix(GUARDS).unwrap()).unwrap();
        },
        "looks cut off",
    ),
    (
        "replaced by a folder",
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
        "is no regular file",
    ),
    (
        "unreadable",
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap(),
        "ermission denied",
    ),
    (
        "without what guards",
        |file| {
            let text = fs::read_to_string(file).unwrap();
            replace(file, text.replace(GUARDS, "# nothing\n"));
        },
        "auth: {required: false}",
    ),
];

/// As it was, whatever is there now.
fn put_back(file: &Path, text: &str) {
    let folder = file.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    if file.is_dir() {
        fs::remove_dir(file).unwrap();
    }
    replace(file, text);
}

#[test]
fn nothing_that_happens_to_the_process_file_opens_anything() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(2));
    let silent = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\n",
        ports[0],
        app.port()
    );
    let open = silent.replace(&ports[0].to_string(), &ports[1].to_string());
    let tree = Tree::with(&[
        ("shop/silent", &silent),
        ("shop/open", &format!("{open}auth: none\n")),
    ]);
    let mut setup = Setup::new(&tree)
        .reload("{poll: 200ms, quiet: 20ms, max: 50ms}")
        .process(GUARDS.trim_end());
    let mut misfortunes = MISFORTUNES.to_vec();
    match is_root().then(Wrapper::nobody) {
        // Others are refused what their files refuse; root is not.
        Some(Some(nobody)) => {
            fs::set_permissions(tree.root(), fs::Permissions::from_mode(0o755)).unwrap();
            setup = setup.within(nobody);
        }
        Some(None) => misfortunes.retain(|(name, ..)| *name != "unreadable"),
        None => {}
    }
    let daemon = setup.start();
    let file = tree.root().join("config/outrigger.yaml");
    let text = fs::read_to_string(&file).unwrap();
    // What is true throughout; the first service says nothing of callers.
    let statuses = || [0, 1].map(|index| Request::get("/").status(ports[index]));
    assert_eq!(statuses(), [Some(503), Some(200)]);
    for (name, happen, said) in misfortunes {
        let before = refused(&daemon);
        happen(&file);
        daemon.reload();
        assert_eq!(statuses(), [Some(503), Some(200)], "{name}");
        let told = problems(&daemon);
        assert!(told.contains(said), "{name}: {told}");
        assert!(told.contains("config/outrigger.yaml"), "{name}: {told}");
        assert!(told.contains("hint"), "{name}: {told}");
        assert!(refused(&daemon) > before, "{name} is not counted");
        daemon.wait_for_line(&[said, "bad configuration"]);
        put_back(&file, &text);
        daemon.reload();
        assert_eq!(problems(&daemon), "", "{name}");
        assert_eq!(statuses(), [Some(503), Some(200)], "{name}");
    }
    // Said on purpose it holds.
    replace(&file, text.replace(GUARDS, "auth: {required: false}\n"));
    daemon.reload();
    assert_eq!(problems(&daemon), "");
    wait_until("it is open", SOON, || statuses() == [Some(200), Some(200)]);
}

#[test]
fn a_process_file_that_comes_later_stays() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(3));
    let text = format!("port: {}\nupstream: {}\n", ports[0], app.port());
    let tree = Tree::with(&[("shop/silent", &text)]);
    let mut command = Command::new(BINARY);
    command
        .arg("run")
        .current_dir(tree.root())
        .env_clear()
        .env("OUTRIGGER_ADMIN_LISTEN", format!("127.0.0.1:{}", ports[1]))
        .env(
            "OUTRIGGER_OBSERVE_LISTEN",
            format!("127.0.0.1:{}", ports[2]),
        );
    let daemon = Daemon::spawn(command, ports[1], ports[2]);
    // No file: the defaults, and nothing to complain of.
    wait_until("it is open", SOON, || {
        Request::get("/").status(ports[0]) == Some(200)
    });
    wait_until("it is started", SOON, || {
        Request::get("/startupz").status(ports[2]) == Some(200)
    });
    assert_eq!(problems(&daemon), "");
    let file = tree.put(
        "config/outrigger.yaml",
        format!("admin: {{token: {TOKEN}}}\n"),
    );
    wait_until("the token is asked for", SOON, || {
        Request::get("/services")
            .header("Host", "127.0.0.1")
            .status(ports[1])
            == Some(401)
    });
    fs::remove_file(&file).unwrap();
    daemon.wait_for_line(&["is gone", "restart the process"]);
    let with_token = Request::get("/services")
        .header("Host", "127.0.0.1")
        .header("Authorization", &format!("Bearer {TOKEN}"));
    assert_eq!(
        Request::get("/services")
            .header("Host", "127.0.0.1")
            .status(ports[1]),
        Some(401)
    );
    let told = with_token.send(ports[1]).text();
    assert!(told.contains("is gone"), "{told}");
    replace(&file, format!("admin: {{token: {TOKEN}}}\n"));
    wait_until("nothing is left to complain of", SOON, || {
        !with_token.send(ports[1]).text().contains("is gone")
    });
}

#[test]
fn a_process_file_waits_for_what_it_names() {
    let _machine = shared_machine();
    let (app, port) = (App::start(scripts::ok), free_ports(1)[0]);
    let text = format!("port: {port}\nupstream: {}\n", app.port());
    let tree = Tree::with(&[("shop/silent", &text)]);
    let daemon = Setup::new(&tree)
        .reload("{poll: 200ms, quiet: 20ms, max: 50ms}")
        .start();
    let file = tree.root().join("config/outrigger.yaml");
    let before = fs::read_to_string(&file).unwrap();
    // Named before it is there, and in a folder that nobody watches.
    let named = tree.root().join("later/required");
    replace(
        &file,
        format!(
            "{before}auth: {{required: \"${{file:{}}}\"}}\n",
            named.display()
        ),
    );
    daemon.reload();
    assert!(problems(&daemon).contains("later/required"));
    assert_eq!(Request::get("/").status(port), Some(200));
    tree.put("later/required", "true\n");
    wait_until("what it names is found", SOON, || {
        problems(&daemon).is_empty()
    });
    // The version before asked nothing, and goes on serving nobody new.
    let state = &daemon.service("shop/silent")["state"];
    assert_eq!(state, "stale");
}
