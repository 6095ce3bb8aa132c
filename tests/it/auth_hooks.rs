//! Hooks through the public port: a login from the first page to the last, and
//! hooks that fail.

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

fn start(app: &App, port: u16, auth: &str) -> (Tree, Daemon) {
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n{auth}",
        app.port()
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree).process("workers: 2").start();
    (tree, daemon)
}

/// oauth2-proxy, as far as a browser and nginx see it.
fn login_server(request: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    let path = request.target.split('?').next().unwrap_or_default();
    let cookie = request.header("cookie").unwrap_or_default();
    let (status, headers, body) = match path {
        "/oauth2/auth" if cookie == "_session=ann" => {
            (202, "X-Auth-Request-User: ann\r\n".to_owned(), "")
        }
        "/oauth2/auth" => (401, String::new(), "Unauthorized"),
        "/oauth2/sign_in" => (200, String::new(), "<form>who are you?</form>"),
        "/oauth2/callback" => (
            302,
            "Set-Cookie: _session=ann; HttpOnly\r\nLocation: /page?a=b\r\n".to_owned(),
            "",
        ),
        _ => (404, String::new(), ""),
    };
    stream.respond(status, &headers, body.as_bytes())?;
    Ok(Next::KeepAlive)
}

#[test]
fn a_browser_logs_in() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let login = App::start(login_server);
    let port = free_port();
    let auth = format!(
        "  appToken: {{header: X-App, value: sekret-of-the-app}}\n  \
         hook:\n    url: http://127.0.0.1:{0}/oauth2/auth\n    preset: nginx\n    \
         responseHeaders: [X-Auth-Request-User]\n    signIn: /oauth2/sign_in\n  rules:\n    \
         - {{paths: [\"/oauth2/**\"], strategy: none, upstream: \"127.0.0.1:{0}\"}}\n",
        login.port()
    );
    let (_tree, _daemon) = start(&app, port, &auth);
    let page = || Request::get("/page?a=b").header("Accept", "text/html");

    let first = page().header("X-Auth-Request-User", "root").send(port);
    assert_eq!(first.status, 302);
    let location = first.header("location").unwrap().to_owned();
    assert_eq!(location, "/oauth2/sign_in?rd=%2Fpage%3Fa%3Db");
    let asked = login.last();
    assert_eq!(asked.header("x-original-uri"), Some("/page?a=b"));
    assert_eq!(asked.header("x-auth-request-user"), None);

    let form = Request::get(&location)
        .header("X-Auth-Request-User", "root")
        .send(port);
    assert_eq!(
        (form.status, form.text().as_str()),
        (200, "<form>who are you?</form>")
    );
    assert_eq!(login.last().header("x-auth-request-user"), None);
    // The app's token is not for who else answers.
    assert_eq!(login.last().header("x-app"), None);

    let back = Request::get("/oauth2/callback?code=1").send(port);
    assert_eq!(
        (back.status, back.header("location")),
        (302, Some("/page?a=b"))
    );
    let cookie = back
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();

    assert_eq!(app.count(), 0, "the app was left alone so far");
    let signed_in = page()
        .header("Cookie", &cookie)
        .header("X-Auth-Request-User", "root")
        .send(port);
    assert_eq!(signed_in.status, 200);
    let received = app.last();
    assert_eq!(received.target, "/page?a=b");
    assert_eq!(received.header("x-auth-request-user"), Some("ann"));
    assert_eq!(received.header("x-auth-subject"), Some("ann"));
    assert_eq!(received.header("x-auth-strategy"), Some("custom"));
    assert_eq!(received.header("x-app"), Some("sekret-of-the-app"));

    let script = Request::get("/page")
        .header("Accept", "application/json")
        .send(port);
    assert_eq!(
        (script.status, script.text().as_str()),
        (401, "Unauthorized")
    );
}

