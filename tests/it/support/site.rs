//! Services of a domain of their own in a real PostgreSQL, so that many tests
//! can share one cluster.

use std::process::Command;

use super::daemon::{BINARY, Daemon, Setup, run_to_end};
use super::postgres::Cluster;
use super::tree::Tree;

/// Roles' passwords are derived from it.
pub(crate) const ROLE_SECRET: &str = "a role secret of more than thirty-two bytes";

/// A tree, the database it begins from, and who logs in.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) tree: Tree,
    /// `POSTGRES_DB`.
    pub(crate) base: String,
    user: String,
    password: String,
}

impl<'a> Site<'a> {
    /// With an empty database of its own; the login is the superuser's.
    pub(crate) fn new(cluster: &'a Cluster, stem: &str) -> Self {
        let base = cluster.database(stem);
        let tree = Tree::new();
        let settings = format!("database: {{roleSecret: \"{ROLE_SECRET}\"}}\n");
        tree.put("config/outrigger.yaml", settings);
        Self {
            cluster,
            tree,
            base,
            user: cluster.user.clone(),
            password: cluster.password.clone(),
        }
    }

    /// Somebody else logs in.
    pub(crate) fn log_in_as(&mut self, user: &str, password: &str) {
        user.clone_into(&mut self.user);
        password.clone_into(&mut self.password);
    }

    /// The domain: what names of the cluster begin with.
    pub(crate) fn domain(&self) -> String {
        self.base.replace('_', "-")
    }

    /// Role and schema of a service that shares the base database.
    pub(crate) fn role(&self, service: &str) -> String {
        format!("{}_{service}", self.base)
    }

    /// Writes a service with these keys of `database`.
    pub(crate) fn service(&self, name: &str, database: &str) {
        // Nobody listens there; a service that is not the only local one needs it.
        let port = 3001 + name.bytes().fold(0, |sum: u16, byte| sum + u16::from(byte));
        let text = format!("port: {port}\nauth: none\ndatabase: {{{database}}}\n");
        self.tree.write(&format!("{}/{name}", self.domain()), text);
    }

    /// Writes a migration of a service.
    pub(crate) fn migration(&self, service: &str, name: &str, sql: &str) {
        let path = format!("services/{}/{service}/migrations/{name}", self.domain());
        self.tree.put(&path, sql);
    }

    /// Removes one.
    pub(crate) fn remove_migration(&self, service: &str, name: &str) {
        let folder = self.tree.folder(&format!("{}/{service}", self.domain()));
        std::fs::remove_file(folder.join("migrations").join(name)).expect("it is there");
    }

    pub(crate) fn environment(&self) -> [(&str, String); 5] {
        let Cluster { host, port, .. } = self.cluster;
        [
            ("POSTGRES_HOST", host.clone()),
            ("POSTGRES_PORT", port.to_string()),
            ("POSTGRES_DB", self.base.clone()),
            ("POSTGRES_USER", self.user.clone()),
            ("POSTGRES_PASSWORD", self.password.clone()),
        ]
    }

    /// Runs a subcommand to its end: exit code and everything printed.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> (i32, String) {
        self.run_with(words, &[])
    }

    /// The same with more variables.
    #[track_caller]
    pub(crate) fn run_with(&self, words: &[&str], more: &[(&str, &str)]) -> (i32, String) {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(more.iter().copied())
            .collect();
        run_to_end(self.tree.root(), words, &environment)
    }

    /// The same, which must succeed.
    #[track_caller]
    pub(crate) fn must(&self, words: &[&str]) -> String {
        let (code, output) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {output}");
        output
    }

    /// A daemon of the tree, not started yet.
    pub(crate) fn setup(&self) -> Setup {
        self.setup_of(&self.tree)
    }

    /// The same with another tree and the same database.
    pub(crate) fn setup_of(&self, tree: &Tree) -> Setup {
        let settings = format!("database: {{roleSecret: \"{ROLE_SECRET}\"}}");
        let setup = Setup::new(tree).process(&settings);
        let environment = self.environment();
        let environment = environment.iter();
        environment.fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    /// Starts a subcommand.
    pub(crate) fn spawn(&self, words: &[&str]) -> Daemon {
        let mut command = Command::new(BINARY);
        command
            .args(words)
            .current_dir(self.tree.root())
            .env_clear()
            .envs(self.environment());
        Daemon::spawn(command, 0, 0)
    }

    /// What `db url` prints for a service.
    #[track_caller]
    pub(crate) fn login(&self, service: &str) -> tokio_postgres::Config {
        let url = self.must(&["db", "url", service]);
        url.trim().parse().expect("a URL that drivers take")
    }

    /// Runs SQL as a service's own role in its own database.
    pub(crate) fn sql_as(&self, service: &str, sql: &str) -> Result<String, String> {
        let login = self.login(service);
        let database = login.get_dbname().expect("the URL names it").to_owned();
        self.sql_of(&login, &database, sql)
    }

    /// Runs SQL as a login in any database.
    pub(crate) fn sql_of(
        &self,
        login: &tokio_postgres::Config,
        database: &str,
        sql: &str,
    ) -> Result<String, String> {
        let user = login.get_user().expect("the URL names it");
        let password = String::from_utf8_lossy(login.get_password().unwrap_or_default());
        self.cluster.sql_as(user, &password, database, sql)
    }

    /// Runs SQL as the superuser in the base database.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.base, sql)
    }
}
