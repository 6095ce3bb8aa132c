//! `outrigger run`.

use std::error::Error;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use super::{ProcessArgs, exit, print_problems};
use crate::app::{self, Bound, Ended, Options, StartError};
use crate::config::Environment;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: &ProcessArgs) -> ExitCode {
    ExitCode::from(serve(args, Vec::new()))
}

/// Serves, beside a command if one is given; gives the code to leave with.
pub(super) fn serve(args: &ProcessArgs, command: Vec<OsString>) -> u8 {
    let options = Options {
        flags: args.flags(),
        environment: Environment::capture(),
        command,
    };
    match app::build(options) {
        Ok(bound) => finish(bound),
        Err(error) => start_failed(&error),
    }
}

/// Serves what is bound to its end.
pub(super) fn finish(bound: Bound) -> u8 {
    match bound.run() {
        Ok(Ended::Drained) => 0,
        Ok(Ended::Command(code)) => code,
        Ok(Ended::WorkerGone) => exit::INTERNAL,
        Err(error) => start_failed(&error),
    }
}

/// What to do about a door that cannot be opened.
fn door_hint(door: &str, kind: ErrorKind) -> String {
    let variable = door.replace('.', "_").to_ascii_uppercase();
    let set = format!("set `{door}` in the process file, or OUTRIGGER_{variable}");
    match kind {
        ErrorKind::AddrInUse => {
            format!("another process has it, perhaps another sidecar: {set}; `off` closes the door")
        }
        ErrorKind::AddrNotAvailable => format!("this machine has no such address: {set}"),
        ErrorKind::PermissionDenied => format!("ports below 1024 need a privilege: {set}"),
        _ => set,
    }
}

/// Says why, and with which code to leave.
#[expect(clippy::print_stderr, reason = "a command talks to a person")]
pub(super) fn start_failed(error: &StartError) -> u8 {
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
            if let StartError::Door { door, source, .. } = error {
                eprintln!("hint: {}", door_hint(door, source.kind()));
            }
        }
    }
    match error {
        StartError::Config(_) | StartError::Door { .. } => exit::USAGE,
        StartError::Log(_) => exit::UNAVAILABLE,
        StartError::Runtime(_) => exit::INTERNAL,
    }
}
