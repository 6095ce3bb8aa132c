//! `outrigger db`: how to get into a service's database.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::databases::{self, Service, by_hand, complain};
use super::{ProcessArgs, exit};
use crate::drain::DrainWatcher;
use crate::pg::{self, ByHandError};

/// The database of a service
#[derive(Debug, Args)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a URL for ordinary drivers, with the service's own role and password
    Url(UrlArgs),
}

#[derive(Debug, Args)]
struct UrlArgs {
    /// Name, or domain/name
    #[arg(value_name = "SERVICE")]
    wanted: String,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs the subcommand: 69 when the role is not there yet.
pub(crate) fn run(args: &DbArgs) -> ExitCode {
    let Action::Url(args) = &args.action;
    let services = match databases::find(&args.process) {
        Ok(services) => services,
        Err(code) => return ExitCode::from(code),
    };
    let is_wanted = |service: &Service| {
        let name = service.name();
        name.key() == args.wanted || name.name() == args.wanted
    };
    let found: Vec<Service> = services.into_iter().filter(is_wanted).collect();
    if found.len() != 1 {
        complain(&format!(
            "{} local services with a database are called `{}`; use domain/name",
            found.len(),
            args.wanted
        ));
        return ExitCode::from(exit::USAGE);
    }
    ExitCode::from(databases::work(&found, |drain, index| {
        print(&found, index, drain)
    }))
}

async fn print(found: &[Service], index: usize, drain: DrainWatcher) -> Result<(), ByHandError> {
    let Some(service) = found.get(index) else {
        return Ok(());
    };
    if let (Some(hand), Some(spec)) = (by_hand(service, drain, &|_| {}), service.database()) {
        let login = hand.login().await?;
        // A closed pipe is no fault of the database.
        let _ = writeln!(io::stdout(), "{}", pg::url(spec, &login));
    }
    Ok(())
}
