//! `outrigger run`.

use std::error::Error;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{ProcessArgs, exit, print_problems};
use crate::app::{self, Ended, Options, StartError};
use crate::config::Environment;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: &ProcessArgs) -> ExitCode {
    let options = Options {
        flags: args.flags(),
        environment: Environment::capture(),
    };
    let bound = match app::build(options) {
        Ok(bound) => bound,
        Err(error) => return start_failed(&error),
    };
    match bound.run(stop_signal) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::WorkerGone) => ExitCode::from(exit::INTERNAL),
        Err(error) => start_failed(&error),
    }
}

/// Resolves at the next SIGTERM or SIGINT.
pub(crate) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Says why, and with which code to leave.
#[expect(clippy::print_stderr, reason = "a command talks to a person")]
pub(crate) fn start_failed(error: &StartError) -> ExitCode {
    match error {
        StartError::Config(problems) => print_problems(problems),
        StartError::Door { .. } | StartError::Runtime(_) | StartError::Log(_) => {
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
        }
    }
    ExitCode::from(match error {
        StartError::Config(_) | StartError::Door { .. } => exit::USAGE,
        StartError::Log(_) => exit::UNAVAILABLE,
        StartError::Runtime(_) => exit::INTERNAL,
    })
}
