//! The app can call others while it comes to its own end.

use std::time::Duration;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::Setup;
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until};

#[test]
fn calls_go_on_until_the_app_is_gone() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let payments = App::start(scripts::ok);
    let ports = free_ports(2);
    let text = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  - \
         {{name: payments, address: \"127.0.0.1:{}\", localPort: {}, healthCheck: false}}\n",
        ports[0],
        app.port(),
        payments.port(),
        ports[1]
    );
    let tree = Tree::with(&[("shop/orders", &text)]);
    let mut daemon = Setup::new(&tree)
        .process("shutdown: {accept: 200ms, deadline: 20s}")
        .start();
    daemon.signal("TERM");
    wait_until("the public port is closed", SOON, || {
        Request::get("/").status(ports[0]).is_none()
    });
    holds_for("the app can still call", Duration::from_secs(1), || {
        Request::get("/").status(ports[1]) == Some(200)
    });
    drop(app);
    let (status, output) = daemon.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{output}");
}
