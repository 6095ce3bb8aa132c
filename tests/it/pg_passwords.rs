//! How passwords go to a server: never in the clear unless TLS is verified.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use crate::support::client::accepts;
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_port;
use crate::support::postgres::{Cluster, append};
use crate::support::site::Site;
use crate::support::sql::{SERVICE, post, service_as};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// A server that asks for the password in one way and keeps what comes then.
struct Curious {
    port: u16,
    /// What came after the start of each session.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Curious {
    /// `request`: what follows the length of an authentication request.
    fn start(request: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), kept) = (stream, Arc::clone(&kept)) else {
                    break;
                };
                thread::spawn(move || {
                    let heard = ask(stream, request).unwrap_or_default();
                    kept.lock().expect("nobody panics").push(heard);
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().expect("nobody panics").clone()
    }
}

/// Reads the startup message, asks, and reads to the end.
fn ask(mut stream: TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    read_startup(&mut stream)?;
    let message = authentication(request);
    // In two pieces: what arrives slowly is judged as a whole.
    stream.write_all(&message[..3])?;
    stream.flush()?;
    thread::yield_now();
    stream.write_all(&message[3..])?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    Ok(heard)
}

/// Whoever logs in so is told that it is not safe.
#[track_caller]
fn the_pool_refuses(login: &str) {
    let text = format!(
        "port: {}\nauth: none\ndatabase: {{{login}, database: x, isolation: isolated, \
         provision: false, migrations: false}}\n",
        free_port()
    );
    let tree = Tree::with(&[(SERVICE, &text)]);
    let daemon = Setup::new(&tree).spawn();
    wait_until("the door says why", SOON, || {
        said(&daemon).1 == "unsafe_authentication"
    });
}

fn read_startup(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut rest)
}

fn authentication(request: &[u8]) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend_from_slice(&(request.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(request);
    message
}

/// Offers SCRAM and asks for two milliards of rounds of hashing.
fn keeps_busy(mut stream: TcpStream) -> std::io::Result<()> {
    read_startup(&mut stream)?;
    stream.write_all(&authentication(b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [_, length @ ..] = head;
    let mut first = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut first)?;
    let first = String::from_utf8_lossy(&first).into_owned();
    let nonce = first.split("r=").nth(1).unwrap_or_default();
    let answer = format!("\0\0\0\x0br={nonce}x,s=c2FsdHNhbHRzYWx0,i=2000000000");
    stream.write_all(&authentication(answer.as_bytes()))?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}

#[test]
fn a_server_that_asks_for_endless_hashing_keeps_nobody_busy() {
    let _machine = shared_machine();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(|| keeps_busy(stream));
        }
    });
    let site = Site::new(Cluster::shared(), "busy");
    let login = format!("host: 127.0.0.1, port: {port}, user: boss, password: the-boss-password");
    site.service("users", &login);
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 69, "{output}");
    assert!(output.contains("SCRAM iterations"), "{output}");
    the_pool_refuses(&login);
}

#[test]
fn a_server_that_asks_in_the_clear_hears_nothing() {
    let _machine = shared_machine();
    // AuthenticationCleartextPassword.
    let server = Curious::start(&[0, 0, 0, 3]);
    let port = server.port;
    let login = format!("host: 127.0.0.1, port: {port}, user: boss, password: the-boss-password");
    for keys in [
        login.clone(),
        format!("{login}, provision: true"),
        format!("{login}, provision: false, role: boss"),
    ] {
        let site = Site::new(Cluster::shared(), "curious");
        site.service("users", &keys);
        for words in [
            &["migrate", "up"][..],
            &["migrate", "status"],
            &["db", "url", "users"],
        ] {
            let (code, output) = site.run(words);
            if code == 0 {
                // Nobody was asked.
                continue;
            }
            assert_eq!(code, 69, "{keys} {words:?}: {output}");
            assert!(
                output.contains("by a method that is not safe here: password"),
                "{keys} {words:?}: {output}"
            );
        }
    }
    the_pool_refuses(&login);
    wait_until("the server has heard them all", SOON, || {
        server.heard().len() >= 6
    });
    assert_eq!(server.heard().concat(), b"", "something was said to it");
}

