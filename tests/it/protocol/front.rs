//! One service with a scripted app behind a running daemon.

use std::sync::RwLockReadGuard;

use crate::support::app::{App, Script};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::{free_port, free_ports};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// The service's key.
pub(super) const SERVICE: &str = "shop/users";

/// A daemon in front of something that listens.
pub(super) struct Front {
    pub(super) daemon: Daemon,
    /// The public port.
    pub(super) port: u16,
    pub(super) tree: Tree,
    _machine: RwLockReadGuard<'static, ()>,
}

impl Front {
    /// In front of a port of loopback. `upstream` and `limits` are the insides
    /// of those blocks.
    pub(super) fn of(app: u16, upstream: &str, limits: &str) -> Self {
        Self::with(&Self::yaml(app, upstream, limits, ""), "")
    }

    /// The service's file without its port.
    pub(super) fn yaml(app: u16, upstream: &str, limits: &str, more: &str) -> String {
        format!(
            "upstream: {{url: \"http://127.0.0.1:{app}\"{}{upstream}}}\nhealthCheck: false\nlimits: {{{limits}}}\n{more}\n",
            if upstream.is_empty() { "" } else { ", " },
        )
    }

    /// With a file of the test's own, and more process settings.
    pub(super) fn with(service: &str, process: &str) -> Self {
        let machine = shared_machine();
        let port = free_port();
        let tree = Tree::with(&[(SERVICE, &format!("port: {port}\n{service}"))]);
        let daemon = Setup::new(&tree)
            .process("log: {level: debug, format: json}\naccessLog: all")
            .process(process)
            .start();
        Self {
            daemon,
            port,
            tree,
            _machine: machine,
        }
    }

    /// With a bad file, beside a good one (all bad would be no start).
    pub(super) fn beside(service: &str) -> Self {
        let machine = shared_machine();
        let ports = free_ports(2);
        let (port, other) = (ports[0], ports[1]);
        let tree = Tree::with(&[
            (SERVICE, &format!("port: {port}\n{service}")),
            ("shop/good", &format!("port: {other}\nhealthCheck: false\n")),
        ]);
        let daemon = Setup::new(&tree)
            .process("log: {level: debug, format: json}")
            .start();
        Self {
            daemon,
            port,
            tree,
            _machine: machine,
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.port).expect("the public port accepts")
    }

    /// `outrigger_proxy_errors_total` of a cause.
    pub(super) fn errors(&self, cause: &str) -> f64 {
        let labels = [("service", SERVICE), ("cause", cause)];
        self.daemon
            .metrics()
            .count("outrigger_proxy_errors_total", &labels)
    }

    /// Requests counted with this status.
    pub(super) fn counted(&self, code: u16) -> f64 {
        let code = code.to_string();
        let labels = [("service", SERVICE), ("code", code.as_str())];
        self.daemon
            .metrics()
            .count("outrigger_http_requests_total", &labels)
    }

    pub(super) fn in_flight(&self) -> f64 {
        let labels = [("service", SERVICE)];
        self.daemon
            .metrics()
            .count("outrigger_http_requests_in_flight", &labels)
    }

    #[track_caller]
    pub(super) fn wait_for_errors(&self, cause: &str, at_least: f64) {
        wait_until(&format!("{at_least} {cause} counted"), SOON, || {
            self.errors(cause) >= at_least
        });
    }

    /// Nothing is left in flight: no request was forgotten.
    #[track_caller]
    pub(super) fn wait_for_rest(&self) {
        wait_until("nothing in flight", SOON, || self.in_flight() == 0.0);
    }
}

/// A scripted app and the daemon in front of it.
pub(super) fn front(script: impl Script) -> (App, Front) {
    limited(script, "", "")
}

/// The same, with insides of `upstream` and `limits`.
pub(super) fn limited(script: impl Script, upstream: &str, limits: &str) -> (App, Front) {
    let app = App::start(script);
    let front = Front::of(app.port(), upstream, limits);
    (app, front)
}
