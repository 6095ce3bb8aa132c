//! A private PostgreSQL for the demo, from installed binaries; gone with its
//! files when dropped.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::folder::Folder;
use crate::config::Environment;
use crate::secret::Secret;

/// Its superuser, and the login of the demo's daemon.
pub(super) const USER: &str = "postgres";
/// The database that the examples expect.
pub(super) const DATABASE: &str = "zintrust";
/// From the start of the server to its first connection.
const START: Duration = Duration::from_secs(15);
/// Between two looks whether it accepts.
const LOOK: Duration = Duration::from_millis(50);
/// Stops the server when its own standard input closes, so also when the demo
/// is killed.
const KEEPER: &str =
    "\"$@\" </dev/null & server=$!; cat >/dev/null; kill -INT $server; wait $server";

/// The running server.
pub(super) struct Postgres {
    keeper: Child,
    /// After the server: its files.
    _folder: Folder,
    pub(super) port: u16,
    pub(super) password: Secret,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPostgres {
    #[error("no initdb and postgres are installed")]
    NotInstalled,
    #[error("port {0} is in use")]
    PortInUse(u16),
    #[error("{what} failed: {detail}")]
    Failed { what: &'static str, detail: String },
    #[error("{what} cannot be started")]
    Start {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("it did not accept connections in time")]
    Late,
}

impl Postgres {
    /// Makes a cluster and starts it on a port of loopback.
    ///
    /// # Errors
    /// [`NoPostgres`]; nothing is left behind then.
    pub(super) fn start(
        environment: &Environment,
        port: u16,
        password: Secret,
    ) -> Result<Self, NoPostgres> {
        let binaries = binaries(environment).ok_or(NoPostgres::NotInstalled)?;
        let failed = |what| move |source| NoPostgres::Start { what, source };
        let folder = Folder::create(environment).map_err(failed("its folder"))?;
        let root = folder.path();
        let owner = owner();
        let written = folder
            .write("password", password.expose_str().unwrap_or_default())
            .and_then(|()| match owner {
                Some((user, group)) => [root, &root.join("password")]
                    .iter()
                    .try_for_each(|path| chown(path, Some(user), Some(group))),
                None => Ok(()),
            });
        written.map_err(failed("its folder"))?;
        let program = |name: &str| run_as(owner, &binaries.join(name), root);
        let mut initdb = program("initdb");
        initdb
            .args(["--username", USER, "--auth", "scram-sha-256", "--no-sync"])
            .args(["--encoding", "UTF8", "--locale", "C"])
            .args(["--pwfile", "password", "--pgdata", "data"]);
        finish("initdb", initdb, "")?;
        let mut single = program("postgres");
        single.args(["--single", "-D", "data", "postgres"]);
        finish("postgres", single, &format!("CREATE DATABASE {DATABASE}\n"))?;
        let mut keeper = run_as(owner, Path::new("/bin/sh"), root);
        keeper
            .args(["-c", KEEPER, "sh"])
            .arg(binaries.join("postgres"))
            .args(["-D", "data", "-k", ".", "-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What Ctrl-C tells everybody in the foreground ends it too early.
            .process_group(0);
        let keeper = keeper.spawn().map_err(failed("postgres"))?;
        let server = Self {
            keeper,
            _folder: folder,
            port,
            password,
        };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<(), NoPostgres> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| NoPostgres::Start {
                what: "a runtime",
                source,
            })?;
        let accepts = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
                .await
                .is_err()
            {
                sleep(LOOK).await;
            }
        };
        let waited = runtime.block_on(async { timeout(START, accepts).await });
        waited.map_err(|_| NoPostgres::Late)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The end of its input is what stops the server.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Runs a program to its end, with this input.
fn finish(what: &'static str, mut command: Command, input: &str) -> Result<(), NoPostgres> {
    let failed = |source| NoPostgres::Start { what, source };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has failed already reads nothing.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let detail = text.lines().next().unwrap_or("it said nothing").to_owned();
    Err(NoPostgres::Failed { what, detail })
}

/// In the folder, with nothing of our environment but the search path.
fn run_as(owner: Option<(u32, u32)>, program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// PostgreSQL refuses to run as root: then as `postgres`, else as nobody.
fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .and_then(|line| {
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
    Some(ids.unwrap_or((65534, 65534)))
}

/// The folder of the newest of Debian's versions, else of the search path.
fn binaries(environment: &Environment) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| is_complete(folder))
        .max();
    if let Some((_, folder)) = debian {
        return Some(folder);
    }
    let path = environment.value("PATH").unwrap_or_default();
    path.split(':')
        .map(PathBuf::from)
        .find(|folder| is_complete(folder))
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|name| folder.join(name).is_file())
}
