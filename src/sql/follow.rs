//! Looks after one database: prepares it, opens its pool, watches it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::drain::DrainWatcher;
use crate::health::WatchedDatabase;
use crate::model::DatabaseSpec;
use crate::pg::backend::{Connection, Target};
use crate::pg::{
    Database, Login, MigrationWatch, Preparation, PrepareFailure, Prepared, check_interval,
    pool_settings, prepare,
};
use crate::telemetry::metrics::{HealthGauge, MigrationMetrics};
use crate::telemetry::readiness::Pending;
use crate::telemetry::supervise::Supervisor;

/// First pause between attempts to prepare; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// After a failure the database is asked this often.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks that somebody asked for.
const BREATH: Duration = Duration::from_millis(100);
/// Intervals vary by this share.
const JITTER: f64 = 0.1;

/// What is looked after.
pub(super) struct Following {
    pub(super) database: Arc<Database>,
    pub(super) spec: Arc<DatabaseSpec>,
    pub(super) watched: WatchedDatabase,
    pub(super) gauge: Arc<HealthGauge>,
    pub(super) migrations: Arc<MigrationMetrics>,
    pub(super) drain: DrainWatcher,
    /// Start-up waits for the first end of preparing, good or bad.
    pub(super) pending: Option<Pending>,
}

/// Runs until it is dropped.
pub(super) async fn follow(mut following: Following, supervisor: Supervisor) {
    let pending = Mutex::new(following.pending.take());
    let look_after = || async {
        let mut files = MigrationWatch::new(following.spec.migrations_dir.clone());
        loop {
            files.trying().await;
            let again = open(&following).await;
            // Whatever comes now is not start-up any more.
            drop(
                pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
            let reasons = Reasons {
                files: &mut files,
                again,
                began: Instant::now(),
            };
            watch(&following, Some(reasons)).await;
        }
    };
    supervisor.keep("database", look_after).await;
}

/// Prepares the database and opens its pool, again and again while trying again
/// may help; what was open before stays open and is tried once. Whether to try
/// again later.
async fn open(following: &Following) -> bool {
    let Following { database, spec, .. } = following;
    let mut pause = FIRST_PAUSE;
    loop {
        let was_open = database.pool.is_open();
        let attempt = async {
            if !was_open {
                return prepared(following).await;
            }
            // A long migration is no reason not to look how the database is.
            tokio::select! {
                result = prepared(following) => result,
                () = watch(following, None) => Ok(()),
            }
        };
        let Err(failure) = attempt.await else {
            database.set_obstacle(None);
            return false;
        };
        tell(database, &failure);
        if was_open {
            return failure.retry || failure.look_again;
        }
        match &failure.cause {
            Some(cause) => database.pool.missed(cause.clone()),
            None => diagnose(following).await,
        }
        record(following, false, Duration::ZERO);
        if !failure.retry {
            return failure.look_again;
        }
        let jittered = pause.mul_f64(1.0 - JITTER * fastrand::f64());
        tokio::time::sleep(jittered).await;
        pause = (pause * 2).min(LAST_PAUSE.min(check_interval(spec)));
    }
}

/// Says why it is not ready, if that is news.
fn tell(database: &Database, failure: &PrepareFailure) {
    let PrepareFailure {
        message: error,
        retry,
        ..
    } = failure;
    let service = &database.pool.name;
    if database.set_obstacle(Some(error.clone())) {
        match retry {
            true => tracing::warn!(%service, error, "the database is not ready yet"),
            false => tracing::error!(%service, error, "the database is not ready"),
        }
    }
}

async fn prepared(following: &Following) -> Result<(), PrepareFailure> {
    let Following {
        database,
        spec,
        drain,
        ..
    } = following;
    let preparation = Preparation {
        service: &database.pool.name,
        spec,
        progress: &database.progress,
        metrics: &following.migrations,
        drain: drain.clone(),
    };
    let Prepared { login, applied } = prepare(preparation).await?;
    open_pool(database, spec, login).await?;
    database.set_applied(applied);
    Ok(())
}

async fn open_pool(
    database: &Arc<Database>,
    spec: &Arc<DatabaseSpec>,
    login: Login,
) -> Result<(), PrepareFailure> {
    let (service, read) = (database.pool.name.clone(), Arc::clone(spec));
    let made = tokio::task::spawn_blocking(move || pool_settings(&service, &read, login)).await;
    let retry = |message: String| PrepareFailure {
        message,
        retry: true,
        look_again: false,
        cause: None,
    };
    let settings = made
        .map_err(|error| retry(error.to_string()))?
        // Files may be mended.
        .map_err(|failure| retry(failure.to_string()))?;
    database.pool.open(settings);
    tracing::info!(
        service = %database.pool.name,
        database = %spec.database,
        schema = %spec.schema,
        max = spec.max,
        "database pool open"
    );
    Ok(())
}

/// Finds the word for why preparing failed, where it is that the server cannot
/// be reached as the configured user.
async fn diagnose(following: &Following) {
    let Following { database, spec, .. } = following;
    let pool = &database.pool;
    let (service, read) = (pool.name.clone(), Arc::clone(spec));
    let login = Login {
        user: Arc::clone(&spec.user),
        password: spec.password.clone(),
    };
    let made = tokio::task::spawn_blocking(move || pool_settings(&service, &read, login)).await;
    let Ok(made) = made else { return };
    let connected = match made {
        Ok(settings) => {
            let target = Target {
                database: Arc::clone(&spec.base_database),
                ..settings.target
            };
            Connection::connect(&Arc::new(target)).await
        }
        Err(failure) => Err(failure),
    };
    match connected {
        Ok(_) => pool.good(),
        Err(failure) => pool.missed(failure),
    }
}

fn record(following: &Following, up: bool, took: Duration) {
    let reason = match up {
        true => None,
        false => Some(following.database.reason()),
    };
    following.watched.reason.set(reason);
    following.watched.check.record(up, took, Instant::now());
    // As long as a cell counts (SPEC §5).
    let counts_for = check_interval(&following.spec).saturating_mul(3);
    following.gauge.set(up, counts_for);
}

/// What may be a reason to prepare the database once more.
struct Reasons<'a> {
    files: &'a mut MigrationWatch,
    /// The last attempt failed, and another may not.
    again: bool,
    /// Of the watch.
    began: Instant,
}

