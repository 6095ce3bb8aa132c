//! A service fronted elsewhere: only what is needed to call it.

use super::auth;
use super::context::Context;
use super::outline::{Neighbour, Outline};
use crate::config::raw::RawService;
use crate::model::{PeerSpec, Requirement};

/// The keys of a peer's file that are read at all (SPEC §1.1).
pub(in crate::config) const PEER_KEYS: [&str; 8] = [
    "version",
    "port",
    "address",
    "healthCheck",
    "health",
    "tls",
    "upstream",
    "auth",
];

/// Makes the spec of a peer. What is wrong with its policy is its own affair:
/// then the policy is left out.
pub(in crate::config) fn peer(
    raw: &RawService,
    outline: &Outline,
    neighbour: &Neighbour,
    context: &mut Context<'_>,
) -> PeerSpec {
    let policy = raw.auth.as_ref().map(|written| {
        let has_client_ca = raw.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        auth::compile(Some(written), has_client_ca, context)
    });
    let is_sound = !context.report.has_errors();
    PeerSpec {
        name: context.name.clone(),
        version: raw.version.as_deref().map(Into::into),
        port: outline.port,
        addresses: neighbour.addresses.clone(),
        tls: outline.tls,
        protocol: outline.protocol,
        health_path: outline.health_path.clone(),
        auth: policy.filter(|policy| {
            is_sound && (policy.explicit || policy.requirement != Requirement::None)
        }),
    }
}
