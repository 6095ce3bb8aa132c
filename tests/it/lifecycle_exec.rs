//! `outrigger exec`: a command with its sidecar (SPEC §11).

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::files::open;
use crate::support::isolation::Wrapper;
use crate::support::ports::{free_port, free_ports};
use crate::support::process;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_for, wait_until};

struct Job {
    tree: Tree,
    port: u16,
    app_port: u16,
    price_port: u16,
}

impl Job {
    fn new() -> Self {
        let ports = free_ports(3);
        let file = format!(
            "{}dependencies:\n  - {{name: price-list, address: 'prices:80', localPort: {}}}\n",
            open(ports[0], ports[1], 0),
            ports[2]
        );
        Self {
            tree: Tree::with(&[("shop/cart", &file)]),
            port: ports[0],
            app_port: ports[1],
            price_port: ports[2],
        }
    }

    fn setup(&self, command: &[&str]) -> Setup {
        let mut words = vec!["exec", "--"];
        words.extend(command);
        Setup::new(&self.tree)
            .process("shutdown: {accept: 5s, deadline: 20s}")
            .subcommand(&words)
    }

    fn run(&self, command: &[&str]) -> (Option<i32>, String) {
        let mut daemon = self.setup(command).spawn();
        let (status, output) = daemon.wait_for_exit(SOON);
        (status.code(), output)
    }
}

#[test]
fn a_job_runs_beside_its_sidecar_and_gives_its_code() {
    let _machine = shared_machine();
    let job = Job::new();
    let script = format!(
        "{BINARY} health --startup && echo \"up: $PORT $SERVICE_PORT $PRICE_LIST_URL \
         [$SERVICE_API_KEY$SERVICE_JWT_SECRET$OUTRIGGER_ADMIN_TOKEN] $KEPT $(ulimit -n)\"; exit 7"
    );
    let begun = Instant::now();
    let mut daemon = job
        .setup(&["sh", "-c", &script])
        .env("SERVICE_API_KEY", "a-key-of-the-sidecar-of-32-bytes")
        .env("SERVICE_JWT_SECRET", "a-jwt-secret-of-at-least-32-bytes")
        .env("OUTRIGGER_ADMIN_TOKEN", "a-token-of-the-admin-port")
        .env("SERVICE_PORT", &job.port.to_string())
        .env("KEPT", "kept")
        .within(Wrapper::after("ulimit -S -n 512"))
        .spawn();
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(7), "{output}");
    let (app, price) = (job.app_port, job.price_port);
    let line = format!("up: {app} {app} http://127.0.0.1:{price} [] kept 512");
    assert!(output.contains(&line), "no `{line}` in\n{output}");
    // Its end is the app's end: nothing to wait for.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn codes_are_those_of_a_shell() {
    let _machine = shared_machine();
    let job = Job::new();
    for (command, expected) in [
        (&["true"][..], 0),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-command"], 127),
        (&["/dev/null"], 126),
    ] {
        let (code, output) = job.run(command);
        assert_eq!(code, Some(expected), "{command:?}\n{output}");
    }
    job.tree.write("shop/cart", "port: x\n");
    assert_eq!(job.run(&["touch", "was-run"]).0, Some(64));
    assert!(!job.tree.root().join("was-run").exists());
}

#[test]
fn signals_are_handed_on_and_the_sidecar_serves_meanwhile() {
    let _machine = shared_machine();
    let job = Job::new();
    let _app = App::start_on(job.app_port, scripts::ok);
    let script = "trap 'echo got hup' HUP; trap 'got=1' TERM; echo begun; \
                  while [ -z \"$got\" ]; do sleep 0.05; done; sleep 1; exit 9";
    let mut daemon = job.setup(&["sh", "-c", script]).spawn();
    daemon.wait_for_line(&["begun"]);
    daemon.signal("HUP");
    daemon.wait_for_line(&["got hup"]);
    daemon.signal("TERM");
    // The command takes a second to end, and may need to be reached for that.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        assert_eq!(Request::get("/").status(job.port), Some(200));
    }
    drop(_app);
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(9), "{output}");
}

#[test]
fn a_drain_asked_for_ends_the_command() {
    let _machine = shared_machine();
    let job = Job::new();
    let mut daemon = job
        .setup(&["sh", "-c", "echo begun; exec sleep 60"])
        .spawn();
    daemon.wait_for_line(&["begun"]);
    assert_eq!(daemon.admin_post("/drain", "").status, 202);
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(143));
}

#[test]
fn a_signal_after_the_end_of_the_command_cuts_nothing() {
    let _machine = shared_machine();
    let job = Job::new();
    let _app = App::start_on(job.app_port, scripts::slow(Duration::from_secs(2)));
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; exit 5";
    let mut daemon = job.setup(&["sh", "-c", script]).spawn();
    daemon.wait_for_line(&["begun"]);
    let mut client = Client::connect(job.port).unwrap();
    client.send(&Request::get("/").bytes()).unwrap();
    std::fs::write(job.tree.root().join("go"), "").unwrap();
    daemon.wait_for_line(&["the command ended"]);
    daemon.signal("TERM");
    assert_eq!(client.response().unwrap().status, 200);
    drop(_app);
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(5), "{output}");
}

fn process_one(daemon: &Daemon) -> u32 {
    let (pid, _) = wait_for("process 1 is there", SOON, || {
        let (child, _) = *process::children(daemon.pid()).first()?;
        Some(child)
    });
    pid
}

#[test]
fn process_one_reaps_orphans_and_takes_sigterm() {
    let _machine = shared_machine();
    let Some(wrapper) = Wrapper::process_one() else {
        return;
    };
    let job = Job::new();
    // Each inner shell leaves an orphan behind that ends a moment later.
    let script = "for i in 1 2 3 4; do (sleep 0.2 & exit 0); done; echo begun; exec sleep 60";
    let mut daemon = job.setup(&["sh", "-c", script]).within(wrapper).spawn();
    daemon.wait_for_line(&["begun"]);
    let inner = process_one(&daemon);
    wait_until("the orphans are reaped", SOON, || {
        let children = process::children(inner);
        children.len() == 1 && children[0].1 != 'Z'
    });
    process::signal(inner, "TERM");
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(143), "{output}");
}

#[test]
fn a_signal_before_the_command_runs_is_enough() {
    let _machine = shared_machine();
    let job = Job::new();
    let port = free_port();
    job.tree.write("shop/more", open(port, job.app_port, 0));
    let mut daemon = job.setup(&["sleep", "60"]).spawn();
    wait_until("it serves", SOON, || {
        Request::get("/livez").status(daemon.observe).is_some()
    });
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(143));
}
