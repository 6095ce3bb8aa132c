//! Pages that ask for something. Each answers when it is known what came of it,
//! or that it was handed on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::House;
use super::pages::{ProblemBody, json};
use super::probes::find;
use super::route::Answer;
use crate::auth::{Call, Explanation};
use crate::model::{Kind, LogLevel};
use crate::snapshot::AdminCommand;

/// Largest body: a request described for `/explain`.
const BODY_BYTES: usize = 64 * 1024;

/// For a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);

/// For a reload to be in force. Longer than the longest quiet window and a
/// worker's turn; a caller that hears nothing can look at `/services`.
const RELOAD_TIME: Duration = Duration::from_secs(20);

async fn body(request: Request<Incoming>) -> Result<Bytes, Kind> {
    let limited = Limited::new(request.into_body(), BODY_BYTES);
    match timeout(BODY_TIME, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Kind::BodyTooLarge),
        Ok(Err(_)) => Err(Kind::BadRequest),
        Err(_) => Err(Kind::ClientTimeout),
    }
}

fn send(house: &House, command: AdminCommand) -> Result<(), Kind> {
    use tokio::sync::mpsc::error::TrySendError;
    house
        .commands
        .try_send(command)
        .map_err(|error| match error {
            TrySendError::Full(_) => Kind::Overloaded,
            TrySendError::Closed(_) => Kind::AppUnavailable,
        })
}

#[derive(Serialize)]
struct ReloadBody<'a> {
    generation: u64,
    changed: bool,
    problems: Vec<ProblemBody<'a>>,
    leaving: &'a [String],
}

/// `POST /reload[?confirm=removals]`: 200 when everything found is in force,
/// 422 when something was refused.
pub(super) async fn reload(house: &House, request: &Request<Incoming>) -> Result<Answer, Kind> {
    let confirm_removals = match request.uri().query() {
        None | Some("") => false,
        Some("confirm=removals") => true,
        Some(_) => return Err(Kind::BadRequest),
    };
    let (done, outcome) = oneshot::channel();
    send(
        house,
        AdminCommand::Reload {
            confirm_removals,
            done,
        },
    )?;
    let outcome = match timeout(RELOAD_TIME, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => return Err(Kind::AppUnavailable),
        Err(_) => return Err(Kind::ResponseTimeout),
    };
    let refused = outcome.problems.iter().any(|problem| problem.error);
    let body = ReloadBody {
        generation: outcome.generation,
        changed: outcome.changed,
        problems: outcome.problems.iter().map(ProblemBody::of).collect(),
        leaving: &outcome.leaving,
    };
    Ok(Answer::json(if refused { 422 } else { 200 }, json(&body)))
}

/// `POST /drain`: as SIGTERM.
pub(super) fn drain(house: &House) -> Result<Answer, Kind> {
    send(house, AdminCommand::Drain)?;
    tracing::info!("drain asked for on the admin port");
    Ok(Answer::json(202, &b"{\"status\":\"draining\"}\n"[..]))
}

/// `POST /quitquitquit`, for Jobs whose main container ended.
pub(super) fn quit(house: &House) -> Result<Answer, Kind> {
    send(house, AdminCommand::Quit)?;
    tracing::info!("quit asked for on the admin port");
    Ok(Answer::json(202, &b"{\"status\":\"quitting\"}\n"[..]))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelBody {
    level: String,
}

/// `PUT /log-level` with `debug` or `{"level":"debug"}`, until the next change
/// of the settings or a restart.
pub(super) async fn log_level(house: &House, request: Request<Incoming>) -> Result<Answer, Kind> {
    let bytes = body(request).await?;
    let level = parse_level(&bytes).ok_or(Kind::BadRequest)?;
    house.log.set_level(level);
    tracing::info!(
        level = level.as_str(),
        "log level changed on the admin port"
    );
    let body = format!("{{\"level\":\"{}\"}}\n", level.as_str());
    Ok(Answer::json(200, body))
}

fn parse_level(bytes: &[u8]) -> Option<LogLevel> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let word = match serde_json::from_str::<LevelBody>(text) {
        Ok(body) => body.level,
        Err(_) => text.to_owned(),
    };
    [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ]
    .into_iter()
    .find(|level| level.as_str() == word)
}

/// A request described in words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainBody {
    /// May be left out with one local service.
    service: Option<String>,
    method: Option<String>,
    /// Path and query.
    path: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, OneOrMany>,
    /// Address of the caller; loopback when left out.
    peer: Option<IpAddr>,
}

/// A header's value or values.
#[derive(Deserialize)]
#[serde(from = "serde_json::Value")]
struct OneOrMany(Vec<String>);

impl From<serde_json::Value> for OneOrMany {
    fn from(value: serde_json::Value) -> Self {
        Self(match value {
            serde_json::Value::Array(values) => values.iter().map(text_of).collect(),
            single => vec![text_of(&single)],
        })
    }
}

fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[derive(Serialize)]
struct ExplainAnswer<'a> {
    service: &'a str,
    generation: u64,
    upstream: String,
    auth: Explanation,
}

/// `POST /explain`: which rule a request would meet, who it would be, where it
/// would go. Nothing is sent anywhere.
pub(super) async fn explain(
    house: &Arc<House>,
    request: Request<Incoming>,
) -> Result<Answer, Kind> {
    let bytes = body(request).await?;
    let asked: ExplainBody = serde_json::from_slice(&bytes).map_err(|_| Kind::BadRequest)?;
    let method = asked.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Kind::BadRequest)?;
    let uri: Uri = asked.path.parse().map_err(|_| Kind::BadRequest)?;
    let mut headers = HeaderMap::new();
    for (name, OneOrMany(values)) in &asked.headers {
        let name: HeaderName = name.parse().map_err(|_| Kind::BadRequest)?;
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|_| Kind::BadRequest)?;
            headers.append(&name, value);
        }
    }
    let snapshot = house.current.load();
    let mut services = snapshot.services.values();
    let service = match (&asked.service, services.next(), services.next()) {
        (Some(name), ..) => find(&snapshot, name),
        (None, Some(only), None) => Some(only),
        (None, ..) => None,
    };
    let service = service.ok_or(Kind::UnknownService)?;
    let ready = service.as_ready().ok_or(Kind::ConfigInvalid)?;
    // As at the public door: what clients may not send counts for nothing.
    ready.reserved.strip(&mut headers);
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let mut explanation = ready.auth.explain(&Call {
        method: &method,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        peer: asked.peer.unwrap_or(IpAddr::from([127, 0, 0, 1])),
        scheme: "http",
        host: host.unwrap_or(service.name.name()),
        certificate: None,
        trace: None,
    });
    let own = || ready.spec.upstream.target.to_string();
    let body = ExplainAnswer {
        service: service.name.key(),
        generation: snapshot.generation,
        upstream: explanation.upstream.take().unwrap_or_else(own),
        auth: explanation,
    };
    Ok(Answer::json(200, json(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_json() {
        assert_eq!(parse_level(b"debug\n"), Some(LogLevel::Debug));
        assert_eq!(parse_level(b"{\"level\":\"warn\"}"), Some(LogLevel::Warn));
        for bad in [
            &b""[..],
            b"loud",
            b"{\"level\":\"loud\"}",
            b"\xff",
            b"{\"level\":\"warn\",\"x\":1}",
        ] {
            assert_eq!(parse_level(bad), None);
        }
    }
}
