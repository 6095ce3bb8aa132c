//! A real PostgreSQL: a private cluster of the installed binaries, or the server
//! that `OUTRIGGER_TEST_DATABASE_URL` names (a superuser's URL).
//!
//! One cluster serves all tests that only need databases of their own;
//! [`Cluster::private`] is for tests that hurt the server.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::ports::free_port;
use super::process;
use super::wait::{pause, wait_for, wait_until};

/// The superuser of private clusters.
pub(crate) const SUPERUSER: &str = "postgres";
/// Its password.
pub(crate) const PASSWORD: &str = "a-superuser's p@ssword";

/// For `initdb` and the first start on a slow machine.
const START: Duration = Duration::from_secs(60);

/// A server and how to log in as its superuser.
pub(crate) struct Cluster {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    private: Option<Private>,
}

/// A server that is ours.
struct Private {
    folder: TempDir,
    binaries: PathBuf,
    /// Settings beyond the usual ones, as `-c` takes them.
    settings: Vec<String>,
    server: Option<Server>,
    /// Nobody drops what all tests share: the shell removes its folder.
    outlives: bool,
}

/// The running server. A shell in between stops it when our end of its standard
/// input closes, so also when the tests are killed.
struct Server(Child);

impl Cluster {
    /// The one all tests share; made when first asked for.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::from_environment().unwrap_or_else(|| Self::made(&[], true)))
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "settings of the tests themselves"
    )]
    fn from_environment() -> Option<Self> {
        let url = std::env::var("OUTRIGGER_TEST_DATABASE_URL").ok()?;
        Some(Self::at(&url.parse().expect("a postgres URL")))
    }

    /// Somebody else's, by a superuser's login.
    pub(crate) fn at(login: &tokio_postgres::Config) -> Self {
        let host = match login.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            other => panic!("no host: {other:?}"),
        };
        let password = login.get_password().unwrap_or_default();
        Self {
            host,
            port: login.get_ports().first().copied().unwrap_or(5432),
            user: login.get_user().unwrap_or(SUPERUSER).to_owned(),
            password: String::from_utf8_lossy(password).into_owned(),
            private: None,
        }
    }

    /// A cluster of its own, with these settings (`max_connections=20`) beyond
    /// the usual ones; stopped and removed when dropped.
    pub(crate) fn private(settings: &[&str]) -> Self {
        Self::made(settings, false)
    }

    fn made(settings: &[&str], outlives: bool) -> Self {
        let binaries = binaries();
        let folder = tempfile::Builder::new()
            .prefix("outrigger-pg-")
            .tempdir()
            .expect("a temporary folder can be made");
        let password_file = folder.path().join("password");
        fs::write(&password_file, PASSWORD).expect("the folder is ours");
        give_away(folder.path());
        give_away(&password_file);
        let data = folder.path().join("data");
        let output = as_postgres(&binaries.join("initdb"))
            .args(["--username", SUPERUSER, "--auth", "scram-sha-256"])
            .args(["--encoding", "UTF8", "--locale", "C", "--no-sync"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .expect("initdb can be started");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb failed: {text}");
        let mut cluster = Self {
            host: "127.0.0.1".to_owned(),
            port: free_port(),
            user: SUPERUSER.to_owned(),
            password: PASSWORD.to_owned(),
            private: Some(Private {
                folder,
                binaries,
                settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
                server: None,
                outlives,
            }),
        };
        cluster.start();
        cluster
    }

    /// Starts the server and waits until it accepts logins.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.launch();
        let started = Instant::now();
        while !self.accepts() {
            assert!(started.elapsed() < START, "no login: {}", self.log());
            pause(Duration::from_millis(5));
        }
    }

    /// Starts the server without waiting for it.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        let port = self.port;
        let private = self.private.as_mut().expect("a private cluster");
        private.server = Some(Server::start(private, port));
    }

    /// Ends the server as `kill -9` of all its processes does.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        // It would begin anew when a child is killed, and beget more meanwhile.
        process::signal(self.postmaster(), "STOP");
        wait_until("the postmaster stands still", START, || {
            process::state(self.postmaster()) == Some('T')
        });
        let everybody = self.processes();
        let script = format!("kill -KILL {}; true", everybody.join(" "));
        let killed = Command::new("sh")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .status();
        assert!(killed.is_ok_and(|status| status.success()), "{script}");
        let private = self.private.as_mut().expect("a private cluster");
        if let Some(server) = private.server.take() {
            server.wait();
        }
        // A new server refuses to start while one of them holds the memory.
        wait_until("all of them are gone", START, || {
            everybody.iter().all(|pid| {
                let state = pid.parse().ok().and_then(process::state);
                matches!(state, None | Some('Z' | 'X'))
            })
        });
        // Left behind by a server that had no time to clean up.
        let _ = fs::remove_file(private.folder.path().join("data/postmaster.pid"));
    }

    /// Sends a signal to the server and all its processes.
    pub(crate) fn signal_all(&self, name: &str) {
        for process in self.processes() {
            // One that has ended a moment ago needs no signal.
            let _ = Command::new("kill")
                .args([format!("-{name}"), process])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The server's processes, the postmaster first.
    fn processes(&self) -> Vec<String> {
        let postmaster = self.postmaster();
        let children = process::children(postmaster);
        let children = children.iter().map(|(child, _)| child.to_string());
        std::iter::once(postmaster.to_string())
            .chain(children)
            .collect()
    }

    /// The process that accepts connections.
    #[track_caller]
    pub(crate) fn postmaster(&self) -> u32 {
        let file = self.folder().join("data/postmaster.pid");
        let (pid, _) = wait_for("the server wrote its pid", START, || {
            let text = fs::read_to_string(&file).ok()?;
            text.lines().next()?.trim().parse().ok()
        });
        pid
    }

    /// Where the cluster lives: `data`, `log`, the Unix socket.
    #[track_caller]
    pub(crate) fn folder(&self) -> &Path {
        let private = self.private.as_ref().expect("a private cluster");
        private.folder.path()
    }

    /// Everything the server has logged.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Makes a file of the cluster readable by the server alone, as it demands
    /// of private keys.
    pub(crate) fn own(&self, path: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        give_away(path);
    }

    fn accepts(&self) -> bool {
        TcpStream::connect((self.host.as_str(), self.port)).is_ok()
            && self.try_sql(SUPERUSER, "select 1").is_ok()
    }

    /// Runs SQL as the superuser in `database`; rows as lines, values joined by
    /// `|`. Several statements are allowed.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same; SQL errors as text.
    pub(crate) fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        self.sql_as(&self.user, &self.password, database, sql)
    }

    /// The same, as anybody.
    pub(crate) fn sql_as(
        &self,
        user: &str,
        password: &str,
        database: &str,
        sql: &str,
    ) -> Result<String, String> {
        let mut config = tokio_postgres::Config::new();
        config.host(&self.host).port(self.port).dbname(database);
        config.user(user).password(password);
        config.connect_timeout(Duration::from_secs(5));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let text = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(error) => format!("{} {}", error.code().code(), error.message()),
            None => format!("{error:?}"),
        };
        runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await.map_err(text)?;
            let driver = tokio::spawn(connection);
            let messages = client.simple_query(sql).await.map_err(text);
            drop(client);
            let _ = driver.await;
            Ok(rows(&messages?))
        })
    }

    /// An empty database with a name of its own.
    #[track_caller]
    pub(crate) fn database(&self, stem: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{stem}_{}_{count}", std::process::id());
        // Databases of a server that is not ours may be there from before.
        self.sql("postgres", &format!("drop database if exists {name}"));
        self.sql("postgres", &format!("create database {name}"));
        name
    }

    /// The URL of a database for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        let escaped: String = self
            .password
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        let Self {
            user, host, port, ..
        } = self;
        format!("postgres://{user}:{escaped}@{host}:{port}/{database}")
    }
}

