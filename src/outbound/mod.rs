//! The app's door: calls to other services, by name, through this machine.
//!
//! `localPort` listeners stand for one dependency of one service; the shared
//! door takes the name from the target, a header or `Host`, and serves as HTTP
//! proxy. Either way `target` finds a declared dependency or refuses; then
//! the request is cleaned, given its trace and the caller's credential
//! (`credential`), and sent (`send`) to one of the dependency's addresses.

mod answer;
mod credential;
mod directory;
mod judgement;
mod send;
mod target;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{Response, StatusCode, Version};

use crate::forward::{self, AnswerBody, Seen, TrailerRule};
use crate::model::{Address, Failure, FieldLines, Kind, LineStart};
use crate::net::{ClientBody, ClientRequest};
use crate::reply;
use crate::telemetry::record::{Record, SpanSeed};
use crate::telemetry::spans::Host;
use crate::trace::{self, REQUEST_ID, REQUEST_ID_START};
use crate::upstream::RequestBody;
use crate::upstream::cluster::Pick;
use crate::upstream::h1::{Framing, RequestHead};

pub use answer::{CallBody, CallEnding, CallTunnel, CallTunnelSlot};
pub use directory::{Caller, CallerParts, Directory, Route};

use answer::{Passage, Shape};
use directory::Found;
use send::{Told, Unsent};

/// Room for what is set in a traced call.
const OUR_BYTES: usize = 512;

/// By which listener a call comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The port of the dependency with this `localPort`, of the service in
    /// this slot.
    LocalPort { slot: u32, port: u16 },
    /// The shared door, on this port.
    Door { port: u16 },
}

impl Entry {
    /// Of the service that calls, where that is certain.
    fn slot(self) -> Option<u32> {
        match self {
            Self::LocalPort { slot, .. } => Some(slot),
            Self::Door { .. } => None,
        }
    }
}

/// Serves the calls of one connection.
pub struct Door {
    directory: Rc<Directory>,
    entry: Entry,
    peer: IpAddr,
}

impl Door {
    /// `directory` is the one in force as the call begins.
    pub fn new(directory: Rc<Directory>, entry: Entry, peer: IpAddr) -> Self {
        Self {
            directory,
            entry,
            peer,
        }
    }

    /// One call to its answer. Never fails: what goes wrong is an answer too,
    /// and a panic ends this call alone.
    pub async fn handle(self, request: ClientRequest, ending: CallEnding) -> Response<CallBody> {
        let ClientRequest { head: parts, body } = request;
        let id = trace::request_id(&parts.headers, &self.directory.parts.ids);
        let shape = Shape::of(&parts, &body);
        let found = target::find(&self.directory, self.entry, &parts);
        let recorder = match &found {
            Ok(found) => Some(Rc::clone(&found.route.recorder)),
            Err(_) => self.directory.strangers(self.entry.slot()),
        };
        let peer = self.peer.to_canonical();
        let mut record =
            recorder.map(|recorder| Record::begin(recorder, parts.method.clone(), peer));
        if let Some(record) = &mut record {
            record.request_id = Some(id.clone());
            record.target = parts.uri.path_and_query().cloned();
        }
        let mut passage = Passage {
            trace: self.read_trace(&found, &parts, record.as_deref_mut()),
            ..Passage::default()
        };
        let (service, next_hop) = match &found {
            Ok(found) => (
                Some(found.caller.service.name.clone()),
                Some(Rc::clone(&found.route)),
            ),
            Err(_) => (None, None),
        };
        let outcome = match (found, &mut record) {
            (Ok(found), Some(record)) => {
                let walk = self.walk(found, parts, body, record, &mut passage);
                // A record of a panicked call is only read.
                let walk = std::panic::AssertUnwindSafe(walk).catch_unwind().await;
                walk.unwrap_or_else(|_| Err(Failure::because(Kind::Internal, "a panic was caught")))
            }
            (Ok(_), None) => Err(Failure::new(Kind::UnknownService)),
            (Err(failure), _) => Err(failure),
        };
        let response = outcome.unwrap_or_else(|failure| {
            let next_hop = next_hop.as_ref().map(|route| &*route.dependency.bare_name);
            answer::refuse(
                service.as_ref(),
                next_hop,
                failure,
                &shape,
                record.as_deref_mut(),
                &id,
            )
        });
        answer::finish(response, record, passage, shape.http1, &id, ending)
    }

    /// The trace a call is part of, where tracing is on. The decision that its
    /// headers carry is the one the app was given.
    fn read_trace(
        &self,
        found: &Result<Found, Failure>,
        parts: &Parts,
        record: Option<&mut Record>,
    ) -> Option<trace::Context> {
        let (caller, route) = match found {
            Ok(found) => (&*found.caller, Some(&found.route)),
            Err(_) => (self.directory.presumed_caller(self.entry.slot())?, None),
        };
        let spec = caller.ready()?.spec.tracing.as_ref()?;
        let record = record?;
        let mut context = trace::Context::read(&parts.headers, &self.directory.parts.ids);
        context.follow(spec);
        record.trace_id = Some(context.trace_id());
        record.house_trace_id = context.house_id().cloned();
        if context.is_sampled() && record.wants_span() {
            let address = route.and_then(|route| route.dependency.spec.addresses.first());
            record.leave_span(Some(SpanSeed {
                ids: context.span_ids(),
                version: parts.version,
                scheme: address.map_or("http", scheme_of),
                host: address.map(host_of),
            }));
        }
        Some(context)
    }

