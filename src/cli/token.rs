//! `outrigger token mint`: a token for a service that checks with a secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{ProcessArgs, exit, print_problems};
use crate::auth::{Mint, MintError, mint};
use crate::config::{Compiled, Compiler, Environment, Problem, ProcessFlags, load_process};
use crate::control;
use crate::model::{JwtAlgorithm, JwtKeys, JwtPolicy, ServiceName, ServiceSpec};
use crate::secret::Secret;

/// A secret file, at most.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// A token without `--lifetime`, unless its service takes only shorter ones.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Tokens (JWT).
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Sign a token with the first secret of a service, or with one from a file
    Mint(Box<MintArgs>),
}

#[derive(Debug, Args)]
struct MintArgs {
    /// The service that is to take it: its secret, issuer and audience are used
    #[arg(value_name = "SERVICE", required_unless_present = "secret_file")]
    target: Option<String>,
    /// Take the secret from this file instead (`-`: standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    secret_file: Option<PathBuf>,
    /// Claim `sub`: who it is
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// Claim that makes the caller a service
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// Claim `iss` [default: what the service expects]
    #[arg(long, value_name = "TEXT")]
    iss: Option<String>,
    /// Claim `aud` [default: the first that the service expects]
    #[arg(long, value_name = "TEXT")]
    aud: Option<String>,
    /// Another claim; the value is JSON, or else text; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// How long it is good: 30s, 5m, 1h, 7d [default: 5m, or what the service
    /// takes at most]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<Duration>,
    /// HS256, HS384 or HS512 [default: the first that the service takes]
    #[arg(long, value_name = "NAME", value_parser = algorithm)]
    algorithm: Option<JwtAlgorithm>,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Names listed for one that is not among them.
const MAX_NAMES: usize = 20;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("the configuration cannot be used")]
    Config(Vec<Problem>),
    #[error("there is no local service `{0}`\nhint: there are: {1}")]
    NoService(String, String),
    #[error("`{0}` is the name of several services: write domain/name")]
    Ambiguous(String),
    #[error("{0} has errors: see `outrigger check`")]
    Invalid(String),
    #[error("{0} takes no tokens")]
    NoTokens(String),
    #[error("{0} checks tokens with public keys: only their issuer can make them")]
    PublicKeys(String),
    #[error("cannot read the secret: {0}")]
    Secret(io::Error),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("cannot print the token: {0}")]
    Print(io::Error),
}

