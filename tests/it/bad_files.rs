//! Whatever happens to one service's file, that service keeps its last good
//! version or answers `config_invalid`; everybody else is untouched; and the
//! problem is told with file and line.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::{Request, accepts};
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::figures::figure;
use crate::support::files::{guarded, key, open};
use crate::support::load::{Load, Plain};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// What is put in the place of a good file.
struct Damage {
    what: &'static str,
    make: Box<dyn Fn(&Path)>,
    /// The problem names a line of the file.
    line: bool,
    /// The port can still be read from it.
    port_known: bool,
}

fn damage(what: &'static str, make: impl Fn(&Path) + 'static) -> Damage {
    Damage {
        what,
        make: Box::new(make),
        line: false,
        port_known: false,
    }
}

/// Text that parses as far as the port and is wrong on a line after it.
fn text(what: &'static str, port: u16, rest: &'static str) -> Damage {
    let text = format!("port: {port}\n{rest}\n");
    Damage {
        what,
        make: Box::new(move |file| fs::write(file, &text).unwrap()),
        line: true,
        port_known: true,
    }
}

/// Text that no parser gets through, so that nothing of it is believed.
fn syntax(what: &'static str, port: u16, rest: &'static str) -> Damage {
    Damage {
        port_known: false,
        ..text(what, port, rest)
    }
}

fn damages(port: u16) -> Vec<Damage> {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c]";
    vec![
        syntax("broken YAML", port, "auth: [1"),
        syntax("a tab for indentation", port, "auth:\n\tstrategy: none"),
        syntax("two documents", port, "---\nport: 1"),
        syntax("a duplicate key", port, "upstream: 1\nupstream: 2"),
        syntax("an alias bomb", port, bomb),
        syntax("a tag", port, "upstream: !!binary aGVsbG8="),
        text("an unknown key", port, "upstreem: 8080"),
        text("a wrong type", port, "limits: {headerCount: many}"),
        text("an unknown strategy", port, "auth: {strategy: passport}"),
        text("a strategy without keys", port, "auth: {strategy: api-key}"),
        text(
            "two mistakes",
            port,
            "auth: {strategy: jwt, jwt: {algorithms: [HS256]}}",
        ),
        text(
            "a missing reference",
            port,
            "auth: {apiKey: {keys: [{id: web, key: \"${env:NOT_THERE}\"}]}}",
        ),
        damage("nothing at all", |file| fs::write(file, "").unwrap()),
        damage("bytes that are no text", |file| {
            fs::write(file, [0xff, 0xfe, 0x00, 0x80]).unwrap()
        }),
        damage("2 MiB", |file| {
            fs::write(file, "#".repeat(2 << 20)).unwrap()
        }),
        damage("a folder", |file| fs::create_dir(file).unwrap()),
        damage("a link to nothing", |file| {
            symlink("nowhere", file).unwrap()
        }),
        damage("a link to itself", |file| {
            symlink(file.file_name().unwrap(), file).unwrap()
        }),
        damage("a FIFO", |file| {
            let made = Command::new("mkfifo").arg(file).status().unwrap();
            assert!(made.success());
        }),
        damage("a device", |file| symlink("/dev/zero", file).unwrap()),
    ]
}

/// Removes whatever stands in the place of the file.
fn clear(file: &Path) {
    if fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir(file).unwrap();
    } else if fs::symlink_metadata(file).is_ok() {
        fs::remove_file(file).unwrap();
    }
}

fn answers_as_guarded(port: u16) -> bool {
    Request::get("/").status(port) == Some(401)
        && Request::get("/").key(&key(1)).status(port) == Some(200)
}

/// Problems of a service, as `/services` shows them.
fn problems(daemon: &Daemon, service: &str) -> String {
    daemon.service(service)["problems"].to_string()
}

fn stale(daemon: &Daemon, service: &str) -> bool {
    daemon
        .metrics()
        .count("outrigger_config_stale", &[("service", service)])
        > 0.0
}

/// The victim's file is damaged and mended again.
fn damage_and_mend(tree: &Tree, daemon: &Daemon, port: u16, app: u16, damage: &Damage) {
    let what = damage.what;
    let errors = || {
        daemon
            .metrics()
            .count("outrigger_config_reloads_total", &[("result", "refused")])
    };
    let (before, printed) = (errors(), daemon.output().len());
    clear(&tree.file("shop/victim"));
    (damage.make)(&tree.file("shop/victim"));
    daemon.reload();
    assert!(
        answers_as_guarded(port),
        "{what}: the last good version is gone"
    );
    assert!(
        stale(daemon, "shop/victim"),
        "{what}: not stale in the metrics"
    );
    assert!(errors() > before, "{what}: no reload failed in the metrics");
    let file = "shop/victim/service.config.yaml";
    let place = if damage.line {
        format!("{file}:")
    } else {
        file.to_owned()
    };
    let told = problems(daemon, "shop/victim");
    assert!(told.contains(&place), "{what}: /services says {told}");
    wait_until(&format!("{what}: a log line with the place"), SOON, || {
        daemon.output()[printed..].contains(&place)
    });
    let (code, printed) = run_to_end(tree.root(), &["check"], &[]);
    assert_eq!(code, 64, "{what}: check says {printed}");
    assert!(printed.contains(&place), "{what}: check says {printed}");

    clear(&tree.file("shop/victim"));
    tree.write("shop/victim", guarded(port, app));
    daemon.reload();
    assert!(
        !stale(daemon, "shop/victim"),
        "{what}: still stale when mended"
    );
    assert!(answers_as_guarded(port), "{what}: mended");
}

