//! `outrigger check`: reads everything as `run` would, and starts nothing.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::check_tls;
use super::table::Table;
use super::{ProcessArgs, exit, print_problems};
use crate::config::{
    Compilation, Compiled, Compiler, Environment, Invalid, LocalService, Problem, ProcessFlags,
    Severity, Tree, load_process,
};
use crate::control;
use crate::model::{
    AuthPolicy, DatabaseIsolation, DatabaseSpec, Origin, Requirement, ServiceSpec, Strategy,
};

/// Check the configuration and show what it means
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// Warnings fail too
    #[arg(long)]
    strict: bool,
    /// Count references as present, whether they are or not
    #[arg(long)]
    no_secrets: bool,
}

/// Runs the subcommand: 0 when `run` would start, else 64.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let flags = ProcessFlags {
        no_secrets: args.no_secrets,
        ..args.process.flags()
    };
    let checked = match check(&flags, &Environment::capture()) {
        Ok(checked) => checked,
        Err(problems) => {
            print_problems(&problems);
            return ExitCode::from(exit::USAGE);
        }
    };
    // A closed pipe is no fault of the configuration.
    let _ = io::stdout().write_all(checked.text.as_bytes());
    print_problems(&checked.problems);
    if checked.fails(args.strict) {
        ExitCode::from(exit::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// What a check found.
pub(super) struct Checked {
    /// For standard output.
    pub(super) text: String,
    pub(super) problems: Vec<Problem>,
}

impl Checked {
    fn fails(&self, strict: bool) -> bool {
        strict && !self.problems.is_empty() || self.problems.iter().any(Problem::is_error)
    }
}

/// Reads and compiles everything.
pub(super) fn check(
    flags: &ProcessFlags,
    environment: &Environment,
) -> Result<Checked, Vec<Problem>> {
    let process = load_process(flags, environment)?;
    let settings = std::sync::Arc::clone(&process.settings);
    let file = std::sync::Arc::clone(&process.file.path);
    let mut problems = process.warnings.clone();
    let mut notes: Vec<String> = process.notes.clone();
    let tree = control::discover(&settings.services_dir);
    let compilation = Compiler::new(process, environment.clone()).compile(&tree);
    problems.extend(compilation.problems.iter().cloned());
    if !flags.no_secrets {
        problems.extend(check_tls::problems(&compilation, &tree));
        problems.extend(check_tls::process_problems(&settings, &file));
    }
    if tree.files.is_empty() {
        problems.push(nothing_found(&tree));
    }
    if settings.disabled {
        notes.push("MICROSERVICES=false: no service is fronted".to_owned());
    }
    notes.extend(
        compilation
            .notes
            .iter()
            .map(|(name, note)| format!("{name}: {note}")),
    );
    Ok(Checked {
        text: describe(&compilation, &notes, &problems),
        problems,
    })
}

/// The tree holds no service: what one looks like, and what is there instead.
fn nothing_found(tree: &Tree) -> Problem {
    let problem = Problem::warning(Origin::file(&tree.root), "no service found");
    let is_told = tree.problems.iter().any(Problem::is_error);
    let mut left = MAX_ENTRIES;
    match (is_told, stray(&tree.root, 3, &mut left)) {
        (true, _) => problem,
        (false, None) => problem.hint(Tree::LAYOUT),
        (false, Some(path)) => {
            let shown = path.strip_prefix(&tree.root).unwrap_or(&path).display();
            problem.hint(format!("{}; `{shown}` is none of them", Tree::LAYOUT))
        }
    }
}

/// Names looked at on the way to a stray file.
const MAX_ENTRIES: usize = 1000;

/// The first file, in order of name, that may be meant as a service's.
fn stray(folder: &Path, levels: usize, left: &mut usize) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut paths: Vec<PathBuf> = entries.take(*left).map(|entry| entry.path()).collect();
    *left -= paths.len();
    paths.sort();
    let is_meant = |path: &&PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml" | "toml")) && path.is_file()
    };
    let found = paths.iter().find(is_meant).cloned();
    found.or_else(|| {
        let mut folders = paths.iter().filter(|path| levels > 0 && path.is_dir());
        folders.find_map(|path| stray(path, levels - 1, left))
    })
}

