//! What `check` says of certificates: pairs, chains, dates.

use std::time::SystemTime;

use crate::config::{Compilation, Compiled, LocalService, Problem, Tree};
use crate::model::{Origin, ServiceName, ServiceSpec, TlsClientSpec};
use crate::net::tls::{ClientTls, Flaw, ServerTls, TlsError, inspect};

/// Reads every file as `run` would; what it would refuse is an error, what
/// others will object to a warning.
pub(super) fn problems(compilation: &Compilation, tree: &Tree) -> Vec<Problem> {
    let mut found = Vec::new();
    for (name, compiled) in &compilation.services {
        let Compiled::Local(LocalService { spec: Ok(spec), .. }) = compiled else {
            continue;
        };
        let mut looking = Looking {
            name,
            tree,
            found: &mut found,
        };
        if let Some(tls) = &spec.tls {
            let flaws = ServerTls::build(tls, None)
                .and_then(|_| inspect(&tls.cert, &tls.key, SystemTime::now()));
            looking.note("tls", flaws);
        }
        for (key, tls) in clients(spec) {
            looking.note(&key, client(tls));
        }
    }
    found
}

struct Looking<'a> {
    name: &'a ServiceName,
    tree: &'a Tree,
    found: &'a mut Vec<Problem>,
}

impl Looking<'_> {
    fn note(&mut self, key: &str, outcome: Result<Vec<Flaw>, TlsError>) {
        let problems = match outcome {
            Err(error) => vec![Problem::error(self.origin(key), error.to_string())],
            Ok(flaws) => {
                let origin = self.origin(&format!("{key}.cert"));
                let warning = |flaw: &Flaw| Problem::warning(origin.clone(), flaw.to_string());
                flaws.iter().map(warning).collect()
            }
        };
        let of_service = problems.into_iter().map(|problem| problem.of(self.name));
        self.found.extend(of_service);
    }

    fn origin(&self, key: &str) -> Origin {
        let mut files = self.tree.files.iter();
        let file = files.find(|file| file.name == *self.name);
        Origin {
            key: key.to_owned(),
            ..Origin::file(file.map(|file| file.shown.clone()).unwrap_or_default())
        }
    }
}

fn client(spec: &TlsClientSpec) -> Result<Vec<Flaw>, TlsError> {
    ClientTls::build(spec)?;
    match (&spec.cert, &spec.key) {
        (Some(cert), Some(key)) => inspect(cert, key, SystemTime::now()),
        _ => Ok(Vec::new()),
    }
}

/// Everything the service speaks TLS to, by key.
fn clients(spec: &ServiceSpec) -> Vec<(String, &TlsClientSpec)> {
    let mut found = Vec::new();
    found.extend(
        spec.upstream
            .tls
            .as_ref()
            .map(|tls| ("upstream.tls".to_owned(), tls)),
    );
    for (index, rule) in spec.auth.rules.iter().enumerate() {
        let tls = rule
            .upstream
            .as_ref()
            .and_then(|upstream| upstream.tls.as_ref());
        found.extend(tls.map(|tls| (format!("auth.rules[{index}].upstream.tls"), tls)));
    }
    let hook = spec.auth.hook.as_ref().and_then(|hook| hook.tls.as_ref());
    found.extend(hook.map(|tls| ("auth.hook.tls".to_owned(), tls)));
    for (index, dependency) in spec.dependencies.iter().enumerate() {
        let tls = dependency.tls.as_ref();
        found.extend(tls.map(|tls| (format!("dependencies[{index}].tls"), tls)));
    }
    found
}