#[test]
fn a_failing_hook_is_closed_or_open_as_told() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let gone = free_port();
    for (line, status) in [("", 503), ("    failOpen: true\n", 200)] {
        let port = free_port();
        let auth = format!(
            "  hook:\n    url: http://127.0.0.1:{gone}/\n    responseHeaders: [Remote-User]\n{line}"
        );
        let (_tree, daemon) = start(&app, port, &auth);
        let response = Request::get("/")
            .header("Remote-User", "root")
            .header("X-Auth-Failed-Open", "maybe")
            .send(port);
        assert_eq!(response.status, status, "{}", response.text());
        if status == 503 {
            assert_eq!(response.cause(), "auth_unavailable");
            assert_eq!(app.count(), 0);
        } else {
            let received = app.last();
            assert_eq!(received.header("x-auth-failed-open"), Some("true"));
            assert_eq!(received.header("remote-user"), None);
            assert_eq!(received.header("x-auth-strategy"), None);
        }
        let metrics = daemon.metrics();
        let reason = if status == 503 {
            "hook_unreachable"
        } else {
            "failed_open"
        };
        let labels = [("strategy", "custom"), ("reason", reason)];
        assert_eq!(
            metrics.count("outrigger_auth_decisions_total", &labels),
            1.0
        );
    }
}

#[test]
fn hooks_are_asked_over_kept_connections() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let hook = App::start(scripts::ok);
    let port = free_port();
    let auth = format!(
        "  hook: {{url: \"http://127.0.0.1:{}/check\"}}\n",
        hook.port()
    );
    let (_tree, _daemon) = start(&app, port, &auth);
    let mut client = crate::support::client::Client::connect(port).unwrap();
    for _ in 0..50 {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    assert_eq!(hook.count(), 50);
    assert_eq!(hook.connections(), 1);
    let asked = hook.last();
    assert_eq!(asked.method, "GET");
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(hook.faults().is_empty(), "{:?}", hook.faults());
}

/// Behind a proxy that ends TLS, the hook is told what the client asked for,
/// not what the proxy did; and a credential that the hook saw can be hidden.
#[test]
fn a_trusted_proxy_speaks_for_the_client() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let hook = App::start(scripts::ok);
    let port = free_port();
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  hideCredentials: true\n  \
         hook: {{url: \"http://127.0.0.1:{}/\"}}\n",
        app.port(),
        hook.port()
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let _daemon = Setup::new(&tree)
        .process("trustedProxies: [loopback]")
        .start();
    for (proto, host, told) in [
        ("https", "shop.example", ("https", "shop.example")),
        ("gopher", "shop.example/..", ("http", "inner")),
    ] {
        let response = Request::get("/page")
            .header("Host", "inner")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Proto", proto)
            .header("X-Forwarded-Host", host)
            .header("X-Api-Key", "kk")
            .header("Authorization", "Basic eDp5")
            .send(port);
        assert_eq!(response.status, 200, "{}", response.text());
        let asked = hook.last();
        assert_eq!(asked.header("x-forwarded-proto"), Some(told.0));
        assert_eq!(asked.header("x-forwarded-host"), Some(told.1));
        assert_eq!(asked.header("x-api-key"), Some("kk"));
        let received = app.last();
        assert_eq!(received.header("x-api-key"), None);
        assert_eq!(received.header("authorization"), None);
    }
}

/// A preflight passes without credentials, but not as a way to a tunnel.
#[test]
fn a_preflight_opens_no_tunnel() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let port = free_port();
    let auth = "  apiKey: {keys: [{id: web, key: 0123456789abcdef01234567}]}\n";
    let (_tree, _daemon) = start(&app, port, auth);
    let preflight = Request::new("OPTIONS", "/ws")
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "GET");
    assert_eq!(preflight.send(port).status, 200);
    let count = app.count();
    let tunnel = preflight
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .send(port);
    assert_eq!(tunnel.status, 401, "{}", tunnel.text());
    assert_eq!(app.count(), count);
}