#[test]
fn a_service_keeps_its_last_good_version() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let ports = free_ports(2);
    let tree = Tree::with(&[
        ("shop/victim", &guarded(ports[0], app.port())),
        ("shop/bystander", &open(ports[1], app.port(), 1)),
    ]);
    let daemon = Setup::new(&tree).start();
    let bystander = Load::start(
        ports[1],
        1,
        Duration::from_millis(5),
        Plain(Request::get("/")),
    );
    let damages = damages(ports[0]);
    for damage in &damages {
        damage_and_mend(&tree, &daemon, ports[0], app.port(), damage);
    }
    let report = bystander.stop();
    figure!(
        "{} damages, beside {} requests to another service",
        damages.len(),
        report.requests
    );
    assert_eq!(
        (report.failures, report.announced_closes),
        (0, 0),
        "{:#?}",
        report.words
    );
}

#[test]
fn a_service_without_a_good_version_answers_config_invalid() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let ports = free_ports(40);
    let tree = Tree::with(&[("shop/bystander", &open(ports[0], app.port(), 1))]);
    let mut services = Vec::new();
    for (number, port) in ports.iter().enumerate().skip(1) {
        let Some(damage) = damages(*port).into_iter().nth(number - 1) else {
            break;
        };
        let name = format!("bad/s{number}");
        fs::create_dir_all(tree.folder(&name)).unwrap();
        (damage.make)(&tree.file(&name));
        services.push((name, *port, damage));
    }
    let daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").status(ports[0]), Some(200));
    for (name, port, damage) in &services {
        let what = damage.what;
        if damage.port_known {
            let answer = Request::get("/").key(&key(1)).send(*port);
            assert_eq!(
                (answer.status, answer.cause().as_str()),
                (503, "config_invalid"),
                "{what}"
            );
        } else if accepts(*port) {
            // Read leniently, which is better still.
            assert_eq!(
                Request::get("/").send(*port).cause(),
                "config_invalid",
                "{what}"
            );
        }
        let told = problems(&daemon, name);
        assert!(
            told.contains(name.as_str()),
            "{what}: /services says {told}"
        );
    }
    assert_eq!(
        app.count(),
        1,
        "only the bystander's request reached the app"
    );

    // Mended, each is served without a restart.
    for (name, port, _) in &services {
        clear(&tree.file(name));
        tree.write(name, guarded(*port, app.port()));
    }
    daemon.reload();
    for (_, port, damage) in &services {
        assert!(answers_as_guarded(*port), "{} mended", damage.what);
    }
}

#[test]
fn a_start_with_nothing_good_ends_with_64() {
    let _machine = shared_machine();
    let tree = Tree::with(&[("shop/cart", "port: 3001\nupstreem: 8080\n")]);
    let mut daemon = Setup::new(&tree).spawn();
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(64), "{output}");
    assert!(
        output.contains("shop/cart/service.config.yaml:2"),
        "{output}"
    );
    assert!(output.contains("upstream"), "no did-you-mean: {output}");
}

#[test]
fn a_taken_port_is_refused_by_name() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let ports = free_ports(4);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[3])).unwrap();
    let tree = Tree::with(&[
        ("shop/mover", &guarded(ports[0], app.port())),
        ("shop/owner", &open(ports[1], app.port(), 1)),
    ]);
    let daemon = Setup::new(&tree).start();
    // Another process has it.
    tree.replace("shop/mover", guarded(ports[3], app.port()));
    daemon.reload();
    assert!(answers_as_guarded(ports[0]));
    let told = problems(&daemon, "shop/mover");
    assert!(
        told.contains(&format!("port {} is in use", ports[3])),
        "{told}"
    );
    // Another service has it.
    tree.replace("shop/mover", guarded(ports[1], app.port()));
    daemon.reload();
    assert!(answers_as_guarded(ports[0]));
    assert_eq!(Request::get("/").status(ports[1]), Some(200));
    let told = problems(&daemon, "shop/mover");
    assert!(told.contains("shop/owner"), "{told}");
    // A free one is taken, and the old one given back.
    tree.replace("shop/mover", guarded(ports[2], app.port()));
    daemon.reload();
    assert!(answers_as_guarded(ports[2]));
    wait_until("the old port closes", SOON, || !accepts(ports[0]));
    // The process that had it goes away.
    drop(taken);
    tree.replace("shop/mover", guarded(ports[3], app.port()));
    daemon.reload();
    assert!(answers_as_guarded(ports[3]));
}

/// A policy that only fails when it is put to work: the port says so, and the
/// neighbour does not notice.
#[test]
fn a_version_that_cannot_be_built_says_so_on_its_port() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let ports = free_ports(2);
    let (good, bad) = (ports[0], ports[1]);
    let pem = "-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----";
    let broken = format!(
        "port: {bad}\nupstream: {0}\nhealthCheck: false\nauth: {{jwt: {{publicKey: \"{pem}\"}}}}\n",
        app.port()
    );
    let tree = Tree::with(&[
        ("shop/cart", &broken),
        ("shop/users", &open(good, app.port(), 0)),
    ]);
    let daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").send(good).status, 200);
    let answer = Request::get("/").send(bad);
    assert_eq!(
        (answer.status, answer.cause().as_str()),
        (503, "config_invalid")
    );
    let service = daemon.service("shop/cart");
    assert!(service["problems"].to_string().contains("PEM"), "{service}");

    tree.write("shop/cart", open(bad, app.port(), 1));
    wait_until("the good version serves", SOON, || {
        Request::get("/").status(bad) == Some(200)
    });
}
