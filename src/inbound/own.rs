//! Paths that the sidecar answers itself, before authentication.

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};

use super::{Arrival, WorkerParts, whole};
use crate::forward::AnswerBody;
use crate::health::{Moment, Scope, View, shows_details};
use crate::model::OwnPage;
use crate::snapshot::Ready;

/// The answer, where the request is for one of them.
pub(super) fn answer(
    ready: &Ready,
    arrival: &Arrival,
    draining: bool,
    parts: &WorkerParts,
) -> Option<Response<AnswerBody>> {
    let health = &ready.spec.health;
    let page = health.page(&arrival.parts.method, arrival.parts.uri.path())?;
    let client = &arrival.client;
    let details = shows_details(health.details, client.address, client.forwarded);
    let (status, body) = match page {
        OwnPage::Health => {
            let view = View {
                scope: scope(arrival),
                details,
                draining,
            };
            let report = ready.health.report(view, Moment::now());
            (report.http_status, report.json())
        }
        OwnPage::Services => {
            let view = View {
                scope: Scope::All,
                details,
                // Of this port only; each service says so itself.
                draining: false,
            };
            let aggregate = parts.current.load().health(view);
            (aggregate.http_status, aggregate.json())
        }
    };
    let body = Bytes::from(body);
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .header(CACHE_CONTROL, "no-store")
        .header(CONTENT_LENGTH, body.len())
        .body(body)
        .expect("constant headers and a status from the validated range");
    Some(whole(response))
}

fn scope(arrival: &Arrival) -> Scope {
    let query = arrival.parts.uri.query().unwrap_or_default();
    match query.split('&').any(|parameter| parameter == "scope=self") {
        true => Scope::Own,
        false => Scope::All,
    }
}
