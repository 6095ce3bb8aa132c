//! The public door: one request, one corridor.
//!
//! [`Door::handle`] is the walk of a request; each line of `Door::walk` is one
//! of its phases. What fails becomes an answer in one place, `Door::refuse`,
//! and is recorded exactly once, when the answer's body ends.

mod answer;
mod prepare;
mod site;
mod target;

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

use crate::auth::{Allowed, Call};
use crate::forward::{self, AnswerBody, Client};
use crate::model::{Failure, Kind};
use crate::net::Permit;
use crate::snapshot::Ready;
use crate::telemetry::metrics::AuthResult;
use crate::telemetry::record::Record;
use crate::trace;
use crate::upstream::h1::UpstreamResponse;

pub use answer::RecordedBody;
pub use site::{Local, Site, WorkerParts};

pub use answer::Ending;
use answer::Refusal;

/// The client's side of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide {
    pub peer: IpAddr,
    pub tls: bool,
}

/// Serves the requests of one connection.
pub struct Door {
    local: Rc<Local>,
    client: ClientSide,
}

/// What has been learnt of a request on its way in.
struct Arrival {
    parts: Parts,
    body: Incoming,
    /// The authority, and the `Host` the app will see.
    host: HeaderValue,
    client: Client,
}

impl Door {
    /// `local` is the version in force as the request begins; it is kept to its end.
    pub fn new(local: Rc<Local>, client: ClientSide) -> Self {
        Self { local, client }
    }

    /// One request to its answer. Never fails: what goes wrong is an answer
    /// too, and a panic ends this request alone.
    pub async fn handle(
        self,
        request: Request<Incoming>,
        ending: Ending,
    ) -> Response<RecordedBody> {
        let (parts, body) = request.into_parts();
        let mut record = Record::begin(
            Rc::clone(&self.local.recorder),
            parts.method.clone(),
            self.client.peer.to_canonical(),
        );
        let id = trace::request_id(&parts.headers, &self.local.parts.ids);
        record.request_id = Some(id.value().clone());
        record.target = parts.uri.path_and_query().cloned();
        let shape = answer::Shape::of(&parts, &body);
        // Nothing borrowed by the walk outlives it, and a record of a panicked
        // request is only read.
        let mut permit = None;
        let walk = self.walk(parts, body, &mut record, &mut permit);
        let walk = std::panic::AssertUnwindSafe(walk);
        let outcome = walk
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Failure::because(Kind::Internal, "a panic was caught").into()));
        let response = match outcome {
            Ok(response) => response,
            Err(refusal) => answer::refuse(&self.local.service.name, refusal, &shape, &mut record),
        };
        answer::finish(response, record, permit, &id, ending)
    }

    async fn walk(
        &self,
        parts: Parts,
        body: Incoming,
        record: &mut Record,
        permit: &mut Option<Permit>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let Some(ready) = self.local.service.as_ready() else {
            return Err(Failure::new(Kind::ConfigInvalid).into());
        };
        let mut arrival = self.arrive(ready, parts, body, record)?;
        ready.reserved.strip(&mut arrival.parts.headers);
        if let Some(answer) = answer::own_path(ready, &arrival) {
            return Ok(answer);
        }
        let in_flight = self
            .local
            .service
            .in_flight
            .try_acquire(ready.spec.limits.in_flight);
        let Some(in_flight) = in_flight else {
            return Err(Failure::new(Kind::Overloaded).into());
        };
        *permit = Some(in_flight);
        let allowed = self.authenticate(ready, &arrival, record).await?;
        let rule = allowed.rule;
        let (head, body) =
            prepare::request(ready, &self.local, arrival, allowed, self.client, record)?;
        let Some(pool) = self.local.pool(rule) else {
            return Err(Failure::new(Kind::AppUnavailable).into());
        };
        record.upstream_begins();
        let shard = record.shard().clone();
        let sent = forward::send(pool, &head, body, |reason| shard.retry(reason)).await;
        let sent = sent.map_err(|error| {
            record.upstream.address = error.address.clone();
            record.upstream.reused = error.reused;
            record.upstream.attempt = record.upstream.attempt.max(1);
            Failure::from(&error)
        })?;
        record.upstream.address = Some(sent.address);
        record.upstream.attempt = sent.attempt;
        record.upstream.reused = sent.reused;
        Ok(answer::relay(sent.response))
    }

    /// Limits and form: everything that can be said before anybody is asked.
    fn arrive(
        &self,
        ready: &Ready,
        parts: Parts,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Arrival, Failure> {
        if parts.method == Method::CONNECT {
            return Err(Failure::new(Kind::MethodNotAllowed));
        }
        prepare::check_limits(&ready.spec.limits, &parts, &body)?;
        target::check_framing(&parts)?;
        let host = target::authority(&parts, &ready.default_host)?;
        let trusted = &ready.settings.trusted_proxies;
        let client = Client::of(&parts.headers, self.client.peer, trusted);
        record.client = client.address;
        Ok(Arrival {
            parts,
            body,
            host,
            client,
        })
    }

    async fn authenticate(
        &self,
        ready: &Ready,
        arrival: &Arrival,
        record: &mut Record,
    ) -> Result<Allowed, Refusal> {
        let Arrival {
            parts,
            host,
            client,
            ..
        } = arrival;
        let call = Call {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            peer: client.address,
            scheme: if self.client.tls { "https" } else { "http" },
            host: host.to_str().unwrap_or_default(),
            certificate: None,
            trace: &[],
        };
        match ready.auth.check(&call, &self.local.parts.auth).await {
            Ok(allowed) => {
                let shard = record.shard();
                shard.auth_decision(allowed.strategy, AuthResult::Allowed, allowed.reason);
                record.identity = allowed
                    .identity
                    .as_ref()
                    .map(|identity| (identity.strategy.as_str(), identity.subject.clone()));
                Ok(allowed)
            }
            Err(denied) => {
                let result = match denied.kind {
                    Kind::AuthUnavailable => AuthResult::Unavailable,
                    _ => AuthResult::Denied,
                };
                record
                    .shard()
                    .auth_decision(denied.strategy, result, denied.reason);
                Err(Refusal::denied(denied))
            }
        }
    }
}

/// An answer of ours.
fn whole(response: Response<Bytes>) -> Response<AnswerBody> {
    response.map(AnswerBody::Whole)
}

/// An answer of the upstream's.
fn streamed(response: UpstreamResponse) -> Response<AnswerBody> {
    let UpstreamResponse {
        status,
        headers,
        body,
    } = response;
    let mut response = Response::new(AnswerBody::Upstream(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
