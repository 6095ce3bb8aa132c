//! What an answer says about whoever gave it.

use http::StatusCode;

use crate::snapshot::Dependency;
use crate::upstream::{UpstreamFields, UpstreamResponse};

const PROXY_STATUS: &str = "proxy-status";
const GRPC_STATUS: &str = "grpc-status";

/// What an answer says about whoever gave it.
pub(super) struct Judgement {
    /// The address does its work.
    pub(super) well: bool,
    /// Another attempt may fare better and does no harm.
    pub(super) may_repeat: bool,
}

impl Judgement {
    pub(super) fn of(response: &UpstreamResponse, dependency: &Dependency) -> Self {
        let words = Words::of(&response.fields, dependency);
        let status = response.status;
        let mut codes = response.fields.values(GRPC_STATUS);
        let unavailable = codes.next().is_some_and(|code| code == b"14");
        let bad = unavailable
            || (status.is_server_error()
                && status != StatusCode::NOT_IMPLEMENTED
                && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        let gateway = matches!(status.as_u16(), 502..=504);
        Self {
            // A farther hop that fails is not the fault of a sidecar we know.
            // Of a dependency behind any other gateway nothing else is seen.
            well: !bad || (words == Words::Farther && dependency.identity.is_some()),
            may_repeat: gateway
                && match words {
                    Words::NextHop => true,
                    Words::Farther => false,
                    // Behind a sidecar it may be about anything farther on.
                    Words::Unsigned => !dependency.spec.has_sidecar,
                },
        }
    }
}

/// Whose words an answer is, by `Proxy-Status` (RFC 9209).
#[derive(PartialEq, Eq)]
enum Words {
    Unsigned,
    /// The dependency's own sidecar says so, about its app.
    NextHop,
    /// Somebody behind it.
    Farther,
}

impl Words {
    fn of(fields: &UpstreamFields, dependency: &Dependency) -> Self {
        let mut values = fields.values(PROXY_STATUS);
        let Some(value) = values.next() else {
            return Self::Unsigned;
        };
        if values.next().is_some() {
            return Self::Farther;
        }
        let text = std::str::from_utf8(value).unwrap_or_default();
        let (who, rest) = text.split_once(';').unwrap_or((text, ""));
        let who = who.trim().trim_matches('"');
        let own = dependency.identity.as_deref() == Some(who);
        // One of our own that tells of a call it made names whom it called.
        match own && !rest.contains(',') && !rest.contains("next-hop") {
            true => Self::NextHop,
            false => Self::Farther,
        }
    }
}
