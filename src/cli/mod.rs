//! One file per subcommand.

mod check;
mod check_tls;
mod databases;
mod db;
mod demo;
mod exec;
mod explain;
#[cfg(test)]
mod fault_tests;
mod health;
mod key;
mod migrate;
mod run;
mod schema;
mod table;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Problem, ProcessFlags, Severity};

/// Exit codes (SPEC §11, `sysexits.h`).
pub(crate) mod exit {
    /// Bad configuration or usage.
    pub(crate) const USAGE: u8 = 64;
    /// Something needed is not there.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// A fault of ours.
    pub(crate) const INTERNAL: u8 = 70;
}

/// A small sidecar proxy: authentication, tracing, health, calls by name and a
/// Postgres pool for the service beside it.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: front the local services of the tree until told to stop
    Run(ProcessArgs),
    Exec(exec::ExecArgs),
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Health(health::HealthArgs),
    Schema(schema::SchemaArgs),
    /// Try it: three small apps behind their sidecars, with commands to paste
    Demo(demo::DemoArgs),
    Migrate(migrate::MigrateArgs),
    Db(db::DbArgs),
    /// API keys
    Key(key::KeyArgs),
    /// Tokens for services that check them with a secret
    Token(token::TokenArgs),
}

/// Where the configuration is and which part of it counts.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProcessArgs {
    /// Process settings [default: config/outrigger.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The services tree [default: services, else src/services]
    #[arg(long, value_name = "DIR")]
    services: Option<PathBuf>,
    /// A local service; may be repeated [default: all are local]
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Added to every public port
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ProcessArgs {
    pub(crate) fn flags(&self) -> ProcessFlags {
        ProcessFlags {
            config: self.config.clone(),
            services: self.services.clone(),
            service: self.service.clone(),
            port_offset: self.port_offset,
            log_level: self.log_level.clone(),
            no_secrets: false,
        }
    }
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command }) => match command {
            Command::Run(args) => run::run(&args),
            Command::Exec(args) => exec::run(&args),
            Command::Health(args) => health::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Schema(args) => schema::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Migrate(args) => migrate::run(&args),
            Command::Db(args) => db::run(&args),
            Command::Key(args) => key::run(&args),
            Command::Token(args) => token::run(&args),
        },
        Err(error) => {
            // Help and version are no errors; everything else is bad usage.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            // Nobody reads it: nothing to be done.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

/// Prints problems to standard error, and how many there are.
#[expect(clippy::print_stderr, reason = "a command talks to a person")]
pub(crate) fn print_problems(problems: &[Problem]) {
    for problem in problems {
        let word = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        eprintln!("{word}: {problem}");
    }
}