impl Reasons<'_> {
    /// Whether there is one now: another attempt is due, a tenant changed its
    /// own password, or files that may be run appeared.
    async fn are_there(&mut self, following: &Following) -> bool {
        let Following { database, spec, .. } = following;
        let failure = database.pool.failure();
        let locked_out = failure.is_some_and(|failure| failure.reason() == "wrong_password");
        if (self.again || locked_out) && self.began.elapsed() >= check_interval(spec) {
            return true;
        }
        let may_run = spec.migrate_on_reload || database.obstacle().is_some();
        spec.migrations && may_run && self.files.has_settled_change().await
    }
}

/// Asks the database how it is; results of real traffic count too. Returns when
/// there is a reason to prepare it once more, of those that are asked for.
async fn watch(following: &Following, mut reasons: Option<Reasons<'_>>) {
    let Following { database, spec, .. } = following;
    let pool = &database.pool;
    let interval = check_interval(spec);
    let mut was_up = None;
    let mut suspected = true;
    loop {
        let asked = Instant::now();
        let recent = match suspected {
            true => Duration::from_millis(500).min(interval),
            false => interval,
        };
        let is_fresh = pool
            .last_good()
            .is_some_and(|at| asked - at.min(asked) < recent);
        let up = pool.is_open() && (is_fresh || pool.probe().await.is_ok());
        record(following, up, asked.elapsed());
        if was_up.is_some_and(|before| before != up) {
            let service = &pool.name;
            match up {
                true => tracing::info!(%service, what = "database", "is up"),
                false => tracing::warn!(%service, what = "database", "is down"),
            }
        }
        was_up = Some(up);
        let pause = match up {
            true => interval,
            false => interval.min(SUSPICIOUS_INTERVAL),
        };
        tokio::time::sleep(BREATH).await;
        let rest = pause.mul_f64(1.0 - JITTER * fastrand::f64());
        suspected = tokio::select! {
            () = tokio::time::sleep(rest.saturating_sub(BREATH)) => false,
            () = pool.suspected() => true,
        };
        if let Some(reasons) = &mut reasons
            && reasons.are_there(following).await
        {
            return;
        }
    }
}
