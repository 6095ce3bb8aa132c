//! No secret value in any output, whatever is asked or goes wrong; and a service
//! file reads neither the process's credentials nor files outside its bounds.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::figures::figure;
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// Where each secret comes from, and its value.
const SECRETS: [(&str, &str); 11] = [
    ("a plain key of the file", "plain-key-6f1d0c1e55aa4b7c"),
    ("a key of the environment", "environment-key-77d1e0a2b9"),
    ("a key of a file", "file-key-1b7f3a5599c0d4e2a6"),
    ("an app token", "app-token-90ab34cd12ef5678"),
    ("a JWT secret", "jwt-secret-4c5d6e7f8091a2b3c4d5e6f7"),
    ("the admin token", "admin-token-aa11bb22cc33dd44"),
    ("SERVICE_API_KEY", "default-key-5566778899aabbcc"),
    ("the password in DATABASE_URL", "database-password-31415926"),
    (
        "a wrong credential of a client",
        "client-guess-2718281828459",
    ),
    ("a bearer of a client", "client-bearer-1618033988749"),
    ("a query parameter of a client", "query-value-1414213562373"),
];

fn secret(of: &str) -> &'static str {
    SECRETS
        .iter()
        .find(|(name, _)| *name == of)
        .expect("a secret of the list")
        .1
}

#[track_caller]
fn assert_nothing_told(place: &str, text: &str) {
    for (name, value) in SECRETS {
        if let Some(at) = text.find(value) {
            let line = text[..at].lines().count();
            panic!(
                "{place} tells {name} on line {line}: {}",
                text.lines().nth(line.saturating_sub(1)).unwrap_or_default()
            );
        }
    }
}

fn good_file(port: u16, app: u16) -> String {
    format!(
        "port: {port}\nupstream: {app}\nhealthCheck: false\nauth:\n  anyOf: [api-key, jwt]\n  apiKey:\n    keys:\n      \
         - {{id: plain, key: {}}}\n      - {{id: env, key: \"${{env:CART_KEY}}\"}}\n      \
         - {{id: file, key: \"${{file:key}}\"}}\n  jwt: {{secret: {}, algorithms: [HS256]}}\n  \
         appToken: {{header: x-app-token, value: {}}}\n",
        secret("a plain key of the file"),
        secret("a JWT secret"),
        secret("an app token"),
    )
}

fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("CART_KEY", secret("a key of the environment").to_owned()),
        (
            "OUTRIGGER_ADMIN_TOKEN",
            secret("the admin token").to_owned(),
        ),
        ("SERVICE_API_KEY", secret("SERVICE_API_KEY").to_owned()),
        (
            "DATABASE_URL",
            format!(
                "postgres://shop:{}@127.0.0.1:1/shop",
                secret("the password in DATABASE_URL")
            ),
        ),
    ]
}

fn tree(port: u16, app: u16) -> Tree {
    let tree = Tree::with(&[("shop/cart", &good_file(port, app))]);
    tree.put(
        "services/shop/cart/key",
        format!("{}\n", secret("a key of a file")),
    );
    tree
}

fn start(tree: &Tree, level: &str) -> Daemon {
    let setup = Setup::new(tree)
        .argument("--log-level")
        .argument(level)
        .process("accessLog: all");
    environment()
        .iter()
        .fold(setup, |setup, (name, value)| setup.env(name, value))
        .env("RUST_LOG", level)
        .start()
}

