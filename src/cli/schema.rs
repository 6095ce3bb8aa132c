//! `outrigger schema`: JSON Schemas for editors.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::exit;
use crate::config::schema;

/// Print the JSON Schema of a file
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which file
    #[arg(value_enum, default_value_t = Which::Service)]
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// service.config.{json,yaml,yml}
    Service,
    /// config/outrigger.yaml
    Process,
}

/// Runs the subcommand.
pub(crate) fn run(args: &SchemaArgs) -> ExitCode {
    let text = match args.which {
        Which::Service => schema::text(&schema::service()),
        Which::Process => schema::text(&schema::process()),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::INTERNAL),
    }
}
