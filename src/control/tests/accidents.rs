//! Nothing closes by accident.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::stage::{Setting, Stage, free_ports, open};
use crate::snapshot::ServingState;

async fn three_services(poll: Duration) -> Stage {
    let mut stage = Stage::set(Setting {
        poll,
        ..Setting::default()
    });
    let ports: [u16; 3] = free_ports();
    for (service, port) in ["cart", "pay", "users"].iter().zip(ports) {
        stage.write(service, &open(port));
    }
    stage.start().await.expect("starts");
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_gone_is_removed_after_two_looks() {
    let stage = three_services(Duration::from_secs(60)).await;
    fs::remove_dir_all(stage.path("shop/cart")).expect("remove");
    stage.until_state("cart", ServingState::Leaving).await;
    assert_eq!(stage.ports().len(), 3);
    let outcome = stage.reload(false).await;
    assert_eq!(outcome.leaving, ["shop/cart"]);
    stage
        .until("two services", |status| status.services.len() == 2)
        .await;
    assert_eq!(stage.served(), ["pay", "users"]);
    assert_eq!(stage.ports().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_away_closes_nothing() {
    let stage = three_services(Duration::from_millis(100)).await;
    let (root, away) = (stage.path(""), stage.folder.path().join("away"));
    fs::rename(root.as_path(), &away).expect("away");
    stage
        .until("a problem", |status| {
            status.problems.iter().any(|problem| problem.error)
        })
        .await;
    // Whatever the operator says: it is not known what is there.
    let outcome = stage.reload(true).await;
    assert_eq!(outcome.generation, 1);
    assert_eq!(stage.ports().len(), 3);
    fs::rename(&away, root.as_path()).expect("back");
    stage
        .until("no problem", |status| status.problems.is_empty())
        .await;
    assert_eq!((stage.generation(), stage.ports().len()), (1, 3));
    let [port] = free_ports();
    stage.write("cart", &open(port));
    stage.after(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_at_once_need_a_word() {
    let stage = three_services(Duration::from_secs(60)).await;
    for service in ["cart", "pay"] {
        fs::remove_dir_all(stage.path("shop").join(service)).expect("remove");
    }
    stage.until_state("pay", ServingState::Leaving).await;
    let outcome = stage.reload(false).await;
    assert_eq!(outcome.leaving, ["shop/cart", "shop/pay"]);
    assert_eq!(stage.ports().len(), 3);
    let outcome = stage.reload(true).await;
    assert!(outcome.leaving.is_empty() && outcome.changed);
    assert_eq!(stage.served(), ["users"]);
    assert_eq!(stage.ports().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_by_a_fifo_or_a_loop_keeps_its_version() {
    let stage = three_services(Duration::from_secs(60)).await;
    let cart = stage.path("shop/cart/service.config.yaml");
    fs::remove_file(&cart).expect("remove");
    let made = std::process::Command::new("mkfifo").arg(&cart).status();
    assert!(made.expect("mkfifo runs").success());
    let pay = stage.path("shop/pay/service.config.yaml");
    fs::remove_file(&pay).expect("remove");
    symlink("service.config.yaml", &pay).expect("link");
    stage.until_state("cart", ServingState::Stale).await;
    stage.until_state("pay", ServingState::Stale).await;
    assert_eq!(stage.service("users").state, ServingState::Serving);
    assert_eq!((stage.generation(), stage.ports().len()), (1, 3));
    let problem = &stage.service("cart").problems[0];
    assert!(problem.message.contains("FIFO"), "{problem:?}");
}
