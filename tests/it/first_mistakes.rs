//! What somebody does wrong in the first hour, and what is said about it: what
//! is wrong, where, and what to do.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Setup, run_to_end};
use crate::support::files::open;
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

#[test]
fn a_tree_without_a_service_says_what_one_looks_like() {
    let tree = Tree::new();
    let check = || run_to_end(tree.root(), &["check"], &[]);
    let (code, text) = check();
    assert!(code == 0 && text.contains("no service found"), "{text}");
    assert!(
        text.contains("<domain>/<service>/service.config.yaml"),
        "{text}"
    );
    let text = "port: 3001\nauth: none\n";
    for stray in [
        "cart.yaml",
        "shop/cart/config.yaml",
        "shop/cart/service.yaml",
    ] {
        let path = tree.put(&format!("services/{stray}"), text);
        let (_, told) = check();
        assert!(
            told.contains(&format!("`{stray}` is none of them")),
            "{told}"
        );
        fs::remove_file(path).unwrap();
    }
    // What is said already is not guessed at.
    fs::remove_dir_all(tree.services()).unwrap();
    let (code, text) = check();
    assert!(code == 64 && text.contains("does not exist"), "{text}");
    assert!(!text.contains("<domain>"), "{text}");
}

#[test]
fn the_daemon_names_the_folder_that_holds_nothing() {
    let _machine = shared_machine();
    let tree = Tree::new();
    let daemon = Setup::new(&tree).start();
    let folder = tree.services().display().to_string();
    daemon.wait_for_line(&["no service found", &folder, "<domain>/<service>"]);
}

#[test]
fn a_door_that_is_taken_is_told_with_a_cure() {
    let _machine = shared_machine();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let tree = Tree::with(&[("shop/cart", "port: 3001\nauth: none\n")]);
    let run = |listen: &str| {
        let text = format!("observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '{listen}'}}\n");
        tree.put("config/outrigger.yaml", text);
        run_to_end(
            tree.root(),
            &["run"],
            &[("OUTRIGGER_ADMIN_TOKEN", "0123456789abcdef")],
        )
    };
    for (listen, cure) in [
        (format!("127.0.0.1:{port}"), "another process has it"),
        ("203.0.113.9:9900".to_owned(), "no such address"),
    ] {
        let (code, text) = run(&listen);
        assert_eq!(code, 64, "{text}");
        for part in ["admin.listen", "OUTRIGGER_ADMIN_LISTEN", cure, &listen] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let (code, text) = run_to_end(
        tree.root(),
        &["health"],
        &[
            ("OUTRIGGER_OBSERVE_LISTEN", "127.0.0.1:1"),
            ("OUTRIGGER_ADMIN_LISTEN", "off"),
        ],
    );
    assert_eq!(code, 69, "{text}");
    assert!(
        text.contains("http://127.0.0.1:1/readyz") && text.contains("hint:"),
        "{text}"
    );
}

#[test]
fn two_services_on_one_port_are_told_once_each() {
    let _machine = shared_machine();
    let tree = Tree::with(&[
        ("shop/cart", "port: 3001\nauth: none\n"),
        ("shop/pay", "port: 3001\nauth: none\n"),
    ]);
    tree.put(
        "config/outrigger.yaml",
        "observe: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n",
    );
    let (code, text) = run_to_end(tree.root(), &["run"], &[]);
    let errors = text.lines().filter(|line| line.starts_with("error"));
    assert_eq!((code, errors.count()), (64, 2), "{text}");
}

#[test]
fn a_name_that_nobody_has_is_told_with_those_there_are() {
    let tree = Tree::with(&[("shop/cart", "port: 3001\nauth: none\n")]);
    for command in [&["token", "mint", "crat"][..], &["explain", "crat"]] {
        let (code, text) = run_to_end(tree.root(), command, &[]);
        assert!(
            code == 64 && text.contains("shop/cart"),
            "{command:?}: {text}"
        );
    }
}

#[test]
fn what_goes_wrong_outside_is_in_the_log() {
    let _machine = shared_machine();
    let ports = free_ports(4);
    let app = App::start(scripts::ok);
    let mut text = open(ports[0], app.port(), 1);
    text.push_str(&format!(
        "dependencies: [{{name: pay, address: '127.0.0.1:{}', localPort: {}}}]\n",
        ports[1], ports[2]
    ));
    let tree = Tree::with(&[("shop/cart", &text)]);
    let door = ports[3];
    let daemon = Setup::new(&tree)
        .env("OUTRIGGER_OUTBOUND_LISTEN", &format!("127.0.0.1:{door}"))
        .start();
    // A dependency that is not up, with its address.
    let address = format!("127.0.0.1:{}", ports[1]);
    daemon.wait_for_line(&["is down", "\"what\":\"pay\"", &address]);
    // A name that is not declared.
    let call = Request::get("/").header("Host", "payy");
    assert_eq!(call.send(door).status, 404);
    daemon.wait_for_line(&["unknown_service", "declares a dependency of this name"]);
    // TLS to a port without.
    let mut client = Client::connect(ports[0]).unwrap();
    client
        .send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .unwrap();
    let line = daemon.wait_for_line(&["refused by the parser"]);
    assert!(
        line.contains("INFO") && line.contains("shop/cart"),
        "{line}"
    );
}

#[test]
fn a_hook_that_does_not_answer_is_named() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(2));
    let text = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\n\
         auth: {{hook: {{url: 'http://127.0.0.1:{}/decide?secret=x'}}}}\n",
        ports[0],
        app.port(),
        ports[1]
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree).start();
    let get = || Request::get("/").status(ports[0]);
    for _ in 0..5 {
        assert_eq!(get(), Some(503));
    }
    let address = format!("127.0.0.1:{}", ports[1]);
    daemon.wait_for_line(&["the hook does not decide", &address, "refused"]);
    let lines = daemon.output().matches("the hook does not decide").count();
    assert_eq!((lines, daemon.output().matches("secret=x").count()), (1, 0));
    let _hook = App::start_on(ports[1], scripts::ok);
    // Not told again before a second is over.
    wait_until("it decides again, and that is told", SOON, || {
        get() == Some(200) && daemon.output().contains("the hook decides again")
    });
}