    async fn walk(
        &self,
        found: Found,
        parts: Box<Parts>,
        body: ClientBody,
        record: &mut Record,
        passage: &mut Passage,
    ) -> Result<Response<AnswerBody>, Failure> {
        let seen = Seen::of(&parts.headers);
        forward::check_framing(&parts, seen)?;
        let (head, body) = self.prepare(&found, (parts, seen), body, record, passage)?;
        let upgrade = head.upgrade.clone();
        record.upstream_begins();
        let shard = record.shard().clone();
        let told = Told {
            retried: |reason| shard.retry(reason),
            // Known, should the client leave before there is an answer.
            asks: |pick: &Pick, attempt| {
                let asked = pick.configured();
                record.asked_of(scheme_of(asked), || host_of(asked));
                record.upstream.address = Some(Arc::clone(pick.label()));
                record.upstream.attempt = attempt;
            },
        };
        let sent = send::send(&found.route, head, body, told).await;
        let sent = sent.map_err(|Unsent { error, attempt }| {
            record.upstream.address = error.address.clone();
            record.upstream.reused = error.reused;
            record.upstream.connect = error.connect;
            record.upstream.attempt = attempt;
            Failure::from(&error)
        })?;
        record.upstream.address = Some(Arc::clone(&sent.response.address));
        record.upstream.attempt = sent.attempt;
        record.upstream.reused = sent.response.reused;
        record.upstream.connect = sent.response.connect;
        passage.pick = Some(sent.pick);
        match upgrade {
            Some(asked) if sent.response.status == StatusCode::SWITCHING_PROTOCOLS => {
                let (answer, switched) = forward::relay_switch(*sent.response, &asked)?;
                passage.switched = Some(switched);
                Ok(answer)
            }
            _ => Ok(forward::relay(*sent.response, Vec::new())),
        }
    }

    /// The request as the dependency is to see it (HOP-3): hop-by-hop and
    /// reserved fields go, ours are set last.
    fn prepare(
        &self,
        found: &Found,
        (mut parts, seen): (Box<Parts>, Seen),
        body: ClientBody,
        record: &mut Record,
        passage: &mut Passage,
    ) -> Result<(RequestHead, RequestBody), Failure> {
        let ready = found.caller.ready();
        let ready = ready.ok_or_else(|| Failure::new(Kind::ConfigInvalid))?;
        let shared = &self.directory.parts;
        let grpc = parts.version == Version::HTTP_2 && reply::is_grpc(&parts.headers);
        let headers = &mut parts.headers;
        shared.reserved.strip(headers);
        let asked = forward::strip_request(headers, seen)?;
        headers.remove(PROXY_AUTHORIZATION);
        headers.remove(HOST);
        // `Host` first; each attempt has its own.
        let mut ours = FieldLines::with_capacity(OUR_BYTES);
        ours.line(LineStart::new("host: ")).text("localhost").end();
        if let (Some(context), Some(tracing)) = (&mut passage.trace, &ready.spec.tracing) {
            context.become_call(&ready.trace_name);
            let checked = context.check_depth();
            checked.map_err(|error| Failure::because(Kind::Loop, error.to_string()))?;
            context.write(headers, &mut ours, &tracing.propagate);
        }
        if let Some(id) = &record.request_id {
            headers.remove(REQUEST_ID);
            id.end_line(ours.line(REQUEST_ID_START));
        }
        if asked.accepts_trailers {
            ours.line(LineStart::new("te: ")).text("trailers").end();
        }
        credential::attach(headers, found);
        let framing = forward::onward_framing(headers, seen, &body);
        let upgrade = asked
            .upgrade
            .as_ref()
            .filter(|_| parts.version == Version::HTTP_11 && framing == Framing::None)
            .and_then(|offered| forward::allowed_upgrade(&ready.spec.upgrades, offered));
        passage.idle = ready.spec.limits.upgrade_idle_timeout;
        let spec = &found.route.dependency.spec;
        let head = RequestHead {
            http2: spec.speaks_http2(grpc, upgrade.is_some()),
            method: parts.method,
            target: forward::onward_target(&parts.uri),
            headers: parts.headers,
            ours,
            framing,
            upgrade,
        };
        let body = match framing {
            Framing::None => RequestBody::empty(),
            Framing::Length(_) => RequestBody::client(body, None, None),
            Framing::Chunked => {
                let rule = match parts.version < Version::HTTP_2 {
                    true => TrailerRule::Announced(asked.trailers),
                    false => TrailerRule::AnyName,
                };
                let filter = forward::trailer_filter(Arc::clone(&shared.reserved), rule);
                RequestBody::client(body, None, Some(filter))
            }
        };
        Ok((head, body))
    }
}

/// What is spoken there.
fn scheme_of(address: &Address) -> &'static str {
    if address.tls { "https" } else { "http" }
}

/// An address as spans name it.
fn host_of(address: &Address) -> Host {
    Host::Known {
        host: Arc::clone(&address.host),
        port: address.port,
    }
}
