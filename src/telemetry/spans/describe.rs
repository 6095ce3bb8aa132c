//! What a span says, in the words of OpenTelemetry's semantic conventions
//! (HTTP, database, v1.37). Runs on the control runtime.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::{Method, Version};

use super::{Host, HttpWork, Span, SpanKind, SqlWork, Work};
use crate::model::Cause;

/// A span in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Description<'a> {
    /// Of low cardinality: never a path.
    pub name: Cow<'a, str>,
    /// The status of the span is `Error`.
    pub failed: bool,
    pub attributes: Vec<(&'static str, Attribute<'a>)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute<'a> {
    Text(Cow<'a, str>),
    Number(i64),
}

impl<'a> From<&'a str> for Attribute<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Attribute<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Attribute<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Attributes being gathered.
struct Attributes<'a>(Vec<(&'static str, Attribute<'a>)>);

impl<'a> Attributes<'a> {
    /// Room for what there usually is.
    fn new() -> Self {
        Self(Vec::with_capacity(10))
    }

    fn add(&mut self, name: &'static str, value: impl Into<Attribute<'a>>) {
        self.0.push((name, value.into()));
    }

    fn add_if_any(&mut self, name: &'static str, value: Option<impl Into<Attribute<'a>>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// `server.address` and `server.port`.
    fn add_host(&mut self, host: Option<&'a Host>) {
        let Some((name, port)) = host.and_then(Host::parts) else {
            return;
        };
        self.add("server.address", name);
        self.add_if_any("server.port", port.map(i64::from));
    }
}

impl Span {
    /// The span in words.
    pub fn describe(&self) -> Description<'_> {
        match &self.work {
            Work::Http(work) => work.describe(self.kind),
            Work::Sql(work) => work.describe(),
        }
    }
}

impl Host {
    /// Name without brackets, and the port where it is named.
    fn parts(&self) -> Option<(&str, Option<u16>)> {
        match self {
            Self::Known { host, port } => Some((host, Some(*port))),
            // Checked when it came.
            Self::Asked(text) => {
                let (name, rest) = match text.strip_prefix('[') {
                    Some(literal) => literal.split_once(']')?,
                    None => text.split_at(text.find(':').unwrap_or(text.len())),
                };
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
                Some((name, port))
            }
        }
    }
}

impl HttpWork {
    fn describe(&self, kind: SpanKind) -> Description<'_> {
        let mut attributes = Attributes::new();
        let method = known_method(&self.method);
        attributes.add("http.request.method", method.unwrap_or("_OTHER"));
        if method.is_none() {
            attributes.add("http.request.method_original", self.method.as_str());
        }
        match kind {
            SpanKind::Server => self.describe_request(&mut attributes),
            SpanKind::Client => self.describe_call(&mut attributes),
        }
        attributes.add_host(self.host.as_ref());
        let status = self.status.map(i64::from);
        attributes.add_if_any("http.response.status_code", status);
        let failed = self.failed(kind);
        if failed {
            let error = match (self.cause, self.status) {
                (Some(cause), _) => Attribute::from(cause.as_str()),
                (None, Some(status)) => Attribute::from(status.to_string()),
                (None, None) => Attribute::from("_OTHER"),
            };
            attributes.add("error.type", error);
        }
        attributes.add_if_any("outrigger.cause", self.cause.map(Cause::as_str));
        Description {
            name: Cow::Borrowed(method.unwrap_or("HTTP")),
            failed,
            attributes: attributes.0,
        }
    }

    fn describe_request<'a>(&'a self, attributes: &mut Attributes<'a>) {
        attributes.add("url.scheme", self.scheme);
        attributes.add("url.path", &*self.path.0);
        let version = self.version.and_then(protocol_version);
        attributes.add_if_any("network.protocol.version", version);
        let client = self.client.map(|client| client.to_canonical().to_string());
        attributes.add_if_any("client.address", client);
    }

    fn describe_call<'a>(&'a self, attributes: &mut Attributes<'a>) {
        attributes.add_if_any("url.full", self.full_url());
        // The name alone, as its own sidecar gives it in `service.name`.
        let peer = self.peer.as_deref().and_then(|key| key.rsplit('/').next());
        attributes.add_if_any("peer.service", peer.filter(|name| !name.is_empty()));
        let dialled = self.dialled.as_deref();
        match dialled.map(|text| (text, text.parse::<SocketAddr>())) {
            Some((_, Ok(address))) => {
                attributes.add("network.peer.address", address.ip().to_string());
                attributes.add("network.peer.port", i64::from(address.port()));
            }
            Some((text, Err(_))) => attributes.add("network.peer.address", text),
            None => {}
        }
        if self.resends > 0 {
            attributes.add("http.request.resend_count", i64::from(self.resends));
        }
    }

    fn full_url(&self) -> Option<String> {
        let (name, port) = self.host.as_ref()?.parts()?;
        let (open, close) = if name.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let (scheme, path) = (self.scheme, &self.path.0);
        Some(format!("{scheme}://{open}{name}{close}{port}{path}"))
    }

    /// A server is to blame for 5xx only; whoever calls minds 4xx too. A client
    /// that leaves is nobody's error.
    fn failed(&self, kind: SpanKind) -> bool {
        let bad = match (kind, self.status) {
            (SpanKind::Server, status) => status.is_some_and(|status| status >= 500),
            (SpanKind::Client, status) => status.is_none_or(|status| status >= 400),
        };
        let broken_off = self.status.is_none_or(|status| status < 400);
        match self.cause {
            Some(Cause::ClientClosed) => false,
            Some(_) => bad || broken_off,
            None => bad,
        }
    }
}

impl SqlWork {
    fn describe(&self) -> Description<'_> {
        let mut attributes = Attributes::new();
        attributes.add("db.system.name", "postgresql");
        attributes.add("db.namespace", &*self.database);
        attributes.add("db.operation.name", self.operation);
        attributes.add_host(self.host.as_ref());
        let error = self.error.as_deref();
        // SQLSTATE, as SQL wants it: words of ours are in lower case.
        let is_sqlstate = |word: &&str| {
            let is_part = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
            word.len() == 5 && word.bytes().all(is_part)
        };
        attributes.add_if_any("db.response.status_code", error.filter(is_sqlstate));
        attributes.add_if_any("error.type", error);
        Description {
            name: Cow::Owned(format!("{} {}", self.operation, self.database)),
            failed: self.error.is_some(),
            attributes: attributes.0,
        }
    }
}

/// Those of RFC 9110 and RFC 5789.
fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

fn protocol_version(version: Version) -> Option<&'static str> {
    [
        (Version::HTTP_10, "1.0"),
        (Version::HTTP_11, "1.1"),
        (Version::HTTP_2, "2"),
    ]
    .into_iter()
    .find_map(|(known, text)| (known == version).then_some(text))
}
