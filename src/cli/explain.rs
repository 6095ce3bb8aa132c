//! `outrigger explain`: every value of a service and where it came from.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::table::Table;
use super::{ProcessArgs, exit, print_problems};
use crate::config::{
    Compilation, Compiled, Compiler, Environment, LocalService, Problem, ProcessFlags,
    load_process, variables,
};
use crate::control;
use crate::model::{Origin, PeerSpec, ServiceName};

/// Show every value of a service and where it came from
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Name, or domain/name
    #[arg(value_name = "SERVICE")]
    wanted: String,
    /// Show the environment variables that count, too
    #[arg(long)]
    env: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs the subcommand: 64 when there is no such service or it has errors.
pub(crate) fn run(args: &ExplainArgs) -> ExitCode {
    let environment = Environment::capture();
    match explain(&args.wanted, args.env, &args.process.flags(), &environment) {
        Ok((text, problems)) => {
            // A closed pipe is no fault of the configuration.
            let _ = io::stdout().write_all(text.as_bytes());
            print_problems(&problems);
            if problems.iter().any(Problem::is_error) {
                ExitCode::from(exit::USAGE)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(problems) => {
            print_problems(&problems);
            ExitCode::from(exit::USAGE)
        }
    }
}

/// The text, and the problems of the service.
fn explain(
    wanted: &str,
    with_environment: bool,
    flags: &ProcessFlags,
    environment: &Environment,
) -> Result<(String, Vec<Problem>), Vec<Problem>> {
    let process = load_process(flags, environment)?;
    let tree = control::discover(&process.settings.services_dir);
    let compilation = Compiler::new(process, environment.clone()).compile(&tree);
    let name = find(wanted, &compilation).map_err(|problem| vec![*problem])?;
    let mut table = Table::new(["KEY", "VALUE", "FROM"]);
    match compilation.services.get(&name) {
        Some(Compiled::Local(LocalService { effective, .. })) => {
            for value in effective.iter() {
                table.row([
                    value.key.clone(),
                    one_line(&value.value),
                    value.origin.clone(),
                ]);
            }
        }
        Some(Compiled::Peer(peer)) => peer_rows(peer, &mut table),
        None => {}
    }
    let mut text = format!("{name}\n{table}");
    if with_environment {
        let mut table = Table::new(["VARIABLE", "VALUE"]);
        for (variable, value) in variables(environment) {
            table.row([variable, value]);
        }
        text.push('\n');
        text.push_str(&table.to_string());
    }
    let problems = compilation
        .problems
        .into_iter()
        .filter(|problem| problem.service.as_ref().is_none_or(|of| *of == name))
        .collect();
    Ok((text, problems))
}

fn find(wanted: &str, compilation: &Compilation) -> Result<ServiceName, Box<Problem>> {
    let found: Vec<&ServiceName> = compilation
        .services
        .keys()
        .filter(|name| name.key() == wanted || name.name() == wanted)
        .collect();
    let names = |names: &[&ServiceName]| {
        let names: Vec<&str> = names.iter().map(|name| name.key()).take(20).collect();
        names.join(", ")
    };
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let all: Vec<&ServiceName> = compilation.services.keys().collect();
            Err(Box::new(
                Problem::error(Origin::default(), format!("no service `{wanted}`"))
                    .hint(format!("there are: {}", names(&all))),
            ))
        }
        several => Err(Box::new(
            Problem::error(
                Origin::default(),
                format!("several services are called `{wanted}`"),
            )
            .hint(format!("one of: {}", names(several))),
        )),
    }
}

fn peer_rows(peer: &PeerSpec, table: &mut Table<3>) {
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let mut row = |key: &str, value: String| {
        table.row([key.to_owned(), value, "fronted elsewhere".to_owned()]);
    };
    row("address", addresses.join(", "));
    if let Some(port) = peer.port {
        row("port", port.to_string());
    }
    if let Some(version) = &peer.version {
        row("version", version.to_string());
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_origins_and_secrets_are_masked() {
        let folder = tempfile::tempdir().expect("folder");
        let service = folder.path().join("shop/cart");
        std::fs::create_dir_all(&service).expect("folder");
        std::fs::write(service.join("token"), "swordfish-swordfish\n").expect("file");
        std::fs::write(
            service.join("service.config.yaml"),
            "port: 3001\ndescription: ${env:ABOUT}\nupstream: 8080\nauth:\n  appToken:\n    \
             header: x-app\n    value: ${file:token}\n",
        )
        .expect("file");
        let flags = ProcessFlags {
            services: Some(folder.path().to_path_buf()),
            ..ProcessFlags::default()
        };
        let key = "tunafish-tunafish-tunafish";
        let environment = Environment::from_pairs([
            ("ABOUT", "herring"),
            ("SERVICE_AUTH_STRATEGY", "api-key"),
            ("SERVICE_API_KEY", key),
            ("SERVICE_HEALTH_CHECK_INTERVAL", "1500"),
            ("OUTRIGGER_ADMIN_TOKEN", "mackerel-mackerel"),
        ]);
        let (text, problems) = explain("cart", true, &flags, &environment).expect("explained");
        assert_eq!(problems, []);
        for secret in ["swordfish", "herring", "tunafish", "mackerel"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
        let line = |key: &str| {
            let found = text
                .lines()
                .find(|line| line.split(' ').next() == Some(key));
            let words: Vec<&str> = found.unwrap_or(key).split_whitespace().collect();
            words.join(" ")
        };
        let file = service.join("service.config.yaml");
        let file = file.display();
        assert_eq!(line("port"), format!("port 3001 {file}:1:1"));
        assert_eq!(
            line("upstream.url"),
            format!("upstream.url 127.0.0.1:8080 {file}:3:1")
        );
        assert_eq!(
            line("auth.strategy"),
            "auth.strategy api-key env SERVICE_AUTH_STRATEGY"
        );
        assert_eq!(
            line("healthCheck.interval"),
            "healthCheck.interval 1500ms env SERVICE_HEALTH_CHECK_INTERVAL"
        );
        assert_eq!(
            line("health.degradedStatus"),
            "health.degradedStatus 202 default"
        );
        assert_eq!(line("OUTRIGGER_ADMIN_TOKEN"), "OUTRIGGER_ADMIN_TOKEN ***");
    }
}
