//! The daemon as people run it: the built binary, a working directory, files,
//! ports.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Client, Request, Response};
use super::isolation::Wrapper;
use super::metrics::Metrics;
use super::ports::free_ports;
use super::process;
use super::tree::Tree;
use super::wait::{SOON, wait_for};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_outrigger");

/// Longest wait for a debug build to be ready with a large tree.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How to start a daemon; made by [`Setup::new`], changed, then started.
pub(crate) struct Setup {
    folder: PathBuf,
    binary: String,
    process: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    wrapper: Wrapper,
    admin: u16,
    observe: u16,
    sql: u16,
    listen: &'static str,
    admin_listen: &'static str,
    admin_lines: String,
    observe_listen: &'static str,
    reload: &'static str,
}

impl Setup {
    /// In the tree's folder, with doors on free ports and public ports on loopback.
    pub(crate) fn new(tree: &Tree) -> Self {
        let doors = free_ports(4);
        Self {
            folder: tree.root().to_owned(),
            binary: BINARY.to_owned(),
            process: format!(
                "outbound: {{listen: 127.0.0.1:{}}}\nsql: {{listen: 127.0.0.1:{}}}\n",
                doors[2], doors[3]
            ),
            environment: Vec::new(),
            arguments: vec!["run".to_owned()],
            wrapper: Wrapper::default(),
            admin: doors[0],
            observe: doors[1],
            sql: doors[3],
            listen: "127.0.0.1",
            admin_listen: "127.0.0.1",
            admin_lines: String::new(),
            observe_listen: "127.0.0.1",
            reload: "{poll: 5s, quiet: 50ms, max: 200ms}",
        }
    }

    /// More lines of the process settings.
    pub(crate) fn process(mut self, yaml: &str) -> Self {
        self.process.push_str(yaml);
        self.process.push('\n');
        self
    }

    /// More keys of `admin`, as a flow mapping's inside.
    pub(crate) fn admin(mut self, listen: &'static str, keys: &str) -> Self {
        self.admin_listen = listen;
        self.admin_lines = format!(", {keys}");
        self
    }

    /// Where public ports are bound.
    pub(crate) fn listen(mut self, address: &'static str) -> Self {
        self.listen = address;
        self
    }

    /// Where probes and metrics are bound.
    pub(crate) fn observe(mut self, address: &'static str) -> Self {
        self.observe_listen = address;
        self
    }

    /// The `reload` block, in place of the defaults.
    pub(crate) fn reload(mut self, block: &'static str) -> Self {
        self.reload = block;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Another build of the binary.
    pub(crate) fn binary(mut self, path: &str) -> Self {
        path.clone_into(&mut self.binary);
        self
    }

    /// Another subcommand with its arguments, instead of `run`.
    pub(crate) fn subcommand(mut self, words: &[&str]) -> Self {
        self.arguments = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs the binary inside something else.
    pub(crate) fn within(mut self, wrapper: Wrapper) -> Self {
        self.wrapper = wrapper;
        self
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.admin
    }

    pub(crate) fn sql_port(&self) -> u16 {
        self.sql
    }

    /// Starts and returns at once.
    pub(crate) fn spawn(self) -> Daemon {
        let Self {
            listen,
            admin,
            admin_listen,
            admin_lines,
            ..
        } = &self;
        let Self {
            observe,
            observe_listen,
            reload,
            process,
            ..
        } = &self;
        let settings = format!(
            "listen: \"{listen}\"\n\
             admin: {{listen: \"{admin_listen}:{admin}\"{admin_lines}}}\n\
             observe: {{listen: \"{observe_listen}:{observe}\"}}\n\
             reload: {reload}\n{process}"
        );
        let config = self.folder.join("config");
        std::fs::create_dir_all(&config).expect("the folder is ours");
        std::fs::write(config.join("outrigger.yaml"), settings).expect("the folder is ours");
        let mut command = self.wrapper.command(&self.binary);
        command
            .args(&self.arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment);
        let mut daemon = Daemon::spawn(command, self.admin, self.observe);
        daemon.sql = self.sql;
        daemon
    }

    /// Starts and waits until `/startupz` says 200.
    #[track_caller]
    pub(crate) fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.wait_for_start();
        daemon
    }
}

/// Output of a child, gathered line by line.
#[derive(Default)]
struct Output {
    text: Arc<Mutex<String>>,
    threads: Vec<JoinHandle<()>>,
}

impl Output {
    fn gather(&mut self, stream: impl Read + Send + 'static) {
        let gathered = Arc::clone(&self.text);
        self.threads.push(thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                gathered.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }));
    }

    /// Waits for the end of both streams, which the child's end brings.
    fn wait(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("gathering does not panic");
        }
    }

    fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) admin: u16,
    pub(crate) observe: u16,
    /// The SQL door, where [`Setup`] made it.
    pub(crate) sql: u16,
    output: Output,
}

