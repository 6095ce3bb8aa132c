//! Pages that ask for something. Each answers when it is known what came of it,
//! or that it was handed on.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::House;
use super::pages::{ProblemBody, json};
use super::route::Answer;
use crate::model::{Kind, LogLevel};
use crate::snapshot::AdminCommand;

/// Largest body: a request described for `/explain`.
const BODY_BYTES: usize = 64 * 1024;

/// For a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);

/// For a reload to be in force. Longer than the longest quiet window and a
/// worker's turn; a caller that hears nothing can look at `/services`.
const RELOAD_TIME: Duration = Duration::from_secs(20);

/// The whole body, within bounds of size and time.
pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes, Kind> {
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
