//! TLS on a public port as `openssl` and `curl` see it: versions, protocols,
//! certificates of both sides, each refusal with its line in the log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::ExtendedKeyUsagePurpose;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::pki::{Authority, Dates, Pair};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// Services under TLS, and folders with certificates beside them.
struct House {
    app: App,
    ports: Vec<u16>,
    tree: Tree,
    daemon: Daemon,
    authority: Authority,
}

const NAMES: [&str; 4] = ["plain", "modern", "old", "inner"];

fn house(level: &str) -> House {
    let app = App::start(scripts::echo);
    let ports = free_ports(4);
    let authority = Authority::new("shop");
    let tree = Tree::new();
    let tls = [
        "{cert: server.pem, key: server.key}",
        "{cert: server.pem, key: server.key, minVersion: 1.3}",
        "{cert: server.pem, key: server.key}",
        "{cert: server.pem, key: server.key, clientCa: ca.pem}",
    ];
    for (index, name) in NAMES.iter().enumerate() {
        let service = format!("shop/{name}");
        let auth = match *name {
            "inner" => "{strategy: mtls, mtls: {allow: ['spiffe://shop/orders', 'dns:cart.shop']}}",
            _ => "none",
        };
        let pair = match *name {
            "old" => authority.issue(&["localhost"], Dates::Past),
            _ => authority.server(),
        };
        pair.write(&tree.folder(&service), "server");
        tree.put(&format!("services/{service}/ca.pem"), authority.pem());
        tree.write(
            &service,
            format!(
                "port: {}\nupstream: {}\nhealthCheck: false\nauth: {auth}\ntls: {}\n\
                 limits: {{headerTimeout: 2s, connections: 40}}\n",
                ports[index],
                app.port(),
                tls[index]
            ),
        );
    }
    tree.put("ca.pem", authority.pem());
    let setup = Setup::new(&tree).process(&format!("log: {{level: {level}}}"));
    let daemon = setup.start();
    House {
        app,
        ports,
        tree,
        daemon,
        authority,
    }
}

/// What a client printed, and how it ended.
struct Ran {
    code: i32,
    text: String,
}

#[track_caller]
fn run(folder: &Path, program: &str, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("no `{program}`: run scripts/test, which installs it: {error}")
        });
    // A client that is refused does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Ran {
        code: output.status.code().unwrap_or(-1),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

impl House {
    /// One request by curl: exit code, and `status version body…`.
    #[track_caller]
    fn curl(&self, service: usize, arguments: &[&str]) -> Ran {
        let url = format!("https://localhost:{}/", self.ports[service]);
        let mut all = vec![
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            "ca.pem",
            "-w",
            "\n%{http_code} %{http_version}",
        ];
        all.extend(arguments);
        if !arguments
            .iter()
            .any(|argument| argument.starts_with("https://"))
        {
            all.push(&url);
        }
        run(self.tree.root(), "curl", &all, b"")
    }

    /// A handshake by openssl, and a request if it came to that.
    #[track_caller]
    fn openssl(&self, service: usize, arguments: &[&str]) -> Ran {
        let address = format!("127.0.0.1:{}", self.ports[service]);
        let mut all = vec![
            "s_client", "-connect", &address, "-CAfile", "ca.pem", "-ign_eof",
        ];
        all.extend(arguments);
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        run(self.tree.root(), "openssl", &all, request)
    }

    /// A client's certificate in files of the working directory.
    fn client(&self, name: &str, pair: &Pair) -> [String; 4] {
        pair.write(self.tree.root(), name);
        [
            "--cert".to_owned(),
            format!("{name}.pem"),
            "--key".to_owned(),
            format!("{name}.key"),
        ]
    }

    #[track_caller]
    fn curl_as(&self, pair: &Pair, version: &str) -> Ran {
        let shown = self.client("client", pair);
        let mut all: Vec<&str> = shown.iter().map(String::as_str).collect();
        all.extend(["--tls-max", version, "--http1.1"]);
        self.curl(3, &all)
    }

    #[track_caller]
    fn told(&self, service: &str, parts: &[&str]) -> String {
        let mut all = vec!["tls handshake failed", service];
        all.extend(parts);
        self.daemon.wait_for_line(&all)
    }
}