impl Server {
    fn start(private: &Private, port: u16) -> Self {
        let folder = private.folder.path();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("the folder is ours");
        let script = "\"$@\" <&- & server=$!; cat >/dev/null; kill -INT $server; wait $server; \
            [ -z \"$REMOVE\" ] || rm -rf \"$REMOVE\"";
        let mut command = as_postgres(Path::new("sh"));
        command.args(["-c", script, "sh"]);
        command.arg(private.binaries.join("postgres"));
        command.arg("-D").arg(folder.join("data"));
        command
            .arg("-k")
            .arg(folder)
            .arg("-p")
            .arg(port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        // Nothing here must outlive a crash of the machine.
        command.args(["-c", "fsync=off", "-c", "shared_buffers=32MB"]);
        command.args(["-c", "max_connections=200"]);
        for setting in &private.settings {
            command.arg("-c").arg(setting);
        }
        let child = command
            .current_dir("/")
            .env(
                "REMOVE",
                if private.outlives {
                    folder
                } else {
                    Path::new("")
                },
            )
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("a shell can be started");
        Self(child)
    }

    /// After its end was brought about.
    fn wait(mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.wait();
        }
    }
}

fn rows(messages: &[SimpleQueryMessage]) -> String {
    let lines = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|index| row.get(index).unwrap_or("NULL"));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The folder of `initdb` and `postgres`: the newest of Debian's, else the one
/// of the search path.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .max();
    if let Some((_, folder)) = newest {
        return folder;
    }
    let output = Command::new("pg_config").arg("--bindir").output();
    let folder = output
        .ok()
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
        .filter(|folder| folder.join("initdb").exists());
    folder.expect("PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)")
}

/// The server refuses to run as root: then as `postgres`, else as nobody.
fn as_postgres(program: &Path) -> Command {
    if !process::is_root() {
        return Command::new(program);
    }
    let (user, group) = unprivileged();
    let mut command = Command::new("setpriv");
    command.args([
        format!("--reuid={user}"),
        format!("--regid={group}"),
        "--clear-groups".to_owned(),
    ]);
    command.arg(program);
    command
}

/// User and group id.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let ids = line.and_then(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.unwrap_or((65534, 65534))
}

fn give_away(path: &Path) {
    if process::is_root() {
        let (user, group) = unprivileged();
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may do that");
    }
}

/// Appends a line to a file of the cluster, such as `data/pg_hba.conf`.
pub(crate) fn append(path: &Path, line: &str) {
    let file = fs::OpenOptions::new().append(true).open(path);
    writeln!(file.expect("the file is there"), "{line}").expect("the file is ours");
}

#[test]
fn a_cluster_starts_is_killed_and_starts_again() {
    let mut cluster = Cluster::private(&[]);
    let database = cluster.database("kill");
    cluster.sql(
        &database,
        "create table t (x int); insert into t values (7)",
    );
    cluster.kill();
    assert!(cluster.try_sql(&database, "select 1").is_err());
    cluster.start();
    assert_eq!(cluster.sql(&database, "select x, null from t"), "7|NULL");
}
