//! Panics in a running daemon do what SPEC §11 promises, and no more.
//!
//! The daemon is this test binary started again: it can be asked for faults,
//! which an ordinary build does not know.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Cli, run};
use crate::config::Environment;

/// Set for the child.
const MARK: &str = "TEST_OF_FAULTS";
/// For what takes milliseconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "started as a child by the other tests of this file"]
fn daemon() {
    if Environment::capture().get(MARK).is_none() {
        return;
    }
    let parsed: Result<Cli, _> = clap::Parser::try_parse_from(["outrigger", "run"]);
    if let Ok(Cli {
        command: super::Command::Run(args),
    }) = parsed
    {
        std::process::exit(run::serve(&args, Vec::new()).into());
    }
}

struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    app: u16,
    admin: u16,
    changes: u32,
}

impl Daemon {
    fn start() -> Self {
        let app = start_app();
        let [port, admin, observe] = free_ports();
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "listen: 127.0.0.1\nadmin: {{listen: \"127.0.0.1:{admin}\"}}\n\
             observe: {{listen: \"127.0.0.1:{observe}\"}}\nworkers: 2\n\
             shutdown: {{accept: 0s, deadline: 2s}}\n"
        );
        for name in ["config", "faults", "services/shop/cart"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("config/outrigger.yaml"), config).expect("a file");
        write_service(&folder, port, app, 0);
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "cli::fault_tests::daemon", "--ignored"])
            .current_dir(folder.path())
            .env(MARK, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary starts");
        let daemon = Self {
            child,
            folder,
            port,
            app,
            admin,
            changes: 0,
        };
        until("the daemon serves", || daemon.probe("/startupz") == 200);
        daemon
    }

    /// A file that asks for a fault.
    fn ask_for(&self, fault: &str) {
        fs::write(self.folder.path().join("faults").join(fault), "").expect("a file");
    }

    /// Changes the service's file, so that there is something to follow.
    fn change(&mut self) {
        self.changes += 1;
        write_service(&self.folder, self.port, self.app, self.changes);
    }

    fn probe(&self, path: &str) -> u16 {
        status(&ask(self.admin, path, ""))
    }

    fn panics_of(&self, task: &str) -> Option<u32> {
        let metrics = ask(self.admin, "/metrics", "");
        let name = format!("outrigger_task_panics_total{{task=\"{task}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.parse().ok())
    }

    fn serves(&self) -> bool {
        status(&ask(self.port, "/", "")) == 200
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_service(folder: &tempfile::TempDir, port: u16, app: u16, change: u32) {
    let text = format!(
        "port: {port}\nupstream: {app}\nauth: {{strategy: none}}\nlimits: {{inFlight: {}}}\n",
        1000 + change
    );
    let file = folder.path().join("services/shop/cart/service.config.yaml");
    fs::write(file, text).expect("a file");
}

/// An app that says `ok` to everything.
fn start_app() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

fn free_ports() -> [u16; 3] {
    let listeners = [0; 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    listeners.map(|listener| {
        let address = listener.and_then(|listener| listener.local_addr());
        address.expect("a free port").port()
    })
}

/// Everything that comes back; empty when nothing does.
fn ask(port: u16, path: &str, header: &str) -> String {
    let exchange = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        // A reset ends the answer where it is.
        let _ = stream.read_to_end(&mut answer);
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    exchange().unwrap_or_default()
}

fn status(answer: &str) -> u16 {
    let digits = answer.get(9..12).unwrap_or_default();
    digits.parse().unwrap_or_default()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_panic_in_a_request_ends_that_request_alone() {
    let daemon = Daemon::start();
    let mut bystander = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).expect("accepts");
    let mut exchange = || {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        bystander.write_all(request).expect("open");
        let mut answer = [0; 4096];
        let count = bystander.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    assert_eq!(status(&exchange()), 200);
    let failed = ask(daemon.port, "/", "x-outrigger-fault: request\r\n");
    assert_eq!(status(&failed), 500, "{failed}");
    assert!(failed.contains("\"cause\":\"internal\""), "{failed}");
    assert!(!failed.contains("fault"), "{failed}");
    let cut = ask(daemon.port, "/", "x-outrigger-fault: body\r\n");
    assert!(!cut.ends_with("ok"), "{cut}");
    assert_eq!(status(&exchange()), 200);
    assert_eq!(daemon.panics_of("request"), Some(2));
    assert_eq!(daemon.probe("/livez"), 200);
}

#[test]
fn the_control_loop_is_begun_again_and_given_up_the_third_time() {
    let mut daemon = Daemon::start();
    for panics in 1..=3 {
        daemon.ask_for("control");
        daemon.change();
        until("the loop panics", || {
            daemon.panics_of("control") == Some(panics)
        });
        let alive = if panics < 3 { 200 } else { 503 };
        until("liveness follows", || daemon.probe("/livez") == alive);
        // What it was told before it panicked is not lost.
        let wanted = format!("{}", 1000 + panics);
        until("the change is in force", || {
            ask(daemon.admin, "/services", "").contains(&wanted)
        });
        assert!(daemon.serves());
    }
}

#[test]
fn the_process_ends_with_70_when_a_worker_does() {
    let mut daemon = Daemon::start();
    daemon.ask_for("worker");
    daemon.change();
    let mut code = None;
    until("the process ends", || {
        let status = daemon.child.try_wait().expect("our child");
        code = status.and_then(|status| status.code());
        status.is_some()
    });
    assert_eq!(code, Some(70));
}

#[test]
fn a_worker_that_is_stuck_fails_liveness() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.probe("/livez"), 200);
    daemon.ask_for("stuck-worker");
    daemon.change();
    until("liveness fails", || daemon.probe("/livez") == 503);
    let answer = ask(daemon.admin, "/livez", "");
    assert!(
        answer.contains("worker") && answer.contains("does not tick"),
        "{answer}"
    );
}
