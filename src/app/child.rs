//! A command that runs beside the sidecar and ends with it (SPEC §11, `exec`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions};

use super::Options;
use super::signals::Signals;
use crate::config::{Compilation, Compiled, Compiler, Environment, load_process};
use crate::control;
use crate::model::{ServiceSpec, UpstreamTarget};
use crate::net::files::FoundLimit;
use crate::pg::{self, Databases};

/// As shells report a command that is not there.
const NOT_FOUND: u8 = 127;
/// As shells report a command that cannot be started.
const NOT_STARTED: u8 = 126;
/// Secrets that only the sidecar needs, besides `OUTRIGGER_…`, what the process
/// file names, and what services' files name in the login of their database. What
/// else they name stays: apps that mint the tokens their sidecar checks need the same
/// secret.
const SECRETS: [&str; 2] = ["SERVICE_API_KEY", "SERVICE_JWT_SECRET"];
/// How to get into the only database, for ordinary drivers.
const DATABASE_URL: &str = "DATABASE_URL";
/// The administrative login of the database: with a `database` block it is the
/// sidecar's, and the app gets a login of its own.
const DATABASE_SECRETS: [&str; 4] = [
    DATABASE_URL,
    "POSTGRES_PASSWORD",
    "DB_PASSWORD",
    "PGPASSWORD",
];

/// What is to be run, and in which environment.
pub(super) struct Plan {
    program: OsString,
    arguments: Vec<OsString>,
    changes: Changes,
    limit: Option<FoundLimit>,
}

/// How the environment of the command differs from ours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    set: BTreeMap<String, String>,
    clear: BTreeSet<String>,
}

/// The running command.
pub(super) struct Child {
    pid: Pid,
    children: Signals,
    /// The terminal sends its own signals to everything in the foreground.
    terminal: bool,
}

impl Plan {
    /// `None` without a command. Looks at the configuration by itself, before
    /// it is in force; its problems are reported by the start.
    pub(super) fn new(options: &Options, limit: Option<FoundLimit>) -> Option<Self> {
        let (program, arguments) = options.command.split_first()?;
        let environment = &options.environment;
        let changes = load_process(&options.flags, environment)
            .map(|process| {
                let tree = control::discover(&process.settings.services_dir);
                let named = process.variables.clone();
                let compilation = Compiler::new(process, environment.clone()).compile(&tree);
                let mut changes = Changes::of(&compilation, environment);
                changes.clear.extend(named);
                changes
            })
            .unwrap_or_default();
        Some(Self {
            program: program.clone(),
            arguments: arguments.to_vec(),
            changes,
            limit,
        })
    }

    /// Starts the command; must be called in a runtime, once databases were
    /// prepared.
    ///
    /// # Errors
    /// The code to leave with.
    pub(super) fn start(self, databases: &Databases) -> Result<Child, u8> {
        let Self {
            program,
            arguments,
            mut changes,
            limit,
        } = self;
        let mut command = Command::new(&program);
        command.args(arguments);
        for name in &changes.clear {
            command.env_remove(name);
        }
        let url = database_url(databases).map(|url| (DATABASE_URL.to_owned(), url));
        changes.set.extend(url);
        command.envs(&changes.set);
        // Before the start: its end must not be missed.
        let children = Signals::listen(&[Signal::CHILD]);
        let spawned = children.and_then(|children| {
            let child = match limit {
                Some(limit) => limit.during(|| command.spawn()),
                None => command.spawn(),
            }?;
            Ok((Pid::from_child(&child), children))
        });
        match spawned {
            Ok((pid, children)) => {
                let set: Vec<&str> = changes.set.keys().map(String::as_str).collect();
                let set = set.join(" ");
                tracing::info!(pid = pid.as_raw_nonzero(), set, "the command runs");
                Ok(Child {
                    pid,
                    children,
                    terminal: io::stdin().is_terminal(),
                })
            }
            Err(error) => {
                let program = program.to_string_lossy();
                tracing::error!(%program, %error, "the command cannot be started");
                Err(match error.kind() {
                    io::ErrorKind::NotFound => NOT_FOUND,
                    _ => NOT_STARTED,
                })
            }
        }
    }
}

impl Child {
    /// Resolves with the command's code. Meanwhile every other child that ends
    /// is reaped: process 1 inherits orphans.
    pub(super) async fn ended(&mut self) -> u8 {
        loop {
            if let Some(code) = self.reap() {
                return code;
            }
            self.children.next().await;
        }
    }

    fn reap(&self) -> Option<u8> {
        let mut ended = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                let signal = status.terminating_signal().map(|signal| signal + 128);
                let code = status.exit_status().or(signal);
                ended = code.and_then(|code| u8::try_from(code).ok()).or(ended);
            }
        }
        ended
    }

    /// Hands a signal on, unless the terminal has done so already.
    pub(super) fn forward(&self, signal: Signal) {
        let by_terminal = signal == Signal::INT || signal == Signal::QUIT;
        if !(self.terminal && by_terminal) {
            self.send(signal);
        }
    }

    /// Asks the command to end.
    pub(super) fn terminate(&self) {
        self.send(Signal::TERM);
    }

    fn send(&self, signal: Signal) {
        // One that has ended a moment ago needs no signal.
        let _ = rustix::process::kill_process(self.pid, signal);
    }
}

