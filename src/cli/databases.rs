//! The databases of local services, for subcommands that work on them.

use std::io;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::{ProcessArgs, exit, print_problems};
use crate::config::{Compiled, Compiler, Environment, LocalService, Problem, load_process};
use crate::control;
use crate::drain::{self, DrainWatcher, Phase};
use crate::model::{DatabaseSpec, ServiceName, ServiceSpec};
use crate::pg::{ByHand, ByHandError};

/// A failed migration, a refused file, somebody else's schema.
const DATA: u8 = 65;

/// A local service with a database.
pub(super) struct Service {
    spec: Arc<ServiceSpec>,
}

impl Service {
    pub(super) fn name(&self) -> &ServiceName {
        &self.spec.name
    }

    pub(super) fn database(&self) -> Option<&DatabaseSpec> {
        self.spec.database.as_ref()
    }
}

/// Every local service with a database, sorted by name.
///
/// # Errors
/// The code to leave with, after saying why.
pub(super) fn find(args: &ProcessArgs) -> Result<Vec<Service>, u8> {
    let environment = Environment::capture();
    let process = load_process(&args.flags(), &environment).map_err(|problems| {
        print_problems(&problems);
        exit::USAGE
    })?;
    let tree = control::discover(&process.settings.services_dir);
    let compilation = Compiler::new(process, environment).compile(&tree);
    let errors: Vec<Problem> = compilation
        .problems
        .iter()
        .filter(|problem| problem.is_error())
        .cloned()
        .collect();
    print_problems(&errors);
    let services = compilation.services.into_values();
    let specs = services.filter_map(|compiled| match compiled {
        Compiled::Local(LocalService { spec: Ok(spec), .. }) => Some(spec),
        Compiled::Local(_) | Compiled::Peer(_) => None,
    });
    let with_database = specs.filter(|spec| spec.database.is_some());
    let found: Vec<Service> = with_database.map(|spec| Service { spec }).collect();
    if !errors.is_empty() {
        return Err(exit::USAGE);
    }
    if found.is_empty() {
        complain("no local service has a database");
        return Err(exit::USAGE);
    }
    Ok(found)
}

/// Runs work that a signal cancels, in order; gives the code to leave with.
pub(super) fn work<F>(services: &[Service], task: impl Fn(DrainWatcher, usize) -> F) -> u8
where
    F: Future<Output = Result<(), ByHandError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("a runtime cannot be made: {error}"));
            return exit::INTERNAL;
        }
    };
    runtime.block_on(async {
        let (trigger, watcher) = drain::channel();
        let (Ok(mut terminate), Ok(mut interrupt)) = (listen(Signal::TERM), listen(Signal::INT))
        else {
            complain("signals cannot be listened to");
            return exit::INTERNAL;
        };
        let stopping = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            trigger.advance(Phase::Announced);
            std::future::pending::<()>().await;
        };
        let working = async {
            let mut code = 0;
            for (index, service) in services.iter().enumerate() {
                let result = task(watcher.clone(), index).await;
                if let Err(error) = result {
                    complain(&format!("{}: {error}", service.name()));
                    let own = match error {
                        ByHandError::Failed(_) => DATA,
                        ByHandError::Unreachable(_) => exit::UNAVAILABLE,
                    };
                    // What somebody must mend goes before what may pass.
                    code = if code == 0 { own } else { own.min(code) };
                }
                if watcher.phase() >= Phase::Announced {
                    break;
                }
            }
            code
        };
        tokio::select! {
            code = working => code,
            () = stopping => exit::INTERNAL,
        }
    })
}

fn listen(number: Signal) -> io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::from_raw(number.as_raw()))
}

/// The steps of one service, telling a person.
pub(super) fn by_hand<'a>(
    service: &'a Service,
    drain: DrainWatcher,
    say: &'a (dyn Fn(&str) + Send + Sync),
) -> Option<ByHand<'a>> {
    Some(ByHand {
        service: service.name(),
        spec: service.database()?,
        drain,
        say,
    })
}

/// One line on standard error.
#[expect(clippy::print_stderr, reason = "a command talks to a person")]
pub(super) fn complain(what: &str) {
    eprintln!("error: {what}");
}
