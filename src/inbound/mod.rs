//! The public door: one request, one corridor.
//!
//! [`Door::handle`] is the walk of a request; each line of `Door::walk` is one
//! of its phases. What fails becomes an answer in one place, `Door::refuse`,
//! and is recorded exactly once, when the answer's body ends.

mod answer;
mod body;
mod own;
mod prepare;
mod site;
mod target;
mod traced;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};

use crate::auth::{Allowed, Call};
use crate::forward::{self, AnswerBody, Client, Seen};
use crate::model::{Failure, Kind, is_private};
use crate::net::tls::PeerCertificate;
use crate::net::{ClientBody, ClientRequest};
use crate::snapshot::Ready;
#[cfg(any(test, feature = "fault-injection"))]
use crate::telemetry::fault;
use crate::telemetry::metrics::AuthResult;
use crate::telemetry::record::Record;
use crate::trace;
use crate::upstream::UpstreamError;
use crate::upstream::h1::RequestHead;

pub use body::RecordedBody;
pub use site::{ConnectionSettings, Local, Site, WorkerParts};
pub use tunnel::{PendingTunnel, TunnelSlot};

pub use answer::Ending;
use answer::{Passage, Refusal};
use body::Peeked;
use traced::Asked;

/// The client's side of a connection.
#[derive(Debug, Clone)]
pub struct ClientSide {
    pub peer: IpAddr,
    /// The same as forwarding headers have it.
    pub peer_value: HeaderValue,
    pub tls: bool,
    /// Verified with the handshake.
    pub certificate: Option<Rc<PeerCertificate>>,
}

impl ClientSide {
    /// Made once per connection.
    pub fn new(peer: IpAddr, tls: bool, certificate: Option<Rc<PeerCertificate>>) -> Self {
        Self {
            peer,
            peer_value: forward::address_value(peer.to_canonical()),
            tls,
            certificate,
        }
    }

    /// Of the URL that the client asked for.
    const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// Serves the requests of one connection.
pub struct Door {
    local: Rc<Local>,
    client: ClientSide,
    /// The port is coming to its end.
    draining: bool,
}

/// What has been learnt of a request on its way in.
struct Arrival {
    parts: Box<Parts>,
    /// Of the headers as they came.
    seen: Seen,
    body: ClientBody,
    /// The authority, and the `Host` the app will see.
    host: HeaderValue,
    client: Client,
}

impl Door {
    /// `local` is the version in force as the request begins; it is kept to its end.
    pub fn new(local: Rc<Local>, client: ClientSide, draining: bool) -> Self {
        Self {
            local,
            client,
            draining,
        }
    }

    /// One request to its answer. Never fails: what goes wrong is an answer
    /// too, and a panic ends this request alone.
    pub async fn handle(self, request: ClientRequest, ending: Ending) -> Response<RecordedBody> {
        let ClientRequest { head: parts, body } = request;
        let mut record = Record::begin(
            Rc::clone(&self.local.recorder),
            parts.method.clone(),
            self.client.peer.to_canonical(),
        );
        let seen = Seen::of(&parts.headers);
        let id = match seen.has(Seen::REQUEST_ID) {
            true => trace::request_id(&parts.headers, &self.local.parts.ids),
            false => trace::new_request_id(&self.local.parts.ids),
        };
        record.request_id = Some(id.clone());
        record.target = parts.uri.path_and_query().cloned();
        let shape = answer::Shape::of(&parts, seen, &body);
        // Nothing borrowed by the walk outlives it, and a record of a panicked
        // request is only read.
        let mut passage = Passage {
            parts: Rc::clone(&self.local.parts),
            permit: None,
            trace: None,
            switched: None,
            peeked: Peeked::Nothing,
            idle: self.local.upgrade_idle_timeout(),
            http1: parts.version < Version::HTTP_2,
            #[cfg(any(test, feature = "fault-injection"))]
            faulty_body: fault::asked_for(&parts.headers, "body"),
        };
        let walk = self.walk((parts, seen), body, &mut record, &mut passage);
        let walk = std::panic::AssertUnwindSafe(walk);
        let outcome = walk.catch_unwind().await.unwrap_or_else(|_| {
            self.local.parts.metrics.task_panic("request");
            Err(Failure::because(Kind::Internal, "a panic was caught").into())
        });
        let mut response = match outcome {
            Ok(response) => response,
            Err(refusal) => answer::refuse(&self.local.service.name, refusal, &shape, &mut record),
        };
        if let (Some(context), Some(ready)) = (&passage.trace, self.local.service.as_ready()) {
            forward::set_fields(&mut response, |ours| {
                context.write_response(&ready.trace_name, ours);
            });
        }
        answer::finish(response, record, passage, &id, ending)
    }