#[test]
fn versions_and_protocols_are_agreed_on() {
    let _machine = shared_machine();
    let house = house("info");
    for version in ["1.2", "1.3"] {
        for (flag, spoken) in [("--http1.1", "200 1.1"), ("--http2", "200 2")] {
            let flags = ["--tlsv1.2", "--tls-max", version, flag];
            let ran = house.curl(0, &flags);
            assert_eq!(ran.code, 0, "{flags:?}: {}", ran.text);
            assert!(ran.text.ends_with(spoken), "{flags:?}: {}", ran.text);
            let seen = ran.text.to_ascii_lowercase();
            let proto = "[\"x-forwarded-proto\",\"https\"]";
            assert!(seen.contains(proto), "{seen}");
        }
    }
    for (flag, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for alpn in ["h2", "http/1.1"] {
            let ran = house.openssl(0, &[flag, "-alpn", alpn]);
            for line in [
                format!("New, {protocol},"),
                format!("ALPN protocol: {alpn}"),
            ] {
                assert!(ran.text.contains(&line), "{line} in {}", ran.text);
            }
        }
        // Nothing offered: told by the first bytes.
        let ran = house.openssl(0, &[flag, "-quiet"]);
        assert!(ran.text.contains("HTTP/1.1 200"), "{}", ran.text);
    }
    let both = house.openssl(0, &["-alpn", "http/1.1,h2"]);
    assert!(both.text.contains("ALPN protocol: h2"), "{}", both.text);
    // Verified by openssl, too.
    assert!(
        both.text.contains("Verify return code: 0 (ok)"),
        "{}",
        both.text
    );

    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let refused = house.openssl(0, &old);
    assert!(
        refused.code != 0 && !refused.text.contains("HTTP/1.1"),
        "{}",
        refused.text
    );
    house.told("shop/plain", &["incompatible"]);
    let refused = house.curl(1, &["--tls-max", "1.2"]);
    assert_eq!(refused.code, 35, "{}", refused.text);
    house.told("shop/modern", &["incompatible"]);
    let ran = house.curl(1, &["--tlsv1.3"]);
    assert!(ran.text.ends_with("200 2"), "{}", ran.text);
    let refused = house.openssl(0, &["-alpn", "smtp"]);
    assert!(!refused.text.contains("HTTP/1.1"), "{}", refused.text);
    house.told("shop/plain", &["incompatible", "ALPN"]);

    let metrics = house.daemon.metrics();
    let count = |result| {
        let labels = [("service", "shop/plain"), ("result", result)];
        metrics.count("outrigger_tls_handshakes_total", &labels)
    };
    assert!(count("done") >= 9.0, "{}", count("done"));
    assert!(count("incompatible") >= 2.0);
}

#[test]
fn clients_refuse_what_is_not_for_them() {
    let _machine = shared_machine();
    let house = house("info");
    let elsewhere = format!("https://cart.shop:{}/", house.ports[0]);
    let resolve = format!("cart.shop:{}:127.0.0.1", house.ports[0]);
    let wrong_name = house.curl(0, &["--resolve", &resolve, &elsewhere]);
    assert_eq!(wrong_name.code, 60, "{}", wrong_name.text);
    // OpenSSL checks the name after the handshake and closes: no alert.
    let expired = house.curl(2, &[]);
    assert_eq!(expired.code, 60, "{}", expired.text);
    house.told("shop/old", &["refused_by_client", "CertificateExpired"]);
    let stranger = Authority::new("stranger");
    house.tree.put("ca.pem", stranger.pem());
    let unknown = house.curl(0, &[]);
    assert_eq!(unknown.code, 60, "{}", unknown.text);
    house.told("shop/plain", &["refused_by_client", "UnknownCA"]);
    assert_eq!(house.app.count(), 0);

    // Plain text on the port: no answer, a line, no harm.
    assert_eq!(Request::get("/").status(house.ports[0]), None);
    house.told("shop/plain", &["not_tls"]);
    // A certificate that has expired is served, and said at the start.
    house
        .daemon
        .wait_for_line(&["WARN", "shop/old", "certificate"]);
}