/// Requests of every outcome, with secrets wherever a client can put them.
fn traffic(port: u16) -> String {
    let guess = secret("a wrong credential of a client");
    let bearer = format!("Bearer {}", secret("a bearer of a client"));
    let query = format!("/x?token={}", secret("a query parameter of a client"));
    let requests = [
        Request::get(&query).key(secret("a plain key of the file")),
        Request::get(&query).key(secret("a key of the environment")),
        Request::get(&query).key(secret("a key of a file")),
        Request::get(&query).key(guess),
        Request::get(&query).header("Authorization", &bearer),
        Request::get(&query)
            .header("Authorization", &bearer)
            .header("Authorization", &bearer),
        Request::get(&query)
            .header("Cookie", guess)
            .header("Authorization", "Basic eDp5"),
        Request::post("/x", guess).key(guess),
        Request::get(&format!("/..{query}")).key(guess),
        Request::get("/health"),
    ];
    let mut told = String::new();
    for request in requests {
        let answer = request.send(port);
        // What the app was sent comes back by its own will; ours does not.
        if answer.status != 200 {
            told.push_str(&format!("{:?} {}\n", answer.head, answer.text()));
        }
    }
    let mut client = Client::connect(port).unwrap();
    client
        .send(format!("GET /{guess} HTTP/9.9\r\nx-api-key: {guess}\r\n\r\n").as_bytes())
        .unwrap();
    told.push_str(&String::from_utf8_lossy(&client.until_close()));
    told
}

/// The file with a mistake on or beside every line that holds a secret.
fn bad_files(port: u16, app: u16) -> Vec<String> {
    let good = good_file(port, app);
    let mut bad = vec![
        good.replace("secret: ", "secret: [") + "\n",
        good.replace("value: ", "valeu: "),
        good.replace("id: plain, key: ", "id: plain, kye: "),
        good.replace("algorithms: [HS256]", "algorithms: [RS256]"),
        good.replace("algorithms: [HS256]", "leeway: soon"),
        good.replace("${env:CART_KEY}", "${env:NO_SUCH_KEY}"),
        good.replace("apiKey:", "apiKeys:"),
        good.replace("header: x-app-token", "header: \"x app token\""),
        good.replace("keys:", "keys: plain"),
    ];
    for (at, _) in good.match_indices("key: ") {
        let mut text = good.clone();
        text.replace_range(at..at + 5, "key: 5 5: ");
        bad.push(text);
    }
    bad
}

#[test]
fn nothing_tells_a_secret_at_any_level() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    for level in ["info", "trace"] {
        let port = free_port();
        let tree = tree(port, app.port());
        let daemon = start(&tree, level);
        assert_nothing_told("an answer", &traffic(port));
        for target in [
            "/services",
            "/metrics",
            "/health/services",
            "/pools",
            "/readyz",
            "/nothing",
        ] {
            let request = Request::get(target).header("Host", "localhost").header(
                "Authorization",
                &format!("Bearer {}", secret("the admin token")),
            );
            assert_nothing_told(target, &request.send(daemon.admin).text());
        }
        for (number, text) in bad_files(port, app.port()).iter().enumerate() {
            tree.replace("shop/cart", text);
            let request = Request::post("/reload", "")
                .header("Host", "localhost")
                .header(
                    "Authorization",
                    &format!("Bearer {}", secret("the admin token")),
                );
            assert_nothing_told("an answer to /reload", &request.send(daemon.admin).text());
            let request = Request::get("/services")
                .header("Host", "localhost")
                .header(
                    "Authorization",
                    &format!("Bearer {}", secret("the admin token")),
                );
            assert_nothing_told(
                "/services with problems",
                &request.send(daemon.admin).text(),
            );
            if level == "info" {
                tell_on_the_command_line(&tree, number);
            }
        }
        // The app goes away, and errors name what failed.
        tree.replace("shop/cart", good_file(port, free_port()));
        assert_nothing_told("an answer without an app", &traffic(port));
        assert_nothing_told("the log", &daemon.output());
        figure!(
            "{level}: {} bytes of output hold none of {} secrets",
            daemon.output().len(),
            SECRETS.len()
        );
    }
}

fn tell_on_the_command_line(tree: &Tree, number: usize) {
    let environment = environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    for arguments in [
        &["check"][..],
        &["explain", "cart"],
        &["explain", "cart", "--env"],
        &["schema"],
    ] {
        let (_, output) = run_to_end(tree.root(), arguments, &environment);
        assert_nothing_told(&format!("{arguments:?} of bad file {number}"), &output);
    }
}

