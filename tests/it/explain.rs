//! `POST /explain` of what a request cannot say in its headers.

use std::fs;

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::daemon::Setup;
use crate::support::files::open;
use crate::support::pki::Authority;
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// A certificate comes with the connection: it is named instead.
#[test]
fn explain_is_told_of_a_certificate() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let ports = free_ports(2);
    let tree = Tree::new();
    let authority = Authority::new("shop");
    let folder = tree.folder("shop/cart");
    fs::create_dir_all(&folder).unwrap();
    authority.server().write(&folder, "server");
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let text = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth:\n  strategy: mtls\n  \
         mtls: {{allow: ['dns:orders.shop']}}\n\
         tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, clientCert: optional}}\n",
        ports[0],
        app.port()
    );
    tree.write("shop/cart", text);
    tree.write("shop/open", open(ports[1], app.port(), 1));
    let daemon = Setup::new(&tree).start();
    let ask = |question: Value| daemon.admin_post("/explain", &question.to_string()).json();
    let told = ask(json!({"service": "cart", "path": "/"}));
    assert_eq!(told["auth"]["decision"], "denied", "{told}");
    assert!(
        told["note"]
            .to_string()
            .contains("no client certificate is assumed")
    );
    for (names, decision) in [
        (json!("dns:orders.shop"), "allowed"),
        (json!(["spiffe://shop/x", "dns:Orders.Shop"]), "allowed"),
        (json!("dns:other.shop"), "denied"),
        (json!([]), "denied"),
    ] {
        let told = ask(json!({"service": "cart", "path": "/", "certificate": names}));
        assert_eq!(told["auth"]["decision"], decision, "{names}: {told}");
        assert_eq!(told.get("note"), None, "{told}");
    }
    let told = ask(json!({"service": "cart", "path": "/", "certificate": "dns:orders.shop"}));
    assert_eq!(told["auth"]["subject"], "orders.shop", "{told}");
    // Where none is asked for none counts.
    let told = ask(json!({"service": "open", "path": "/", "certificate": "dns:orders.shop"}));
    assert!(told["note"].to_string().contains("tls.clientCa"), "{told}");
    assert_eq!(app.count(), 0);
}
