//! Apps that pass trace headers on, and sidecars in front of them.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::app::{App, Connection, Next, Received, Script};
use super::client::{Client, Request, Response};
use super::daemon::{Daemon, Setup};
use super::ports::{free_port, free_ports};
use super::scripts;
use super::tree::Tree;

/// What an app copies that knows only the W3C's headers.
pub(crate) const W3C: &[&str] = &["traceparent", "tracestate"];
/// What an app copies that knows the sidecar.
pub(crate) const ALL: &[&str] = &[
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-trace-id",
    "x-trace-depth",
    "x-parent-service-id",
];

/// An app that calls a local port with the headers it copies, and answers what
/// it was answered.
pub(crate) fn relay(next: u16, copied: &'static [&'static str]) -> impl Script {
    let idle: Mutex<Vec<Client>> = Mutex::default();
    move |request: &Received, stream: &mut Connection| -> io::Result<Next> {
        let mut call = Request::get(&request.target);
        for name in copied {
            for value in request.head.all(name) {
                call = call.header(name, value);
            }
        }
        let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = match kept {
            Some(client) => client,
            None => Client::connect(next)?,
        };
        let Ok(answer) = client.exchange(&call) else {
            return Ok(Next::Close);
        };
        stream.respond(answer.status, "", &answer.body)?;
        if !answer.closes() {
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(client);
        }
        Ok(Next::KeepAlive)
    }
}

/// A sidecar before an app that calls another app, which has none: `front` sees
/// what goes in, `back` what goes out.
pub(crate) struct Pair {
    pub(crate) daemon: Daemon,
    pub(crate) front: App,
    pub(crate) back: App,
    pub(crate) port: u16,
    /// Where `front` calls `back`.
    pub(crate) local: u16,
    _tree: Tree,
}

/// One request on its way through a [`Pair`].
pub(crate) struct Passed {
    pub(crate) response: Response,
    pub(crate) front: Received,
    pub(crate) back: Received,
}

impl Pair {
    /// With this `tracing` block (a flow mapping) and lines of the process
    /// settings.
    pub(crate) fn start(tracing: &str, copied: &'static [&'static str], process: &str) -> Self {
        let ports = free_ports(2);
        let (port, local) = (ports[0], ports[1]);
        let front = App::start(relay(local, copied));
        let back = App::start(scripts::echo);
        let text = format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth: none\ntracing: {tracing}\n\
             dependencies:\n  - {{name: back, address: \"http://127.0.0.1:{}\", localPort: {local}, \
             healthCheck: false}}\n",
            front.port(),
            back.port()
        );
        let tree = Tree::with(&[("shop/front", &text)]);
        let daemon = Setup::new(&tree)
            .process("workers: 2")
            .process(process)
            .start();
        Self {
            daemon,
            front,
            back,
            port,
            local,
            _tree: tree,
        }
    }

    /// A request with these header lines.
    #[track_caller]
    pub(crate) fn send(&self, lines: &[(&str, &str)]) -> Passed {
        let mut request = Request::get("/cart/7?token=secret");
        for (name, value) in lines {
            request = request.header(name, value);
        }
        let response = request.send(self.port);
        assert_eq!(response.status, 200, "{}", response.text());
        Passed {
            response,
            front: self.front.last(),
            back: self.back.last(),
        }
    }
}

/// Three services of one tree, `shop/users` → `shop/orders` → `shop/payments`,
/// each behind its sidecar; the first two call the next one.
pub(crate) struct Chain {
    pub(crate) daemon: Daemon,
    /// Of users.
    pub(crate) port: u16,
    pub(crate) apps: Vec<App>,
    _tree: Tree,
}

impl Chain {
    /// With apps that copy these headers; `process` are lines of the process
    /// settings.
    pub(crate) fn start(copied: &'static [&'static str], process: &str) -> Self {
        let (ports, locals) = (free_ports(3), free_ports(2));
        let names = ["users", "orders", "payments"];
        let tree = Tree::new();
        let mut apps = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let app = match locals.get(index) {
                Some(next) => App::start(relay(*next, copied)),
                None => App::start(scripts::echo),
            };
            let mut text = format!(
                "version: 1.2.{index}\nport: {}\nupstream: {}\nhealthCheck: false\nauth: none\n\
                 tracing: true\n",
                ports[index],
                app.port()
            );
            if let (Some(next), Some(local)) = (names.get(index + 1), locals.get(index)) {
                text.push_str(&format!(
                    "dependencies: [{{name: {next}, localPort: {local}}}]\n"
                ));
            }
            tree.write(&format!("shop/{name}"), text);
            apps.push(app);
        }
        let daemon = Setup::new(&tree).process(process).start();
        Self {
            daemon,
            port: ports[0],
            apps,
            _tree: tree,
        }
    }
}

/// A service with an app and no dependencies; `lines` go into its file.
pub(crate) fn single(app: &App, lines: &str, process: &str) -> (Tree, Daemon, u16) {
    let port = free_port();
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\n{lines}",
        app.port()
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree)
        .process("workers: 2")
        .process(process)
        .start();
    (tree, daemon, port)
}