impl Changes {
    fn of(compilation: &Compilation, environment: &Environment) -> Self {
        let locals: Vec<&ServiceSpec> = compilation
            .services
            .values()
            .filter_map(|compiled| match compiled {
                Compiled::Local(local) => local.spec.as_deref().ok(),
                Compiled::Peer(_) => None,
            })
            .collect();
        let mut set = BTreeMap::new();
        // With several services it is not known which of them the command is.
        if let [only] = locals.as_slice() {
            set.extend(told(only));
        }
        let ours = environment.iter().map(|(name, _)| name);
        let mut clear: BTreeSet<String> = ours
            .filter(|name| name.starts_with("OUTRIGGER_"))
            .chain(SECRETS)
            .map(ToOwned::to_owned)
            .collect();
        clear.extend(compilation.login_variables.iter().cloned());
        if locals.iter().any(|spec| spec.database.is_some()) {
            clear.extend(DATABASE_SECRETS.map(ToOwned::to_owned));
        }
        Self { set, clear }
    }
}

/// What the pool of the only local service with a database logs in with, or
/// will. With several it is not known which of them the command is, and a login
/// of each would tear their boundaries down.
fn database_url(databases: &Databases) -> Option<String> {
    let list = databases.list();
    let [only] = list.as_slice() else {
        if !list.is_empty() {
            tracing::info!(
                databases = list.len(),
                "DATABASE_URL is not set: several services have a database; choose one with SERVICES"
            );
        }
        return None;
    };
    let spec = only.spec();
    let login = only.pool.login();
    if login.is_none() {
        let service = &only.pool.name;
        tracing::warn!(%service, "the command starts before its database is ready");
    }
    let login = login.unwrap_or_else(|| pg::expected_login(&spec));
    Some(pg::url(&spec, &login))
}

/// What the app of a service must know: where to listen, whom to call.
fn told(spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    let port = match &spec.upstream.target {
        UpstreamTarget::Loopback { port } | UpstreamTarget::Tcp { port, .. } => Some(port),
        UpstreamTarget::Unix { .. } => None,
    };
    if let Some(port) = port {
        // Both: the app must not take the sidecar's own port.
        told.insert("PORT".to_owned(), port.to_string());
        told.insert("SERVICE_PORT".to_owned(), port.to_string());
    }
    for dependency in &spec.dependencies {
        if let Some(port) = dependency.local_port {
            let name = variable(&dependency.name);
            told.insert(format!("{name}_URL"), format!("http://127.0.0.1:{port}"));
        }
    }
    told
}

/// `shop/price-list` as part of a variable's name: `SHOP_PRICE_LIST`.
fn variable(name: &str) -> String {
    let byte = |byte: char| match byte {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
        _ => '_',
    };
    name.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessFlags;

    fn changes(file: &str, environment: &[(&str, &str)]) -> Changes {
        let folder = tempfile::tempdir().expect("folder");
        let service = folder.path().join("shop/cart");
        std::fs::create_dir_all(&service).expect("folder");
        let config = folder.path().join("outrigger.yaml");
        std::fs::write(&config, "admin: {token: '${env:DOOR}'}\n").expect("file");
        std::fs::write(service.join("service.config.yaml"), file).expect("file");
        let options = Options {
            flags: ProcessFlags {
                services: Some(folder.path().to_path_buf()),
                config: Some(config),
                ..ProcessFlags::default()
            },
            environment: Environment::from_pairs(environment.iter().copied()),
            command: vec!["true".into()],
        };
        Plan::new(&options, None).expect("a command").changes
    }

    #[test]
    fn the_command_learns_where_to_listen_and_whom_to_call() {
        let file = "port: 3001\nauth: {strategy: none}\ndependencies:\n  \
                    - {name: price-list, address: 'p:1', localPort: 4003}\n  \
                    - {name: stock, address: 's:1'}\n";
        let secrets = [
            ("OUTRIGGER_LOG_LEVEL", "info"),
            ("DOOR", "herring-herring-herring"),
            ("SERVICE_PORT", "3001"),
            ("DATABASE_URL", "postgres://app@db/app"),
        ];
        let Changes { set, clear } = changes(file, &secrets);
        let set: Vec<(&str, &str)> = set
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            set,
            [
                ("PORT", "13001"),
                ("PRICE_LIST_URL", "http://127.0.0.1:4003"),
                ("SERVICE_PORT", "13001"),
            ]
        );
        let clear: Vec<&str> = clear.iter().map(String::as_str).collect();
        assert_eq!(
            clear,
            [
                "DOOR",
                "OUTRIGGER_LOG_LEVEL",
                "SERVICE_API_KEY",
                "SERVICE_JWT_SECRET"
            ]
        );
    }

    #[test]
    fn logins_of_the_sidecar_stay_with_it() {
        let file = "port: 3001\nauth: {strategy: none}\ndescription: '${env:SAID}'\ndatabase:\n  \
                    url: 'postgres://boss:${env:BOSS}@127.0.0.1/shop'\n  \
                    doorToken: '${env:SAID}'\n";
        let word = "a-word-that-the-app-needs";
        let door = ("DOOR", "herring-herring-herring");
        let Changes { clear, .. } = changes(file, &[door, ("BOSS", "pass"), ("SAID", word)]);
        for name in ["BOSS", "DATABASE_URL", "PGPASSWORD", "DB_PASSWORD"] {
            assert!(clear.contains(name), "{name} is not in {clear:?}");
        }
        assert!(!clear.contains("SAID"));
    }
}
