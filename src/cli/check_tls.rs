//! What `check` says of certificates: pairs, chains, dates.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{Compilation, Compiled, LocalService, Problem, Tree};
use crate::model::{
    DatabaseTls, JwksSource, JwtKeys, Origin, ProcessSettings, ServiceName, ServiceSpec,
    SpanExporter, TlsClientSpec,
};
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
            name: Some(name),
            file: file_of(name, tree),
            found: &mut found,
        };
        if let Some(tls) = &spec.tls {
            let flaws = ServerTls::build(tls, None)
                .and_then(|_| inspect(&tls.cert, &tls.key, SystemTime::now()));
            looking.note("tls", flaws);
        }
        for (key, tls) in clients(spec) {
            looking.note(&key, client(&tls));
        }
        let tls = spec.database.as_ref().map(|database| &database.tls);
        if let Some(outcome) = tls.and_then(database) {
            looking.note("database.tls", outcome);
        }
    }
    found
}

/// The same of what the process itself speaks TLS to; `file` says so.
pub(super) fn process_problems(settings: &ProcessSettings, file: &Path) -> Vec<Problem> {
    let mut found = Vec::new();
    if let SpanExporter::Otlp { tls: Some(tls), .. } = &settings.exporter {
        let mut looking = Looking {
            name: None,
            file: file.to_owned(),
            found: &mut found,
        };
        looking.note("tracing.exporter.otlp.tls", client(tls));
    }
    found
}

struct Looking<'a> {
    /// `None` for the process.
    name: Option<&'a ServiceName>,
    file: PathBuf,
    found: &'a mut Vec<Problem>,
}

fn file_of(name: &ServiceName, tree: &Tree) -> PathBuf {
    let file = tree.files.iter().find(|file| file.name == *name);
    file.map(|file| file.shown.clone()).unwrap_or_default()
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
        let owned = problems.into_iter().map(|problem| match self.name {
            Some(name) => problem.of(name),
            None => problem,
        });
        self.found.extend(owned);
    }

    fn origin(&self, key: &str) -> Origin {
        Origin {
            key: key.to_owned(),
            ..Origin::file(&self.file)
        }
    }
}

/// What is read for PostgreSQL; `None` without TLS.
fn database(tls: &DatabaseTls) -> Option<Result<Vec<Flaw>, TlsError>> {
    match tls {
        DatabaseTls::Disable => None,
        // Whoever answers is believed: there is only what is shown to it.
        DatabaseTls::Require {
            cert: Some(cert),
            key: Some(key),
            ..
        } => Some(inspect(cert, key, SystemTime::now())),
        DatabaseTls::Require { .. } => None,
        DatabaseTls::VerifyFull { ca, cert, key, .. } => Some(client(&TlsClientSpec {
            ca: ca.clone(),
            cert: cert.clone(),
            key: key.clone(),
            ..TlsClientSpec::default()
        })),
    }
}

fn client(spec: &TlsClientSpec) -> Result<Vec<Flaw>, TlsError> {
    ClientTls::build(spec)?;
    match (&spec.cert, &spec.key) {
        (Some(cert), Some(key)) => inspect(cert, key, SystemTime::now()),
        _ => Ok(Vec::new()),
    }
}

/// Everything the service speaks TLS to, by key, but PostgreSQL.
fn clients(spec: &ServiceSpec) -> Vec<(String, Cow<'_, TlsClientSpec>)> {
    let mut found = Vec::new();
    found.extend(named("upstream.tls", spec.upstream.tls.as_ref()));
    for (index, rule) in spec.auth.rules.iter().enumerate() {
        let upstream = rule.upstream.as_ref();
        let tls = upstream.and_then(|upstream| upstream.tls.as_ref());
        found.extend(named(format!("auth.rules[{index}].upstream.tls"), tls));
    }
    let hook = spec.auth.hook.as_ref().and_then(|hook| hook.tls.as_ref());
    found.extend(named("auth.hook.tls", hook));
    for (index, dependency) in spec.dependencies.iter().enumerate() {
        let tls = dependency.tls.as_ref();
        found.extend(named(format!("dependencies[{index}].tls"), tls));
    }
    let keys = spec.auth.jwt.as_ref().map(|jwt| &jwt.keys);
    if let Some(JwtKeys::Jwks(JwksSource::Url { ca: Some(ca), .. })) = keys {
        let tls = TlsClientSpec {
            ca: Some(ca.clone()),
            ..TlsClientSpec::default()
        };
        found.push(("auth.jwt.jwks".to_owned(), Cow::Owned(tls)));
    }
    found
}

fn named(
    key: impl Into<String>,
    tls: Option<&TlsClientSpec>,
) -> Option<(String, Cow<'_, TlsClientSpec>)> {
    tls.map(|tls| (key.into(), Cow::Borrowed(tls)))
}