#[test]
fn only_certificates_that_are_listed_get_in() {
    let _machine = shared_machine();
    // Why somebody is refused is told at debug.
    let house = house("debug");
    let (issue, stranger) = (
        |names: &[&str]| house.authority.issue(names, Dates::Now),
        Authority::new("stranger"),
    );
    for version in ["1.2", "1.3"] {
        let orders = house.curl_as(&issue(&["spiffe://shop/orders"]), version);
        assert!(orders.text.ends_with("200 1.1"), "{}", orders.text);
        for seen in [
            "[\"x-auth-strategy\",\"mtls\"]",
            "[\"x-auth-subject\",\"spiffe://shop/orders\"]",
            "[\"x-service-name\",\"spiffe://shop/orders\"]",
            "[\"x-service-call\",\"true\"]",
        ] {
            assert!(orders.text.contains(seen), "{seen} in {}", orders.text);
        }
        let cart = house.curl_as(&issue(&["cart.shop"]), version);
        assert!(
            cart.text.contains("[\"x-auth-subject\",\"cart.shop\"]"),
            "{}",
            cart.text
        );
        let before = house.app.count();
        // Others of the same authority, or by several URIs: 403 and a reason.
        for names in [
            &["spiffe://shop/other"][..],
            &["x.cart.shop"],
            &["spiffe://shop/orders/x"],
            &["spiffe://shop/orders", "spiffe://shop/x"],
        ] {
            let other = house.curl_as(&issue(names), version);
            assert!(other.text.ends_with("403 1.1"), "{names:?}: {}", other.text);
            assert!(!other.text.contains("not_listed"), "{}", other.text);
        }
        house
            .daemon
            .wait_for_line(&["shop/inner", "auth_denied", "not_listed"]);
        let refused = |pair: &Pair, parts: &[&str]| {
            let ran = house.curl_as(pair, version);
            let text = &ran.text;
            assert!(ran.code != 0 && !text.contains(" 1.1"), "{text}");
            house.told("shop/inner", parts);
        };
        let named = &["spiffe://shop/orders"];
        refused(
            &house.authority.issue(named, Dates::Past),
            &["bad_certificate", "expired"],
        );
        refused(
            &house.authority.issue(named, Dates::Future),
            &["bad_certificate", "not valid yet"],
        );
        refused(
            &stranger.issue(named, Dates::Now),
            &["bad_certificate", "UnknownIssuer"],
        );
        let server_only = [ExtendedKeyUsagePurpose::ServerAuth];
        let pair = house.authority.issue_for(named, Dates::Now, &server_only);
        refused(&pair, &["bad_certificate"]);
        let none = house.curl(3, &["--tls-max", version, "--http1.1"]);
        assert!(
            none.code != 0 && !none.text.contains(" 1.1"),
            "{}",
            none.text
        );
        house.told("shop/inner", &["no_certificate"]);
        assert_eq!(house.app.count(), before, "the app was reached");
    }
}

/// The head of a TLS record that announces more than will come.
const HALF_A_HELLO: [u8; 6] = [22, 3, 1, 2, 0, 1];

#[test]
fn a_slow_handshake_is_a_connection_and_is_cut() {
    let _machine = shared_machine();
    let house = house("info");
    let connect = || TcpStream::connect(("127.0.0.1", house.ports[0])).unwrap();
    let mut slow: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(&HALF_A_HELLO).unwrap();
    }
    let started = Instant::now();
    // The port is full: closed without a handshake. Workers accept on their
    // own: a client of theirs may come in before all of the slow ones, and one
    // of these is turned away instead. What it leaves is taken again.
    wait_until("one too many is turned away", SOON, || {
        let mut another = connect();
        let _ = another.write_all(&HALF_A_HELLO);
        slow.push(another);
        let ran = house.curl(0, &["--max-time", "1"]);
        ran.code != 0 && house.daemon.output().contains("too many connections")
    });
    for mut stream in slow {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // Closed or reset: over either way.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
    house.told("shop/plain", &["timeout"]);
    wait_until("there is room again", SOON, || house.curl(0, &[]).code == 0);
}