impl Daemon {
    /// Starts any command that behaves like the daemon.
    pub(crate) fn spawn(mut command: Command, admin: u16, observe: u16) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut output = Output::default();
        output.gather(child.stdout.take().expect("stdout is piped"));
        output.gather(child.stderr.take().expect("stderr is piped"));
        Self {
            child,
            admin,
            observe,
            sql: 0,
            output,
        }
    }

    #[track_caller]
    fn wait_for_start(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                panic!("the daemon ended with {status}:\n{}", self.output());
            }
            if Request::get("/startupz").status(self.observe) == Some(200) {
                return;
            }
            assert!(
                started.elapsed() < START,
                "not started within {START:?}:\n{}",
                self.output()
            );
            super::wait::pause(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far, both streams.
    pub(crate) fn output(&self) -> String {
        self.output.text()
    }

    /// Waits for a line of output that holds all of these; gives the line.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, parts: &[&str]) -> String {
        let find = || {
            let output = self.output();
            let mut lines = output.lines();
            lines
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        };
        let started = Instant::now();
        loop {
            if let Some(line) = find() {
                return line;
            }
            assert!(
                started.elapsed() < SOON,
                "no line with {parts:?} in:\n{}",
                self.output()
            );
            super::wait::pause(Duration::from_millis(5));
        }
    }

    /// Waits for the end; panics when it does not come.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, deadline: Duration) -> (ExitStatus, String) {
        let child = &mut self.child;
        let (status, _) = wait_for("the daemon ends", deadline, || {
            child.try_wait().expect("a child can be waited for")
        });
        self.output.wait();
        (status, self.output())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        process::resident_kib(self.pid())
    }

    pub(crate) fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }

    // The admin port.

    #[track_caller]
    pub(crate) fn admin_get(&self, target: &str) -> Response {
        Request::get(target)
            .header("Host", "127.0.0.1")
            .send(self.admin)
    }

    #[track_caller]
    pub(crate) fn admin_post(&self, target: &str, body: &str) -> Response {
        let request = Request::post(target, body).header("Host", "127.0.0.1");
        let mut client = Client::connect(self.admin).expect("the admin port accepts");
        client.patience(START);
        client
            .exchange(&request)
            .unwrap_or_else(|error| panic!("POST {target}: {error:?}"))
    }

    /// `POST /reload`: returns once the change is in force.
    #[track_caller]
    pub(crate) fn reload(&self) -> Response {
        self.admin_post("/reload", "")
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let response = Request::get("/metrics").send(self.observe);
        assert_eq!(response.status, 200, "{}", response.text());
        Metrics::parse(&response.text())
    }

    /// The generation in force.
    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        let generation = self.metrics().sum("outrigger_config_generation", &[]);
        generation.map_or(0, |generation| generation as u64)
    }

    /// The document of `/services`.
    #[track_caller]
    pub(crate) fn services(&self) -> serde_json::Value {
        self.admin_get("/services").json()
    }

    /// What `/services` says of one service, as text.
    #[track_caller]
    pub(crate) fn service(&self, key: &str) -> serde_json::Value {
        let document = self.services();
        let list = document["services"].as_array().cloned().unwrap_or_default();
        list.into_iter()
            .find(|service| {
                service["service"] == key || service["key"] == key || service["name"] == key
            })
            .unwrap_or_else(|| panic!("`{key}` is not in {document:#}"))
    }

    /// An address of the admin port.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let output = self.output();
            let from = output.len().saturating_sub(8000);
            let from = (from..=output.len())
                .find(|at| output.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("---- output of the daemon (its end)\n{}", &output[from..]);
        }
    }
}

/// Runs the binary to its end in a folder; gives exit code and what it printed.
/// Panics when it does not end in time.
#[track_caller]
pub(crate) fn run_to_end(
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().copied());
    let (status, output) = Daemon::spawn(command, 0, 0).wait_for_exit(START);
    (status.code().unwrap_or(-1), output)
}
