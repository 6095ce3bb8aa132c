use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::health::{CheckState, Moment};
use crate::telemetry::metrics::{HealthKind, Metrics};
use crate::telemetry::readiness::Liveness;
use crate::upstream::traffic::Traffic;

/// A target that is as the test says.
#[derive(Default)]
struct Scripted {
    up: AtomicBool,
    hangs: AtomicBool,
    asked: AtomicUsize,
    traffic: Traffic,
}

/// A kind of target of its own.
struct Asked(Arc<Scripted>);

impl Question for Asked {
    fn ask(&self) -> Asking<'_> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            if self.0.hangs.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
            match self.0.up.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(ProbeError::Other("no connection".into())),
            }
        })
    }

    fn address(&self) -> String {
        "nowhere".to_owned()
    }

    fn traffic(&self) -> Option<&Traffic> {
        Some(&self.0.traffic)
    }
}

struct Case {
    scripted: Arc<Scripted>,
    cell: Arc<CheckCell>,
    metrics: Metrics,
    supervisor: Supervisor,
    timing: ProbeSpec,
}

const MILLISECOND: Duration = Duration::from_millis(1);

impl Case {
    fn new(interval: Duration) -> Self {
        let metrics = Metrics::new(1);
        let liveness = Liveness::new(Duration::from_secs(60), std::time::Instant::now());
        Self {
            scripted: Arc::new(Scripted {
                up: AtomicBool::new(true),
                ..Scripted::default()
            }),
            cell: Arc::new(CheckCell::new(interval, std::time::Instant::now())),
            supervisor: Supervisor::new(metrics.clone(), liveness),
            metrics,
            timing: ProbeSpec {
                interval,
                timeout: Duration::from_secs(1),
                unhealthy_threshold: 3,
                healthy_threshold: 2,
            },
        }
    }

    fn start(&self) -> AbortOnDropHandle<()> {
        let target = Target {
            service: Arc::from("shop/orders"),
            what: Arc::from("database"),
            question: Box::new(Asked(Arc::clone(&self.scripted))),
            timing: self.timing.clone(),
            cell: Arc::clone(&self.cell),
            gauge: self.metrics.health("shop/orders", HealthKind::Database),
        };
        start(target, self.supervisor.clone())
    }

    fn state(&self) -> CheckState {
        self.cell.state(Moment::now().instant)
    }

    async fn becomes(&self, state: CheckState) {
        let wait = async {
            while self.state() != state {
                tokio::time::sleep(MILLISECOND).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(ended.is_ok(), "never {state:?}, but {:?}", self.state());
    }

    fn asked(&self) -> usize {
        self.scripted.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn any_kind_of_target_is_looked_after() {
    let case = Case::new(20 * MILLISECOND);
    let monitor = case.start();
    case.becomes(CheckState::Up).await;
    case.scripted.up.store(false, Ordering::Relaxed);
    case.becomes(CheckState::Down).await;
    let line = "outrigger_health_status{target=\"shop/orders\",kind=\"database\"} 0";
    assert!(case.metrics.encode().contains(line));
    case.scripted.up.store(true, Ordering::Relaxed);
    case.becomes(CheckState::Up).await;
    // One that hangs is down by its timeout, and stale once nobody looks.
    case.scripted.hangs.store(true, Ordering::Relaxed);
    case.becomes(CheckState::Down).await;
    drop(monitor);
    case.becomes(CheckState::Stale).await;
}

#[tokio::test]
async fn a_request_that_fails_brings_the_next_look_on() {
    let case = Case::new(Duration::from_secs(3600));
    let _monitor = case.start();
    case.becomes(CheckState::Up).await;
    assert_eq!(case.asked(), 1);
    case.scripted.up.store(false, Ordering::Relaxed);
    case.scripted.traffic.failed();
    let began = Instant::now();
    case.becomes(CheckState::Down).await;
    // After a second and another two; a failing request saved one of them.
    case.scripted.traffic.failed();
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!((3..=4).contains(&case.asked()), "{}", case.asked());
}

#[tokio::test]
async fn requests_that_fail_where_looks_do_not_turn_nothing() {
    let mut case = Case::new(Duration::from_secs(3600));
    case.timing.unhealthy_threshold = 1;
    let _monitor = case.start();
    case.becomes(CheckState::Up).await;
    case.scripted.traffic.failed();
    while case.asked() < 2 {
        assert_eq!(case.state(), CheckState::Up);
        tokio::time::sleep(MILLISECOND).await;
    }
    tokio::task::yield_now().await;
    assert_eq!(case.state(), CheckState::Up);
}

#[tokio::test]
async fn another_monitor_goes_on_from_what_was_found() {
    let case = Case::new(Duration::from_secs(3600));
    case.cell
        .record(false, MILLISECOND, std::time::Instant::now());
    let _monitor = case.start();
    while case.asked() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(case.state(), CheckState::Down, "one good result is too few");
    case.becomes(CheckState::Up).await;
    assert_eq!(case.asked(), 2);
}