#[test]
fn explain_shows_where_values_come_from_but_no_secret() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let tree = tree(free_port(), app.port());
    let environment = environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    for arguments in [
        &["explain", "cart"][..],
        &["explain", "cart", "--env"],
        &["check"],
    ] {
        let (code, output) = run_to_end(tree.root(), arguments, &environment);
        assert_eq!(code, 0, "{arguments:?}: {output}");
        assert_nothing_told(&format!("{arguments:?}"), &output);
    }
    let (_, output) = run_to_end(tree.root(), &["explain", "cart"], &environment);
    assert!(
        output.contains("service.config.yaml"),
        "no origin: {output}"
    );
}

/// What a service file must not be able to read, as a reference.
fn forbidden(tree: &Tree) -> Vec<String> {
    let outside = tree.put("outside/secret", "outside-1234567890abcdef0001");
    let folder = tree.folder("shop/thief");
    fs::create_dir_all(&folder).unwrap();
    symlink(&outside, folder.join("link")).unwrap();
    symlink(tree.root().join("outside"), folder.join("linked")).unwrap();
    tree.put("services/shop/victim/key", "victim-1234567890abcdef0001");
    tree.put("config/secret", "process-1234567890abcdef001");
    [
        "${env:OUTRIGGER_ADMIN_TOKEN}",
        "${env:OUTRIGGER_DATABASE_PASSWORD}",
        "${env:OUTRIGGER_NOT_SET:-fallback-1234567890abcdef}",
        "${env:DATABASE_URL}",
        "${env:POSTGRES_PASSWORD}",
        "${env:DB_PASSWORD}",
        "${file:/etc/passwd}",
        "${file:/proc/self/environ}",
        "${file:../victim/key}",
        "${file:../../../outside/secret}",
        "${file:link}",
        "${file:linked/secret}",
        "${file:./../victim/key}",
        "${file:}",
        "${file:.}",
        "${file:/dev/stdin}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("${{file:{}}}", outside.display())])
    .collect()
}

#[test]
fn a_service_file_reads_nothing_out_of_bounds() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let ports = free_ports(2);
    let tree = Tree::with(&[("shop/victim", &good_file(ports[0], app.port()))]);
    let references = forbidden(&tree);
    let daemon = environment()
        .iter()
        .fold(Setup::new(&tree), |setup, (name, value)| {
            setup.env(name, value)
        })
        .env(
            "OUTRIGGER_DATABASE_PASSWORD",
            secret("the password in DATABASE_URL"),
        )
        .env("POSTGRES_PASSWORD", secret("the password in DATABASE_URL"))
        .env("DB_PASSWORD", secret("the password in DATABASE_URL"))
        .start();
    for reference in references {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\ndescription: \"{reference}\"\nauth:\n  strategy: none\n  \
             appToken: {{header: x-stolen, value: \"{reference}\"}}\n",
            ports[1],
            app.port()
        );
        tree.write("shop/thief", &text);
        let reload = Request::post("/reload", "")
            .header("Host", "localhost")
            .header(
                "Authorization",
                &format!("Bearer {}", secret("the admin token")),
            );
        let told = reload.send(daemon.admin).text();
        assert!(
            told.contains("shop/thief"),
            "{reference} is no problem: {told}"
        );
        let answer = Request::get("/").try_send(ports[1]);
        if let Ok(answer) = answer {
            assert_eq!(
                (answer.status, answer.cause().as_str()),
                (503, "config_invalid"),
                "{reference}"
            );
        }
    }
    assert_eq!(app.count(), 0, "a value reached the app");
    assert_nothing_told("the log", &daemon.output());
    assert!(
        !daemon.output().contains("1234567890abcdef"),
        "a file's content is in the log"
    );
}
