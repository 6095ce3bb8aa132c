//! The two lines a request can leave: the access line, and one for an answer
//! the sidecar made itself. Neither holds a header or parameter value.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tracing::Level;

use super::line::{Line, LineFormat};
use crate::model::Cause;

/// One line per request, as `accessLog` says.
#[derive(Debug, Clone)]
pub struct AccessLine<'a> {
    /// `domain/name`.
    pub service: &'a str,
    /// Empty, as the path, where no request was complete.
    pub method: &'a str,
    /// Raw path, without the query.
    pub path: &'a str,
    pub status: u16,
    /// Set when the sidecar made the answer or broke it off.
    pub cause: Option<Cause>,
    /// Why, for people; no header or parameter values.
    pub detail: Option<&'a str>,
    /// Body bytes sent to the client, when counted.
    pub bytes: Option<u64>,
    /// From the complete head to the end of the body.
    pub total: Duration,
    /// The part of it spent on the upstream.
    pub upstream: Duration,
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// `x-trace-id` where it is another text: a safe id.
    pub house_trace_id: Option<&'a str>,
    /// Address of the client, as found through trusted proxies.
    pub peer: Option<IpAddr>,
    pub strategy: Option<&'a str>,
    /// Who was authenticated.
    pub subject: Option<&'a str>,
    /// Of the configuration the request was served with.
    pub generation: u64,
    /// Set on calls of the app: what it called, by key or name.
    pub dependency: Option<&'a str>,
    /// As dialled: `127.0.0.1:13001`, `unix:/run/app.sock`.
    pub upstream_address: Option<&'a str>,
    /// 1 for the first; 0 when none was made.
    pub attempt: u32,
    /// Whether a pooled connection carried it.
    pub reused: bool,
}

impl AccessLine<'_> {
    pub(super) fn write(&self, format: LineFormat, now: SystemTime) -> Vec<u8> {
        let Self {
            service,
            method,
            path,
            status,
            cause,
            detail,
            bytes,
            total,
            upstream,
            request_id,
            trace_id,
            house_trace_id,
            peer,
            strategy,
            subject,
            generation,
            dependency,
            upstream_address,
            attempt,
            reused,
        } = self;
        let mut line = Line::begin(format, now, Level::INFO);
        line.message("request");
        line.text("service", service);
        line.text_if_any("method", method);
        line.text_if_any("path", path);
        line.number("status", *status);
        if let Some(cause) = cause {
            line.text("cause", cause.as_str());
        }
        line.text_if_any("detail", detail.unwrap_or_default());
        if let Some(bytes) = bytes {
            line.number("bytes", *bytes);
        }
        line.milliseconds("total_ms", *total);
        line.milliseconds("upstream_ms", *upstream);
        line.milliseconds("overhead_ms", total.saturating_sub(*upstream));
        line.text("request_id", request_id);
        line.text_if_any("trace_id", trace_id.unwrap_or_default());
        line.text_if_any("x_trace_id", house_trace_id.unwrap_or_default());
        address(&mut line, "peer", *peer);
        line.text_if_any("strategy", strategy.unwrap_or_default());
        line.text_if_any("subject", subject.unwrap_or_default());
        line.number("generation", *generation);
        line.text_if_any("dependency", dependency.unwrap_or_default());
        line.text_if_any("upstream_address", upstream_address.unwrap_or_default());
        if *attempt > 0 {
            line.number("attempt", *attempt);
            line.flag("reused", *reused);
        }
        line.finish()
    }
}

/// The one log line of an answer the sidecar made (SPEC §9).
#[derive(Debug, Clone)]
pub struct ErrorLine<'a> {
    /// From the table in `reply`.
    pub level: Level,
    /// `domain/name`; empty on a door without a service.
    pub service: &'a str,
    pub cause: Cause,
    pub status: u16,
    /// OS error or reason, for people; no header or parameter values.
    pub detail: &'a str,
    /// Set on calls of the app: what it called, by key or name.
    pub dependency: Option<&'a str>,
    /// As dialled.
    pub upstream_address: Option<&'a str>,
    /// 1 for the first; 0 when none was made.
    pub attempt: u32,
    pub reused: bool,
    /// Time to connect, when a connection was made or tried.
    pub connect: Option<Duration>,
    /// From the sent request to the first response byte or the failure.
    pub wait: Option<Duration>,
    pub total: Duration,
    pub generation: u64,
    /// Empty when the request never got one.
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// `x-trace-id` where it is another text: a safe id.
    pub house_trace_id: Option<&'a str>,
    pub peer: Option<IpAddr>,
}

impl ErrorLine<'_> {
    pub(super) fn write(&self, format: LineFormat, now: SystemTime) -> Vec<u8> {
        let Self {
            level,
            service,
            cause,
            status,
            detail,
            dependency,
            upstream_address,
            attempt,
            reused,
            connect,
            wait,
            total,
            generation,
            request_id,
            trace_id,
            house_trace_id,
            peer,
        } = self;
        let mut line = Line::begin(format, now, *level);
        line.message("request failed");
        line.text_if_any("service", service);
        line.text("cause", cause.as_str());
        line.number("status", *status);
        line.text_if_any("detail", detail);
        line.text_if_any("dependency", dependency.unwrap_or_default());
        line.text_if_any("upstream_address", upstream_address.unwrap_or_default());
        if *attempt > 0 {
            line.number("attempt", *attempt);
            line.flag("reused", *reused);
        }
        for (name, time) in [("connect_ms", connect), ("wait_ms", wait)] {
            if let Some(time) = time {
                line.milliseconds(name, *time);
            }
        }
        line.milliseconds("total_ms", *total);
        line.number("generation", *generation);
        line.text_if_any("request_id", request_id);
        line.text_if_any("trace_id", trace_id.unwrap_or_default());
        line.text_if_any("x_trace_id", house_trace_id.unwrap_or_default());
        address(&mut line, "peer", *peer);
        line.finish()
    }
}

/// The line that stands for those left out.
pub(super) fn summary(format: LineFormat, now: SystemTime, cause: Cause, count: u64) -> Vec<u8> {
    let mut line = Line::begin(format, now, Level::WARN);
    line.message("request failures not logged one by one");
    line.text("cause", cause.as_str());
    line.number("count", count);
    line.finish()
}

fn address(line: &mut Line, name: &str, address: Option<IpAddr>) {
    if let Some(address) = address {
        line.text(name, &address.to_canonical().to_string());
    }
}
