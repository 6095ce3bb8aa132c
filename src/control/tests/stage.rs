//! A running loop and everything around it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::{Environment, ProcessFlags, load_process};
use crate::control::prepare::{Build, build_service};
use crate::control::{Control, LifecycleRequest, Parts, StartError};
use crate::model::ServiceName;
use crate::net::{ListenerId, ListenerSocket, OpenListener, WorkerCommand};
use crate::snapshot::{
    AdminCommand, Current, ReloadOutcome, ServiceStatus, ServingState, Status, StatusBoard, channel,
};
use crate::telemetry::metrics::Metrics;

/// For what must happen at all.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// What a scripted worker has adopted.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) listeners: BTreeMap<ListenerId, OpenListener>,
    pub(super) generation: u64,
}

/// How to set the stage.
pub(super) struct Setting {
    pub(super) poll: Duration,
    pub(super) build: Option<Build>,
    pub(super) process_file: Option<&'static str>,
    /// `SERVICES`: the local ones.
    pub(super) local: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            // Events must do it, not the clock.
            poll: Duration::from_secs(60),
            build: None,
            process_file: None,
            local: "",
        }
    }
}

pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) status: StatusBoard,
    pub(super) current: Current,
    pub(super) metrics: Metrics,
    pub(super) workers: Vec<Arc<Mutex<Worker>>>,
    /// While set, workers take commands but do not acknowledge.
    pub(super) silent: Arc<AtomicBool>,
    pub(super) lifecycle: mpsc::Receiver<LifecycleRequest>,
    admin: mpsc::Sender<AdminCommand>,
    tasks: Vec<JoinHandle<()>>,
    control: Option<Control>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Stage {
    pub(super) fn set(setting: Setting) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("services");
        fs::create_dir(&root).expect("root");
        let mut flags = ProcessFlags {
            services: Some(root),
            ..ProcessFlags::default()
        };
        if let Some(text) = setting.process_file {
            let path = folder.path().join("outrigger.yaml");
            fs::write(&path, text).expect("write");
            flags.config = Some(path);
        }
        let poll = format!("{}ms", setting.poll.as_millis());
        let environment = Environment::from_pairs([
            ("OUTRIGGER_RELOAD_POLL", poll.as_str()),
            ("OUTRIGGER_LISTEN", "127.0.0.1"),
            ("SERVICES", setting.local),
        ]);
        let process = load_process(&flags, &environment).expect("settings load");
        let (publisher, current) = channel(Arc::clone(&process.settings));
        let silent = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        let mut senders = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..2 {
            let (sender, receiver) = mpsc::channel(4);
            let worker = Arc::new(Mutex::new(Worker::default()));
            let follow = follow(
                receiver,
                current.clone(),
                Arc::clone(&worker),
                Arc::clone(&silent),
            );
            tasks.push(tokio::spawn(follow));
            senders.push(sender);
            workers.push(worker);
        }
        let (admin, commands) = mpsc::channel(4);
        let (lifecycle_sender, lifecycle) = mpsc::channel(4);
        let status = StatusBoard::default();
        let metrics = Metrics::new(2);
        let parts = Parts {
            flags,
            environment,
            process,
            publisher,
            workers: senders,
            status: status.clone(),
            metrics: metrics.clone(),
            commands,
            lifecycle: lifecycle_sender,
            after_publish: Box::new(()),
        };
        let control = match setting.build {
            Some(build) => Control::with_build(parts, build),
            None => Control::new(parts),
        };
        Self {
            folder,
            status,
            current,
            metrics,
            workers,
            silent,
            lifecycle,
            admin,
            tasks,
            control: Some(control),
        }
    }

    /// The first turn, and then the loop.
    pub(super) async fn start(&mut self) -> Result<(), StartError> {
        let mut control = self.control.take().expect("not started yet");
        control.first_turn().await?;
        self.tasks
            .push(tokio::spawn(async move { control.run().await }));
        Ok(())
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("services").join(relative)
    }

    /// Writes beside and renames over, as a careful editor does.
    pub(super) fn write(&self, service: &str, text: &str) {
        let folder = self.path("shop").join(service);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join(".new"), text).expect("write");
        fs::rename(folder.join(".new"), folder.join("service.config.yaml")).expect("rename");
    }

    /// Waits until the board shows what is asked for.
    pub(super) async fn until(&self, what: &str, mut seen: impl FnMut(&Status) -> bool) {
        let wait = async {
            while !seen(&self.status.load()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(SOON, wait).await.is_err() {
            panic!("never seen: {what}; the board: {:#?}", self.status.load());
        }
    }

    pub(super) async fn until_state(&self, service: &str, state: ServingState) {
        let what = format!("{service} {state:?}");
        self.until(&what, |status| {
            let found = status.services.get(&name(service));
            found.is_some_and(|service| service.state == state)
        })
        .await;
    }

    /// Waits for a generation after this one.
    pub(super) async fn after(&self, generation: u64) {
        let what = format!("a generation after {generation}");
        self.until(&what, |status| status.generation > generation)
            .await;
    }

    pub(super) fn generation(&self) -> u64 {
        self.status.load().generation
    }

    pub(super) fn service(&self, service: &str) -> Arc<ServiceStatus> {
        let status = self.status.load();
        Arc::clone(status.services.get(&name(service)).expect("on the board"))
    }

    /// `domain/name` of everything served, and the ports the workers hold.
    pub(super) fn served(&self) -> Vec<String> {
        let snapshot = self.current.load();
        snapshot
            .services
            .keys()
            .map(|name| name.name().to_owned())
            .collect()
    }

    pub(super) async fn reload(&self, confirm_removals: bool) -> ReloadOutcome {
        let (done, outcome) = oneshot::channel();
        self.command(AdminCommand::Reload {
            confirm_removals,
            done,
        })
        .await;
        tokio::time::timeout(SOON, outcome)
            .await
            .expect("answered in time")
            .expect("answered")
    }

    pub(super) async fn command(&self, command: AdminCommand) {
        self.admin.send(command).await.expect("the loop listens");
    }

    /// A sample of the text exposition; `series` is without the common prefix.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.encode();
        let series = &format!("{}_{series}", env!("CARGO_PKG_NAME"));
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .parse()
            .expect("a number")
    }

    /// Ports both workers hold, in order.
    pub(super) fn ports(&self) -> Vec<u16> {
        let ports = |worker: &Mutex<Worker>| {
            let worker = worker.lock().expect("worker");
            let ports = worker.listeners.values().map(|open| open.address.port());
            let mut ports: Vec<u16> = ports.collect();
            ports.sort_unstable();
            ports
        };
        let first = ports(&self.workers[0]);
        assert_eq!(first, ports(&self.workers[1]));
        first
    }
}

