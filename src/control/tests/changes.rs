//! Good changes come into force, and only they.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::stage::{Setting, Stage, closed, free_ports, gated_build, name, open};
use crate::control::LifecycleRequest;
use crate::model::LogLevel;
use crate::snapshot::{AdminCommand, ServingState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_binds_publishes_and_is_acknowledged() {
    let mut stage = Stage::set(Setting::default());
    let [cart, pay] = free_ports();
    stage.write("cart", &open(cart));
    stage.write("pay", &closed(pay));
    stage.start().await.expect("starts");
    assert_eq!(stage.generation(), 1);
    assert_eq!(stage.served(), ["cart", "pay"]);
    let mut ports = [cart, pay];
    ports.sort_unstable();
    assert_eq!(stage.ports(), ports);
    let status = stage.service("cart");
    assert_eq!(
        (status.state, status.port),
        (ServingState::Serving, Some(cart))
    );
    assert_eq!(status.address.map(|address| address.port()), Some(cart));
    assert_eq!(stage.metric("config_generation"), 1.0);
    assert_eq!(stage.metric("config_services_compiled_total"), 2.0);
    assert_eq!(stage.metric("config_services_built_total"), 2.0);
    assert_eq!(
        stage.metric("config_reloads_total{result=\"applied\"}"),
        1.0
    );
    assert_eq!(stage.metric("config_generations_alive"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_compiles_and_builds_one_service() {
    let mut stage = Stage::set(Setting::default());
    let [cart, pay, new] = free_ports();
    stage.write("cart", &open(cart));
    stage.write("pay", &open(pay));
    stage.start().await.expect("starts");
    let before = stage.current.load();
    let listeners = stage.ports();
    stage.write("cart", &closed(cart));
    stage.after(1).await;
    let after = stage.current.load();
    let same = |service: &str| {
        Arc::ptr_eq(
            &before.services[&name(service)],
            &after.services[&name(service)],
        )
    };
    assert!(same("pay") && !same("cart"));
    assert_eq!(
        before.services[&name("cart")].slot,
        after.services[&name("cart")].slot
    );
    assert_eq!(stage.ports(), listeners);
    assert_eq!(stage.metric("config_services_compiled_total"), 3.0);
    assert_eq!(stage.metric("config_services_built_total"), 3.0);
    // Another upstream needs another pool in the same place.
    stage.write("cart", &closed(cart).replace("8080", "8081"));
    stage.after(2).await;
    let renewed = stage.current.load().services[&name("cart")].slot;
    let slot = after.services[&name("cart")].slot;
    assert_eq!((renewed.index, renewed.epoch), (slot.index, slot.epoch + 1));
    // mkdir -p and write.
    stage.write("new", &open(new));
    stage.until_state("new", ServingState::Serving).await;
    assert_eq!(stage.ports().len(), 3);
    // A comment changes nothing that is in force.
    let generation = stage.generation();
    let hash = stage.status.load().hash.clone();
    stage.write("new", &format!("# said\n{}", open(new)));
    stage
        .until("another hash", |status| status.hash != hash)
        .await;
    assert_eq!(stage.generation(), generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_move_and_are_swapped() {
    let mut stage = Stage::set(Setting::default());
    let [first, second, third] = free_ports();
    stage.write("cart", &open(first));
    stage.write("pay", &open(second));
    stage.start().await.expect("starts");
    stage.write("cart", &open(third));
    stage.after(1).await;
    let mut ports = [second, third];
    ports.sort_unstable();
    assert_eq!(stage.ports(), ports);
    // Both files in one quiet window.
    let generation = stage.generation();
    stage.write("cart", &open(second));
    stage.write("pay", &open(third));
    stage
        .until("both moved", |status| {
            let port = |service: &str| {
                let status = &status.services[&name(service)];
                (status.state == ServingState::Serving)
                    .then_some(status.port)
                    .flatten()
            };
            port("cart") == Some(second) && port("pay") == Some(third)
        })
        .await;
    assert_eq!(stage.generation(), generation + 1);
    assert_eq!(stage.ports(), ports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_hangs_delays_no_other() {
    let (build, gate) = gated_build();
    let mut stage = Stage::set(Setting {
        build: Some(build),
        ..Setting::default()
    });
    let [cart, hung] = free_ports();
    stage.write("cart", &open(cart));
    stage.start().await.expect("starts");
    stage.write("hung", &open(hung));
    stage.until_state("hung", ServingState::Preparing).await;
    for round in 0..3_u32 {
        let generation = stage.generation();
        let begun = Instant::now();
        let text = format!("{}version: \"{round}\"\n", open(cart));
        stage.write("cart", &text);
        stage.after(generation).await;
        let took = begun.elapsed();
        println!("beside a hanging build: {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    assert_eq!(stage.served(), ["cart"]);
    // Edited again and again while it hangs.
    for round in 0..5 {
        let text = format!("{}version: \"{round}\"\n", open(hung));
        stage.write("hung", &text);
        stage.reload(false).await;
    }
    gate.store(true, Ordering::Relaxed);
    stage.until_state("hung", ServingState::Serving).await;
    assert_eq!(stage.served(), ["cart", "hung"]);
    let snapshot = stage.current.load();
    let hung = snapshot.services[&name("hung")].as_ready().expect("good");
    assert_eq!(hung.spec.version.as_deref(), Some("4"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_is_in_force_once_every_worker_says_so() {
    let mut stage = Stage::set(Setting::default());
    let [cart] = free_ports();
    stage.write("cart", &open(cart));
    stage.start().await.expect("starts");
    stage.silent.store(true, Ordering::Relaxed);
    stage.write("cart", &closed(cart));
    let published = async {
        while stage.current.load().generation < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::stage::SOON, published)
        .await
        .expect("published");
    assert_eq!(stage.generation(), 1);
    stage.silent.store(false, Ordering::Relaxed);
    stage.after(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_on_request_leave_nothing_behind() {
    let mut stage = Stage::set(Setting::default());
    let [cart] = free_ports();
    stage.write("cart", &open(cart));
    stage.start().await.expect("starts");
    for round in 0..10 {
        stage.write("cart", &format!("{}version: \"{round}\"\n", open(cart)));
        let outcome = stage.reload(false).await;
        assert!(
            outcome.problems.is_empty() && outcome.leaving.is_empty(),
            "{outcome:?}"
        );
        assert_eq!(outcome.generation, round + 2);
        assert!(stage.metric("config_generations_alive") <= 3.0);
    }
    let outcome = stage.reload(false).await;
    assert!(!outcome.changed);
    assert_eq!(outcome.generation, 11);
    stage.command(AdminCommand::Drain).await;
    assert_eq!(stage.lifecycle.recv().await, Some(LifecycleRequest::Drain));
    stage.command(AdminCommand::Quit).await;
    assert_eq!(stage.lifecycle.recv().await, Some(LifecycleRequest::Quit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_process_follow_their_file() {
    let mut stage = Stage::set(Setting {
        process_file: Some("log: {level: info}\n"),
        ..Setting::default()
    });
    let [cart, other] = free_ports();
    stage.write("cart", &open(cart));
    stage.start().await.expect("starts");
    let file = stage.folder.path().join("outrigger.yaml");
    let admin = stage.current.load().settings.admin.listen;
    let text = format!("log: {{level: debug}}\nadmin: {{listen: 127.0.0.1:{other}}}\n");
    fs::write(&file, text).expect("write");
    stage.after(1).await;
    let settings = Arc::clone(&stage.current.load().settings);
    assert_eq!(settings.log_level, LogLevel::Debug);
    assert_eq!(settings.admin.listen, admin);
    assert_eq!(stage.status.load().restart_needed, ["admin.listen"]);
    // A bad file changes nothing and is said.
    fs::write(&file, "log: {level: lots}\n").expect("write");
    stage
        .until("a problem", |status| {
            status.problems.iter().any(|problem| problem.error)
        })
        .await;
    assert_eq!(stage.current.load().settings.log_level, LogLevel::Debug);
    assert_eq!(stage.service("cart").state, ServingState::Serving);
}

/// A figure, printed: from the rename to the acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_among_a_thousand_services_is_quick() {
    let mut stage = Stage::set(Setting {
        local: "shop/cart",
        ..Setting::default()
    });
    let [cart] = free_ports();
    stage.write("cart", &open(cart));
    for index in 0..1000 {
        // Peers: only one is fronted here.
        let folder = stage.path(&format!("d{}/s{index}", index % 10));
        fs::create_dir_all(&folder).expect("folder");
        let text = format!("port: {}\n", 10_000 + index);
        fs::write(folder.join("service.config.yaml"), text).expect("write");
    }
    stage.start().await.expect("starts");
    let compiled = stage.metric("config_services_compiled_total");
    let mut took = Vec::new();
    for round in 0..20 {
        let generation = stage.generation();
        let begun = Instant::now();
        stage.write("cart", &format!("{}version: \"{round}\"\n", open(cart)));
        stage.after(generation).await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!(
        "1 000 services, rename to in force: median {:?}, worst {:?}",
        took[10], took[19]
    );
    assert_eq!(
        stage.metric("config_services_compiled_total"),
        compiled + 20.0
    );
    assert_eq!(stage.metric("config_services_built_total"), 21.0);
    assert!(took[10] < Duration::from_secs(1), "{took:?}");
}