/// Runs the subcommand.
pub(crate) fn run(args: &TokenArgs) -> ExitCode {
    let TokenCommand::Mint(args) = &args.command;
    let made = make(args, &args.process.flags(), SystemTime::now())
        .and_then(|token| writeln!(io::stdout(), "{token}").map_err(TokenError::Print));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let TokenError::Config(problems) = &error {
                print_problems(problems);
            }
            let _written = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn make(args: &MintArgs, flags: &ProcessFlags, now: SystemTime) -> Result<String, TokenError> {
    let spec = match &args.target {
        Some(name) => Some(find(name, flags)?),
        None => None,
    };
    let policy = match &spec {
        Some(spec) => Some(policy_of(spec)?),
        None => None,
    };
    let secret = match (policy, &args.secret_file) {
        (Some(policy), _) => first_secret(policy, spec.as_deref())?,
        (None, Some(path)) => read_secret(path).map_err(TokenError::Secret)?,
        (None, None) => return Err(TokenError::NoService(String::new(), String::new())),
    };
    let expected = policy.and_then(|policy| policy.audience.first());
    let claim = policy.map_or("serviceName", |policy| &policy.service_name_claim);
    let first = policy.and_then(|policy| policy.algorithms.first().copied());
    let wanted = Mint {
        kind: policy.and_then(|policy| policy.types.first().map(|kind| &**kind)),
        algorithm: args.algorithm.or(first).unwrap_or(JwtAlgorithm::Hs256),
        issuer: args.iss.as_deref().or_else(|| policy?.issuer.as_deref()),
        subject: args.sub.as_deref(),
        audience: args.aud.as_deref().or(expected.map(|text| &**text)),
        service: args.service_name.as_deref().map(|name| (claim, name)),
        claims: args.claim.iter().cloned().collect::<BTreeMap<_, _>>(),
        lifetime: args.lifetime.unwrap_or_else(|| {
            let most = policy.and_then(|policy| policy.max_lifetime);
            most.map_or(DEFAULT_LIFETIME, |most| most.min(DEFAULT_LIFETIME))
        }),
    };
    Ok(mint(&secret, &wanted, now)?)
}

/// A local service of the tree, by `domain/name` or a bare name that is unique.
fn find(name: &str, flags: &ProcessFlags) -> Result<Arc<ServiceSpec>, TokenError> {
    let environment = Environment::capture();
    let process = load_process(flags, &environment).map_err(TokenError::Config)?;
    let root = process.settings.services_dir.clone();
    let mut compiler = Compiler::new(process, environment);
    let compilation = compiler.compile(&control::discover(&root));
    let mut found = compilation.services.iter().filter_map(|(key, compiled)| {
        let Compiled::Local(local) = compiled else {
            return None;
        };
        let is_it = key.key() == name || (!name.contains('/') && key.name() == name);
        is_it.then_some(&local.spec)
    });
    match (found.next(), found.next()) {
        (None, _) => {
            let names = compilation.services.keys().map(ServiceName::key);
            let names: Vec<&str> = names.take(MAX_NAMES).collect();
            Err(TokenError::NoService(name.to_owned(), names.join(", ")))
        }
        (Some(_), Some(_)) => Err(TokenError::Ambiguous(name.to_owned())),
        (Some(Ok(spec)), None) => Ok(Arc::clone(spec)),
        (Some(Err(_)), None) => Err(TokenError::Invalid(name.to_owned())),
    }
}

fn policy_of(spec: &ServiceSpec) -> Result<&JwtPolicy, TokenError> {
    let name = || spec.name.to_string();
    spec.auth
        .jwt
        .as_ref()
        .ok_or_else(|| TokenError::NoTokens(name()))
}

fn first_secret(policy: &JwtPolicy, spec: Option<&ServiceSpec>) -> Result<Secret, TokenError> {
    let name = || spec.map_or_else(String::new, |spec| spec.name.to_string());
    match &policy.keys {
        JwtKeys::Secrets(secrets) => secrets
            .first()
            .cloned()
            .ok_or_else(|| TokenError::NoTokens(name())),
        JwtKeys::PublicKey(_) | JwtKeys::Jwks(_) => Err(TokenError::PublicKeys(name())),
    }
}

/// One trailing newline is not part of the secret, as with `${file:…}`.
fn read_secret(path: &Path) -> io::Result<Secret> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(MAX_SECRET_BYTES).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(path)?
            .take(MAX_SECRET_BYTES)
            .read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 == MAX_SECRET_BYTES {
        return Err(io::Error::other("is 64 KiB or longer: no secret"));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 30s, 5m, 1h or 7d".to_owned();
    let at = text
        .find(|letter: char| !letter.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=366 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "a token is good for a second at least, a year at most".to_owned())
}

fn algorithm(text: &str) -> Result<JwtAlgorithm, String> {
    JwtAlgorithm::ALL
        .into_iter()
        .find(|one| one.is_symmetric() && one.as_str() == text)
        .ok_or_else(|| "expected HS256, HS384 or HS512".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_arguments() {
        let seconds = |text: &str| lifetime(text).map(|time| time.as_secs()).ok();
        assert_eq!(seconds("30s"), Some(30));
        assert_eq!(seconds("2h"), Some(7200));
        for bad in [
            "",
            "5",
            "m",
            "5 m",
            "-5m",
            "0s",
            "9999999999999999999d",
            "400d",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(claim("a=1").unwrap(), ("a".to_owned(), Value::from(1)));
        assert_eq!(
            claim("a=b=c").unwrap(),
            ("a".to_owned(), Value::from("b=c"))
        );
        assert!(claim("a").is_err());
        assert_eq!(algorithm("HS512"), Ok(JwtAlgorithm::Hs512));
        assert!(algorithm("RS256").is_err());
    }
}