fn certificates() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/tests")
}

/// A server with TLS that asks `plain` for its password as it is, and `digested`
/// for a digest of it.
fn old_fashioned() -> Cluster {
    let cluster = Cluster::private(&[]);
    let data = cluster.folder().join("data");
    for (from, to) in [
        ("server.pem", "server.crt"),
        ("server.key.pem", "server.key"),
    ] {
        let target = data.join(to);
        std::fs::copy(certificates().join(from), &target).expect("the files are there");
        cluster.own(&target);
    }
    for sql in [
        "set password_encryption = 'md5'; \
         create role digested superuser login password 'digested'",
        "create role plain superuser login password 'plain'",
        "alter system set ssl = on",
    ] {
        cluster.sql("postgres", sql);
    }
    let hba = data.join("pg_hba.conf");
    let before = std::fs::read_to_string(&hba).expect("it is there");
    std::fs::write(&hba, "").expect("the file is ours");
    append(&hba, "host all plain all password");
    append(&hba, "host all digested all md5");
    append(&hba, &before);
    cluster.sql("postgres", "select pg_reload_conf()");
    let on = "select setting from pg_settings where name = 'ssl'";
    wait_until("TLS is on", SOON, || cluster.sql("postgres", on) == "on");
    cluster
}

const DISABLE: &str = "{mode: disable}";
const REQUIRE: &str = "{mode: require}";
const VERIFY: &str = "{mode: verify-full, ca: ca.pem}";

#[test]
fn a_clear_text_password_needs_verified_tls_and_md5_a_safe_way() {
    let _machine = shared_machine();
    let cluster = old_fashioned();
    let site = Site::new(&cluster, "clear");
    let (port, base) = (cluster.port, &site.base);
    for (user, tls, safe) in [
        ("plain", DISABLE, false),
        ("plain", REQUIRE, false),
        ("plain", VERIFY, true),
        // Nobody can listen in on this machine.
        ("digested", DISABLE, true),
        ("digested", VERIFY, true),
    ] {
        let keys = format!(
            "host: localhost, port: {port}, database: {base}, user: {user}, password: {user}, \
             tls: {tls}, connectionTimeoutMillis: 10000"
        );
        site.service("users", &keys);
        let folder = site.tree.folder(&format!("{}/users", site.domain()));
        std::fs::copy(certificates().join("ca.pem"), folder.join("ca.pem")).expect("it is there");
        let (code, output) = site.run(&["migrate", "up"]);
        match safe {
            true => assert_eq!(code, 0, "{user} {tls}: {output}"),
            false => assert!(
                code == 69 && output.contains("not safe here: password"),
                "{user} {tls}: {code} {output}"
            ),
        }
    }
    // The pool goes by the same rules.
    for (user, tls, reason) in [
        ("plain", REQUIRE, "unsafe_authentication"),
        ("plain", VERIFY, ""),
        ("digested", DISABLE, ""),
    ] {
        let file = service_as(&cluster, user, user, base, &format!("  tls: {tls}\n"));
        let file = file.replace("host: 127.0.0.1", "host: localhost");
        let tree = Tree::with(&[(SERVICE, &file)]);
        let ca = tree.folder(SERVICE).join("ca.pem");
        std::fs::copy(certificates().join("ca.pem"), ca).expect("it is there");
        let daemon = Setup::new(&tree).spawn();
        wait_until(&format!("{user} {tls} {reason:?}"), SOON, || {
            let (status, said) = said(&daemon);
            (status, said.as_str()) == (if reason.is_empty() { 200 } else { 503 }, reason)
        });
        if reason.is_empty() {
            daemon.wait_for_line(&["logs in as a superuser"]);
        }
    }
}

/// Status and reason of a query; 0 before the door is open.
fn said(daemon: &Daemon) -> (u16, String) {
    if !accepts(daemon.sql) {
        return (0, String::new());
    }
    let response = post(daemon, "/sql", &json!({"query": "select 1", "params": []}));
    let reason = response.json()["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (response.status, reason)
}
