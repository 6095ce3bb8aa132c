//! `outrigger demo`.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::exit;
use super::run::{finish, start_failed};
use crate::app::{self, Options};
use crate::config::Environment;
use crate::demo::{Demo, DemoError, MAX_PORT_OFFSET};

/// Three small apps behind their sidecars.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Added to every port, where 3001 to 3003 are taken
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_PORT_OFFSET)))]
    port_offset: u16,
}

/// Runs until SIGTERM or SIGINT, then removes what it made.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    let demo = match Demo::prepare(&Environment::capture(), args.port_offset) {
        Ok(demo) => demo,
        Err(error) => return cannot_start(&error),
    };
    let bound = match app::build(Options {
        flags: demo.flags(),
        environment: demo.environment(),
        command: Vec::new(),
    }) {
        Ok(bound) => bound,
        Err(error) => return ExitCode::from(start_failed(&error)),
    };
    // Without a reader the demo still runs.
    let _ = io::stdout().write_all(demo.instructions().as_bytes());
    ExitCode::from(finish(bound))
}

#[expect(clippy::print_stderr, reason = "a command talks to a person")]
fn cannot_start(error: &DemoError) -> ExitCode {
    eprintln!("outrigger demo: {error}");
    if let Some(source) = error.source() {
        eprintln!("  {source}");
    }
    match error {
        DemoError::PortInUse { .. } => {
            eprintln!("  hint: free it, or shift every port with --port-offset 100");
            ExitCode::from(exit::USAGE)
        }
        DemoError::Port { .. } | DemoError::Folder(_) | DemoError::Apps(_) => {
            ExitCode::from(exit::UNAVAILABLE)
        }
        DemoError::Random | DemoError::Token(_) => ExitCode::from(exit::INTERNAL),
    }
}
