//! Bad luck with files, for a minute, drawn from a seed: whatever happens to the
//! tree, no request follows a version older than the one acknowledged before it
//! began, nothing is open that was guarded, and afterwards all is as before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{STEP, key};
use crate::support::isolation::Wrapper;
use crate::support::load::{Load, Work};
use crate::support::ports::free_ports;
use crate::support::process;
use crate::support::scripts;
use crate::support::seed::{seconds, seed};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

const SERVICES: [&str; 3] = ["shop/cart", "shop/user", "bank/ledger"];

/// Version `step` accepts the keys `step ..= step + 9`, so that a slow client
/// with a key of a newer version is never behind.
///
/// As JSON: cut anywhere it is invalid, while a prefix of YAML may be another
/// good file.
fn file(port: u16, app: u16, step: u64) -> String {
    let keys: Vec<_> = (step..step + 10)
        .map(|number| serde_json::json!({"id": format!("web-{number}"), "key": key(number)}))
        .collect();
    serde_json::json!({
        "port": port,
        "upstream": app,
        "healthCheck": false,
        "auth": {
            "apiKey": {"keys": keys},
            "appToken": {"header": STEP, "value": step.to_string()},
        },
    })
    .to_string()
}

/// Asks with a key, and now and then without one.
struct Guarded {
    acknowledged: Arc<AtomicU64>,
    count: AtomicU64,
}

/// The note of a request without a key.
const WITHOUT: u64 = u64::MAX;

impl Work for Guarded {
    fn request(&self) -> (Request, u64) {
        if self.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            return (Request::get("/"), WITHOUT);
        }
        let step = self.acknowledged.load(Ordering::Acquire);
        (Request::get("/").key(&key(step + 5)), step)
    }

    fn check(&self, step: u64, response: &Response) -> Result<(), String> {
        let seen: Option<u64> = response.text().parse().ok();
        match (step, response.status, seen) {
            (WITHOUT, 401, _) => Ok(()),
            (WITHOUT, ..) => Err(format!("without a key: {}", response.status)),
            (_, 200, Some(seen)) if seen >= step => Ok(()),
            _ => Err(format!(
                "begun after version {step}: {} {}",
                response.status,
                response.text()
            )),
        }
    }
}

/// One service and what is known of it.
struct Subject {
    name: &'static str,
    port: u16,
    step: u64,
    acknowledged: Arc<AtomicU64>,
}

struct Run {
    random: fastrand::Rng,
    tree: Tree,
    daemon: Daemon,
    app: App,
    subjects: Vec<Subject>,
    turns: [u32; 7],
}

impl Run {
    fn start(seed: u64) -> Self {
        let app = App::start(scripts::say_header(STEP));
        let ports = free_ports(3);
        let tree = Tree::new();
        let subjects: Vec<Subject> = SERVICES
            .into_iter()
            .zip(ports)
            .map(|(name, port)| Subject {
                name,
                port,
                step: 1,
                acknowledged: Arc::new(AtomicU64::new(1)),
            })
            .collect();
        for Subject { name, port, .. } in &subjects {
            tree.write(name, file(*port, app.port(), 1));
        }
        let mut setup = Setup::new(&tree).reload("{poll: 300ms, quiet: 20ms, max: 100ms}");
        // Root reads what nobody may read; others do not.
        if process::is_root()
            && let Some(nobody) = Wrapper::nobody()
        {
            fs::set_permissions(tree.root(), fs::Permissions::from_mode(0o755)).unwrap();
            setup = setup.within(nobody);
        }
        let daemon = setup.start();
        Self {
            random: fastrand::Rng::with_seed(seed),
            tree,
            daemon,
            app,
            subjects,
            turns: [0; 7],
        }
    }

    fn text(&self, which: usize) -> String {
        let Subject { port, step, .. } = &self.subjects[which];
        file(*port, self.app.port(), *step)
    }

