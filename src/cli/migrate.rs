//! `outrigger migrate`: roles, schemas and migrations without serving.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::databases::{self, Service, by_hand, complain};
use super::table::Table;
use super::{ProcessArgs, exit};
use crate::drain::DrainWatcher;
use crate::pg::{ByHandError, Resolution};

/// Databases of local services: roles, schemas, migrations
///
/// Leaves with 65 when a migration failed or something is refused, with 69 when
/// the server or its login is not to be had.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what is applied and what is not; change nothing
    Status(ProcessArgs),
    /// Provision where asked for, then run what has not been run
    Up(ProcessArgs),
    /// Make role, schema and database; needs a login that may create roles
    Provision(ProcessArgs),
    /// Count every file up to a version as applied: another tool has run them
    Baseline(BaselineArgs),
    /// Decide about a migration that broke off outside a transaction
    Resolve(ResolveArgs),
}

#[derive(Debug, Args)]
struct BaselineArgs {
    /// The last version that is there already
    version: i64,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Debug, Args)]
struct ResolveArgs {
    /// The version that broke off
    version: i64,
    /// What was missing has been done by hand
    #[arg(long, conflicts_with = "retry", required_unless_present = "retry")]
    applied: bool,
    /// What was left has been removed: run it again
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs the subcommand.
pub(crate) fn run(args: &MigrateArgs) -> ExitCode {
    let process = match &args.action {
        Action::Status(process) | Action::Up(process) | Action::Provision(process) => process,
        Action::Baseline(args) => &args.process,
        Action::Resolve(args) => &args.process,
    };
    let services = match databases::find(process) {
        Ok(services) => services,
        Err(code) => return ExitCode::from(code),
    };
    let is_for_one = matches!(args.action, Action::Baseline(_) | Action::Resolve(_));
    if is_for_one && services.len() > 1 {
        complain("several services have a database: name one with --service");
        return ExitCode::from(exit::USAGE);
    }
    let code = databases::work(&services, |drain, index| {
        act(&args.action, &services, index, drain)
    });
    ExitCode::from(code)
}

async fn act(
    action: &Action,
    services: &[Service],
    index: usize,
    drain: DrainWatcher,
) -> Result<(), ByHandError> {
    let Some(service) = services.get(index) else {
        return Ok(());
    };
    let say = |line: &str| tell(&format!("{}: {line}", service.name()));
    let Some(hand) = by_hand(service, drain, &say) else {
        return Ok(());
    };
    match action {
        Action::Up(_) => hand.up().await,
        Action::Provision(_) => hand.provision().await,
        Action::Baseline(args) => hand.baseline(args.version).await,
        Action::Resolve(args) => {
            let how = if args.applied {
                Resolution::Applied
            } else {
                Resolution::Retry
            };
            hand.resolve(args.version, how).await
        }
        Action::Status(_) => {
            let lines = hand.status().await?;
            let problems = lines.iter().filter(|line| line.is_problem).count();
            let mut table = Table::new(["VERSION", "FILE", "STATE"]);
            for line in lines {
                table.row([line.version.to_string(), line.name, line.state]);
            }
            tell(&format!("{}\n{table}", service.name()));
            match problems {
                0 => Ok(()),
                _ => Err(ByHandError::Failed(
                    "migrations that keep the service from being ready".to_owned(),
                )),
            }
        }
    }
}

fn tell(text: &str) {
    // A closed pipe is no fault of the database.
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}
