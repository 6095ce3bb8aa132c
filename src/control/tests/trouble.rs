//! What is bad stays out, alone.

use std::net::TcpListener;
use std::time::Duration;

use super::stage::{Setting, Stage, closed, free_ports, open};
use crate::control::StartError;
use crate::snapshot::{ServiceState, ServingState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_leaves_its_last_good_version() {
    let mut stage = Stage::set(Setting::default());
    let [cart, pay] = free_ports();
    stage.write("cart", &open(cart));
    stage.write("pay", &open(pay));
    stage.start().await.expect("starts");
    stage.write("cart", &format!("port: {cart}\nupstraem: 8080\n"));
    stage.until_state("cart", ServingState::Stale).await;
    let problems = &stage.service("cart").problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].origin.line, 2, "{problems:?}");
    assert_eq!(stage.service("pay").state, ServingState::Serving);
    assert_eq!((stage.generation(), stage.ports().len()), (1, 2));
    let stale = |service| format!("config_stale{{service=\"shop/{service}\"}}");
    assert_eq!(stage.metric(&stale("cart")), 1.0);
    assert_eq!(stage.metric(&stale("pay")), 0.0);
    assert_eq!(
        stage.metric("config_reloads_total{result=\"refused\"}"),
        1.0
    );
    // Another service's good change is one, whatever is wrong here.
    stage.write("pay", &closed(pay));
    stage.after(1).await;
    let applied = "config_reloads_total{result=\"applied\"}";
    assert_eq!(stage.metric(applied), 2.0);
    stage.write("cart", &open(cart));
    stage.until_state("cart", ServingState::Serving).await;
    assert_eq!(stage.metric(&stale("cart")), 0.0);
    assert_eq!(stage.generation(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_was_good_says_so_on_its_port() {
    let mut stage = Stage::set(Setting::default());
    let [cart, bad] = free_ports();
    stage.write("cart", &open(cart));
    stage.write("bad", &format!("port: {bad}\nnonsense: 1\n"));
    stage.start().await.expect("one is good");
    assert_eq!(stage.service("bad").state, ServingState::Invalid);
    let mut ports = [cart, bad];
    ports.sort_unstable();
    assert_eq!(stage.ports(), ports);
    let state = |stage: &Stage| {
        let snapshot = stage.current.load();
        matches!(
            snapshot.services[&super::stage::name("bad")].state,
            ServiceState::Invalid
        )
    };
    assert!(state(&stage));
    stage.write("bad", &open(bad));
    stage.until_state("bad", ServingState::Serving).await;
    assert!(!state(&stage));
    assert_eq!(stage.ports(), ports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_nothing_good_names_every_problem() {
    let mut stage = Stage::set(Setting::default());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    stage.write("cart", &open(port));
    stage.write("pay", "port: 3009\nnonsense: 1\n");
    let StartError::Problems(problems) = stage.start().await.expect_err("nothing is good");
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let text = texts.join("\n");
    assert!(
        text.contains(&format!("port {port} is in use (perhaps the app itself")),
        "{text}"
    );
    assert!(text.contains("nonsense"), "{text}");
    assert_eq!(stage.current.load().generation, 0);
    assert!(stage.ports().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_without_services_starts_and_waits() {
    let mut stage = Stage::set(Setting::default());
    stage.start().await.expect("starts");
    assert!(stage.served().is_empty());
    let [cart] = free_ports();
    stage.write("cart", &open(cart));
    stage.until_state("cart", ServingState::Serving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_tried_again() {
    let mut stage = Stage::set(Setting {
        poll: Duration::from_millis(100),
        ..Setting::default()
    });
    let [cart] = free_ports();
    stage.write("cart", &open(cart));
    stage.start().await.expect("starts");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    stage.write("cart", &open(port));
    stage.until_state("cart", ServingState::Stale).await;
    let problem = stage.service("cart").problems[0].clone();
    let app = u32::from(port) + 10_000;
    if app <= 65_535 {
        let hint = format!("start it with PORT={app}");
        assert!(problem.message.contains(&hint), "{problem:?}");
    }
    assert_eq!(
        (problem.origin.line, problem.origin.key.as_str()),
        (1, "port")
    );
    assert_eq!(stage.ports(), [cart]);
    drop(taken);
    stage.until_state("cart", ServingState::Serving).await;
    assert_eq!(stage.ports(), [port]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_services_on_one_port_the_changed_one_is_refused() {
    let mut stage = Stage::set(Setting::default());
    let [cart, pay] = free_ports();
    stage.write("cart", &open(cart));
    stage.write("pay", &open(pay));
    stage.start().await.expect("starts");
    stage.write("cart", &open(pay));
    stage.until_state("cart", ServingState::Stale).await;
    assert_eq!(stage.service("pay").state, ServingState::Serving);
    assert_eq!(stage.service("pay").problems, []);
    let mut ports = [cart, pay];
    ports.sort_unstable();
    assert_eq!(stage.ports(), ports);
    // The other one moves away: no need to touch the file again.
    let [elsewhere] = free_ports();
    stage.write("pay", &open(elsewhere));
    stage.until_state("cart", ServingState::Serving).await;
    let mut ports = [elsewhere, pay];
    ports.sort_unstable();
    assert_eq!(stage.ports(), ports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_opens_by_omission() {
    let mut stage = Stage::set(Setting::default());
    let [cart] = free_ports();
    stage.write("cart", &closed(cart));
    stage.start().await.expect("starts");
    for lost in [
        format!("port: {cart}\nupstream: 8080\n"),
        format!("port: {cart}\nupstream: 8080\nauth:\n  rules: []\n"),
    ] {
        stage.write("cart", &lost);
        stage.until_state("cart", ServingState::Stale).await;
        let status = stage.service("cart");
        let error = status.problems.iter().find(|problem| problem.error);
        let hint = error.and_then(|error| error.hint.as_deref());
        let hint = hint.unwrap_or_else(|| panic!("a hint in {status:#?}"));
        assert!(hint.contains("write `strategy: none`"), "{hint}");
        assert_eq!(stage.generation(), 1);
        stage.write("cart", &closed(cart));
        stage.until_state("cart", ServingState::Serving).await;
    }
    stage.write("cart", &open(cart));
    stage.after(1).await;
    assert_eq!(stage.service("cart").state, ServingState::Serving);
}