    async fn walk(
        &self,
        parts: (Box<Parts>, Seen),
        body: ClientBody,
        record: &mut Record,
        passage: &mut Passage,
    ) -> Result<Response<AnswerBody>, Refusal> {
        #[cfg(any(test, feature = "fault-injection"))]
        fault::in_request(&parts.0.headers);
        let Some(ready) = self.local.service.as_ready() else {
            return Err(Failure::new(Kind::ConfigInvalid).into());
        };
        let arrival = self.arrive(ready, parts, body, record, &mut passage.trace)?;
        if let Some(answer) = own::answer(ready, &arrival, self.draining, &self.local.parts) {
            record.asks_about_us();
            return Ok(answer);
        }
        self.join_trace(ready, &arrival, record, &mut passage.trace)?;
        let in_flight = self
            .local
            .service
            .in_flight
            .try_acquire(ready.spec.limits.in_flight);
        let Some(in_flight) = in_flight else {
            return Err(Failure::new(Kind::Overloaded).into());
        };
        passage.permit = Some(in_flight);
        let trace = &mut passage.trace;
        let allowed = self.authenticate(ready, &arrival, record, trace).await?;
        let Some(pool) = self.local.pool(allowed.rule) else {
            return Err(Failure::new(Kind::AppUnavailable).into());
        };
        let onward = prepare::Onward {
            ready,
            upstream: pool.upstream().spec(),
            client_side: &self.client,
            request_id: record.request_id.as_ref(),
            trace: passage.trace.as_ref(),
        };
        let (head, body, mut parts) = onward.request(arrival, allowed)?;
        record.upstream_begins();
        let shard = &self.local.recorder.shard;
        let attempts = Cell::new(1);
        let retried = |reason| {
            attempts.set(attempts.get() + 1);
            shard.retry(reason);
        };
        let sent = forward::send(pool, &head, body, retried).await;
        let sent = sent.map_err(|error| failed_attempt(record, &error, attempts.get()))?;
        record.upstream.address = Some(Arc::clone(&sent.response.address));
        record.upstream.attempt = sent.attempt;
        record.upstream.reused = sent.response.reused;
        record.upstream.connect = sent.response.connect;
        let RequestHead {
            ours,
            upgrade,
            headers,
            ..
        } = head;
        parts.headers = headers;
        self.local.parts.spares.give(parts);
        match upgrade {
            Some(asked) if sent.response.status == StatusCode::SWITCHING_PROTOCOLS => {
                let (answer, switched) = forward::relay_switch(*sent.response, &asked)?;
                passage.switched = Some(switched);
                Ok(answer)
            }
            _ => {
                let mut answer = forward::relay(*sent.response, ours.into_memory());
                passage.peeked = body::peek(answer.body_mut()).await?;
                Ok(answer)
            }
        }
    }

    /// What can be said of a request before anybody is asked, its trace among it.
    fn arrive(
        &self,
        ready: &Ready,
        (mut parts, seen): (Box<Parts>, Seen),
        body: ClientBody,
        record: &mut Record,
        trace: &mut Option<trace::Context>,
    ) -> Result<Arrival, Failure> {
        let looked = self.look_at(ready, &parts, seen, &body, record);
        ready.reserved.strip(&mut parts.headers);
        prepare::join_cookies(&mut parts);
        *trace = self.read_trace(ready, &parts.headers, record);
        match looked {
            Ok((host, client)) => Ok(Arrival {
                parts,
                seen,
                body,
                host,
                client,
            }),
            Err(failure) => {
                self.settle_trace(ready, &Asked::unread(&parts), record, trace);
                Err(failure)
            }
        }
    }

    /// Limits and form, its host and client.
    fn look_at(
        &self,
        ready: &Ready,
        parts: &Parts,
        seen: Seen,
        body: &ClientBody,
        record: &mut Record,
    ) -> Result<(HeaderValue, Client), Failure> {
        if parts.method == Method::CONNECT {
            return Err(Failure::new(Kind::MethodNotAllowed));
        }
        prepare::check_limits(&ready.spec.limits, parts, body)?;
        forward::check_framing(parts, seen)?;
        let host = target::authority(parts, &ready.default_host)?;
        let trusted = &ready.settings.trusted_proxies;
        let client = Client::of(&parts.headers, seen, self.client.peer, trusted);
        record.client = client.address;
        if client.forwarded && !client.trusted && is_near(client.address) {
            self.local.parts.warn_of_unlisted_proxy(client.address);
        }
        Ok((host, client))
    }

    async fn authenticate(
        &self,
        ready: &Ready,
        arrival: &Arrival,
        record: &mut Record,
        trace: &mut Option<trace::Context>,
    ) -> Result<Allowed, Refusal> {
        let Arrival {
            parts,
            host,
            client,
            ..
        } = arrival;
        let asked = RefCell::new(None);
        let call = Call {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            peer: client.address,
            scheme: forward::client_scheme(&parts.headers, *client)
                .unwrap_or_else(|| self.client.scheme()),
            host: forward::client_host(&parts.headers, *client)
                .filter(|host| target::is_authority(host.as_bytes()))
                .unwrap_or(host)
                .to_str()
                .unwrap_or_default(),
            certificate: self.client.certificate.as_deref().map(|one| &one.names[..]),
            trace: self.call_trace(ready, trace.as_ref(), &asked),
        };
        let checked = ready.auth.check(&call, &self.local.parts.auth).await;
        if checked
            .as_ref()
            .is_ok_and(|allowed| allowed.identity.is_some())
        {
            self.settle_trace(ready, &Asked::authenticated(arrival), record, trace);
        }
        if let Some(span) = asked.into_inner() {
            record.add_span(*span);
        }
        match checked {
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

/// What is known of the upstream that failed.
fn failed_attempt(record: &mut Record, error: &UpstreamError, attempt: u32) -> Failure {
    record.upstream.address = error.address.clone();
    record.upstream.reused = error.reused;
    record.upstream.connect = error.connect;
    record.upstream.attempt = attempt;
    Failure::from(error)
}

/// Loopback or private: perhaps a proxy of ours.
fn is_near(address: IpAddr) -> bool {
    address.is_loopback() || is_private(address)
}

/// An answer of ours.
fn whole(response: Response<Bytes>) -> Response<AnswerBody> {
    response.map(AnswerBody::Whole)
}