fn describe(compilation: &Compilation, notes: &[String], problems: &[Problem]) -> String {
    let mut table = Table::new(["SERVICE", "PORT", "APP", "AUTH", "TRACING", "DATABASE"]);
    let mut open = Vec::new();
    for (name, compiled) in &compilation.services {
        match compiled {
            Compiled::Local(LocalService { spec: Ok(spec), .. }) => {
                table.row(local_row(spec));
                if is_open(&spec.auth) {
                    open.push(name.key());
                }
            }
            Compiled::Local(LocalService {
                spec: Err(invalid), ..
            }) => {
                table.row(invalid_row(name.key(), invalid));
            }
            Compiled::Peer(peer) => {
                let addresses: Vec<String> =
                    peer.addresses.iter().map(ToString::to_string).collect();
                let place = if addresses.is_empty() {
                    "unknown address".to_owned()
                } else {
                    addresses.join(", ")
                };
                let auth = peer.auth.as_ref().map_or("-".to_owned(), auth_text);
                table.row([
                    name.key().to_owned(),
                    peer.port.map_or("-".to_owned(), |port| port.to_string()),
                    format!("peer at {place}"),
                    auth,
                    "-".to_owned(),
                    "-".to_owned(),
                ]);
            }
        }
    }
    let mut text = table.to_string();
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !open.is_empty() {
        let _ = writeln!(text, "without authentication: {}", open.join(", "));
    }
    let count = |severity| {
        let found = problems.iter().filter(|one| one.severity == severity);
        found.count()
    };
    let _ = writeln!(
        text,
        "{}, {}, {}",
        counted(compilation.services.len(), "service"),
        counted(count(Severity::Error), "error"),
        counted(count(Severity::Warning), "warning"),
    );
    text
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn local_row(spec: &ServiceSpec) -> [String; 6] {
    [
        spec.name.key().to_owned(),
        spec.port.to_string(),
        spec.upstream.target.to_string(),
        auth_text(&spec.auth),
        spec.tracing.as_ref().map_or("off".to_owned(), |tracing| {
            format!("{}%", tracing.sampling_rate * 100.0)
        }),
        spec.database.as_ref().map_or("-".to_owned(), database_text),
    ]
}

fn invalid_row(name: &str, invalid: &Invalid) -> [String; 6] {
    let port = invalid.port.map_or("-".to_owned(), |port| port.to_string());
    let dash = || "-".to_owned();
    [
        name.to_owned(),
        port,
        "has errors".to_owned(),
        dash(),
        dash(),
        dash(),
    ]
}

/// Where the database is, without who logs in.
fn database_text(database: &DatabaseSpec) -> String {
    match database.isolation {
        DatabaseIsolation::Shared => {
            format!("shared {}.{}", database.database, database.schema)
        }
        DatabaseIsolation::Isolated => format!("isolated {}", database.database),
    }
}

/// The strategies and how many rules differ from them.
fn auth_text(policy: &AuthPolicy) -> String {
    let names = |list: &[Strategy], between: &str| {
        let names: Vec<&str> = list.iter().map(|one| one.as_str()).collect();
        names.join(between)
    };
    let mut text = match &policy.requirement {
        Requirement::None if policy.explicit => "none".to_owned(),
        Requirement::None => "none (not stated)".to_owned(),
        Requirement::AnyOf(list) => names(list, " | "),
        Requirement::AllOf(list) => names(list, " + "),
    };
    if !policy.rules.is_empty() {
        let _ = write!(text, ", {}", counted(policy.rules.len(), "rule"));
    }
    text
}

fn is_open(policy: &AuthPolicy) -> bool {
    policy.requirement == Requirement::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Checked {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        let flags = ProcessFlags {
            services: Some(folder.path().to_path_buf()),
            ..ProcessFlags::default()
        };
        let environment = Environment::from_pairs(environment.iter().copied());
        check(&flags, &environment).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn a_table_of_every_service() {
        let checked = checked(
            &[
                (
                    "shop/cart/service.config.yaml",
                    "port: 3001\nauth: api-key\ndependencies: [pay]\n",
                ),
                (
                    "shop/pay/service.config.yaml",
                    "port: 3002\nupstream: unix:/run/pay\nauth: none\ndatabase: {isolation: isolated}\n",
                ),
                ("shop/ads/service.config.yaml", "port: 3003\nauth: jvt\n"),
            ],
            &[
                ("SERVICE_API_KEY", "0123456789abcdef0123456789"),
                ("DATABASE_URL", "postgres://a:b@localhost/base"),
            ],
        );
        insta::assert_snapshot!(checked.text, @r"
        SERVICE    PORT  APP              AUTH     TRACING  DATABASE
        shop/ads   3003  has errors       -        -        -
        shop/cart  3001  127.0.0.1:13001  api-key  off      -
        shop/pay   3002  unix:/run/pay    none     off      isolated base_pay
        without authentication: shop/pay
        3 services, 1 error, 0 warnings
        ");
        assert!(checked.fails(false));
    }

    #[test]
    fn warnings_fail_only_when_asked_to() {
        let checked = checked(&[("shop/cart/service.config.yaml", "port: 3001\n")], &[]);
        assert!(!checked.fails(false));
        assert!(checked.fails(true));
    }
}
