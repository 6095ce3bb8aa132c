//! `outrigger exec`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use super::{ProcessArgs, run};

/// Serve beside a command, and end with it
///
/// For Jobs and laptops: waits until everything is ready, runs the command with
/// PORT, SERVICE_PORT, DATABASE_URL and {DEPENDENCY}_URL set and the sidecar's secrets
/// cleared, hands signals on, drains when it ends, and leaves with its code.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the subcommand; 127 when there is no such command.
pub(crate) fn run(args: &ExecArgs) -> ExitCode {
    ExitCode::from(run::serve(&args.process, args.command.clone()))
}