    /// Some misfortune, ended by a good new version of one service.
    fn turn(&mut self) {
        let which = self.random.usize(0..self.subjects.len());
        let name = self.subjects[which].name;
        let path = self.tree.file(name);
        let rest = Duration::from_millis(self.random.u64(0..250));
        let kind = self.random.usize(0..7);
        self.turns[kind] += 1;
        self.subjects[which].step += 1;
        let text = self.text(which);
        match kind {
            // Cut in place, at any byte, then whole again.
            0 => {
                let end = self.random.usize(0..text.len());
                fs::write(&path, &text[..end]).unwrap();
                pause(rest);
                fs::write(&path, text).unwrap();
            }
            1 => {
                let away = path.with_extension("away");
                fs::rename(&path, &away).unwrap();
                pause(rest);
                fs::rename(&away, &path).unwrap();
                self.tree.replace(name, text);
            }
            2 => self.tree.replace(name, text),
            3 => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
                pause(rest);
                self.tree.replace(name, text);
            }
            // The whole tree is gone, as with a mount that comes back.
            4 => {
                let (root, away) = (self.tree.services(), self.tree.root().join("away"));
                fs::rename(&root, &away).unwrap();
                pause(rest);
                fs::rename(&away, &root).unwrap();
                self.tree.replace(name, text);
            }
            // The whole tree is deleted and written anew.
            5 => {
                fs::remove_dir_all(self.tree.services()).unwrap();
                pause(rest.min(Duration::from_millis(100)));
                for other in 0..self.subjects.len() {
                    let text = self.text(other);
                    self.tree.write(self.subjects[other].name, text);
                }
            }
            _ => self.flap(which),
        }
        self.acknowledge(which);
    }

    /// Two good versions and a bad one in turn, ten milliseconds apart; the
    /// newest is the last.
    fn flap(&mut self, which: usize) {
        let name = self.subjects[which].name;
        let older = self.text(which);
        self.subjects[which].step += 1;
        let newer = self.text(which);
        for turn in 0..self.random.u32(5..30) {
            let text = match turn % 3 {
                0 => older.as_str(),
                1 => newer.as_str(),
                _ => "port: nonsense\n",
            };
            self.tree.replace(name, text);
            pause(Duration::from_millis(10));
        }
        self.tree.replace(name, newer);
    }

    /// Waits until the newest version is in force; requests from now on follow it.
    fn acknowledge(&mut self, which: usize) {
        let Subject {
            port,
            step,
            acknowledged,
            name,
        } = &self.subjects[which];
        let request = Request::get("/").key(&key(step + 5));
        let wanted = step.to_string();
        wait_until("the newest version is in force", SOON, || {
            // Returns once every worker follows what was found.
            let reloaded = self.daemon.reload().status;
            let status = &self.daemon.service(name)["state"];
            reloaded == 200
                && status == "serving"
                && request
                    .try_send(*port)
                    .is_ok_and(|response| response.text() == wanted)
        });
        acknowledged.store(*step, Ordering::Release);
    }
}

#[test]
fn whatever_happens_to_the_tree_requests_follow_what_was_acknowledged() {
    let _machine = shared_machine();
    let seed = seed("nemesis of the tree");
    let length = seconds("OUTRIGGER_TEST_NEMESIS_SECONDS", 60);
    let mut run = Run::start(seed);
    for which in 0..run.subjects.len() {
        run.acknowledge(which);
    }
    let loads: Vec<Load> = run
        .subjects
        .iter()
        .map(|subject| {
            let work = Guarded {
                acknowledged: Arc::clone(&subject.acknowledged),
                count: AtomicU64::new(0),
            };
            Load::start(subject.port, 2, Duration::from_millis(4), work)
        })
        .collect();
    wait_until("load runs", SOON, || {
        loads.iter().all(|load| load.requests() > 50)
    });
    let before = Baseline::of(&run.daemon);
    let begun = Instant::now();
    while begun.elapsed() < length {
        run.turn();
    }
    let mut requests = 0;
    for load in loads {
        let report = load.stop();
        assert_eq!(
            report.failures,
            0,
            "seed {seed}:\n{}",
            report.words.join("\n")
        );
        requests += report.requests;
    }
    assert_eq!(run.app.faults(), [""; 0]);
    wait_until("everything is as before", SOON, || {
        Baseline::of(&run.daemon).is_within(&before)
    });
    let generations = run.daemon.generation();
    let turns: u32 = run.turns.iter().sum();
    figure!(
        "nemesis of the tree: {turns} misfortunes {:?}, {generations} generations, \
         {requests} requests, no failure; {before:?} before, {:?} after",
        run.turns,
        Baseline::of(&run.daemon)
    );
}

/// What must not grow.
#[derive(Debug)]
struct Baseline {
    descriptors: usize,
    threads: usize,
    generations: f64,
}

impl Baseline {
    fn of(daemon: &Daemon) -> Self {
        let generations = daemon
            .metrics()
            .count("outrigger_config_generations_alive", &[]);
        Self {
            descriptors: process::descriptors(daemon.pid()),
            threads: process::threads(daemon.pid()),
            generations,
        }
    }

    /// Threads of the blocking pool come and go; connections to the app, too.
    fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads + 2
            && self.generations <= 2.0
    }
}