async fn follow(
    mut commands: mpsc::Receiver<WorkerCommand>,
    current: Current,
    worker: Arc<Mutex<Worker>>,
    silent: Arc<AtomicBool>,
) {
    while let Some(command) = commands.recv().await {
        if let WorkerCommand::Adopt {
            generation,
            open,
            close,
            ack,
        } = command
        {
            while silent.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            {
                let mut worker = worker.lock().expect("worker");
                for mut listener in open {
                    if let ListenerSocket::Of(old) = listener.socket {
                        assert!(close.contains(&old), "two have one socket");
                        let old = worker.listeners.get(&old).expect("is open");
                        let ListenerSocket::Bound(socket) = &old.socket else {
                            unreachable!("has a socket");
                        };
                        let socket = socket.try_clone().expect("a socket");
                        listener.socket = ListenerSocket::Bound(socket);
                    }
                    let slot = listener.slot;
                    let known = current.load();
                    let known = known
                        .services
                        .values()
                        .any(|service| service.slot.index == slot);
                    assert!(known, "a listener for a service that is not published");
                    worker.listeners.insert(listener.id, listener);
                }
                for id in close {
                    worker.listeners.remove(&id).expect("was open");
                }
                worker.generation = generation;
            }
            let _ = ack.send(());
        }
    }
}

pub(super) fn name(service: &str) -> ServiceName {
    ServiceName::new("shop", service).expect("valid name")
}

/// Ports that are free, never the same twice: below the range that the kernel
/// gives out by itself, and kept from other tests, of this process or another,
/// by a UDP socket of the same number.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| {
        loop {
            let port = fastrand::u16(15_000..32_000);
            let address = ("127.0.0.1", port);
            if let Ok(kept) = UdpSocket::bind(address)
                && TcpListener::bind(address).is_ok()
            {
                // Until the process ends.
                std::mem::forget(kept);
                return port;
            }
        }
    })
}

/// A service that says that it is open.
pub(super) fn open(port: u16) -> String {
    format!("port: {port}\nupstream: 8080\nauth: {{strategy: none}}\n")
}

/// A service that asks for a key.
pub(super) fn closed(port: u16) -> String {
    let digest = "ab".repeat(32);
    format!(
        "port: {port}\nupstream: 8080\nauth:\n  apiKey:\n    keys: [{{id: web, sha256: {digest}}}]\n"
    )
}

/// The real build, except that services named `hung…` wait until it opens.
pub(super) fn gated_build() -> (Build, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&gate);
    let metrics = Metrics::new(2);
    let build: Build = Arc::new(move |request| {
        while request.name.name().starts_with("hung") && !held.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        build_service(request, &metrics)
    });
    (build, gate)
}
