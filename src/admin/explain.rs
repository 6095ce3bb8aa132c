//! `POST /explain`: what would become of a request, without sending it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::House;
use super::change::body;
use super::pages::json;
use super::probes::find;
use super::route::Answer;
use crate::auth::{Call, Explanation};
use crate::model::{Kind, MtlsName, Strategy};
use crate::snapshot::Ready;

const NO_CERTIFICATE: &str = "no client certificate is assumed; name what one was issued for, \
                              such as \"certificate\": \"dns:orders.shop\"";
const NOT_ASKED_FOR: &str = "this port asks for no client certificate (`tls.clientCa`), so the \
                             one named does not count";

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
    headers: BTreeMap<String, OneOrMany>,
    /// Address of the caller; loopback when left out.
    peer: Option<IpAddr>,
    /// Names of the client's certificate, as `mtls.allow` writes them; it counts
    /// as one that the port's authority vouches for.
    certificate: Option<OneOrMany>,
}

/// A value or values.
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

/// Who gives the answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnsweredBy {
    App,
    /// A page of its own, before anybody is asked who they are.
    Sidecar,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainAnswer<'a> {
    service: &'a str,
    generation: u64,
    answered_by: AnsweredBy,
    /// Where the request would go; absent where the sidecar answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    auth: Explanation,
    /// What was assumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
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
    let mut headers = headers(&asked)?;
    let named = certificate(&asked)?;
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
    let (certificate, note) = believed(ready, named.as_deref());
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let call = Call {
        method: &method,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        peer: asked.peer.unwrap_or(IpAddr::from([127, 0, 0, 1])),
        scheme: if ready.tls.is_some() { "https" } else { "http" },
        host: host.unwrap_or(service.name.name()),
        certificate,
        trace: None,
    };
    let body = match ready.spec.health.page(&method, uri.path()) {
        Some(_) => ExplainAnswer {
            service: service.name.key(),
            generation: snapshot.generation,
            answered_by: AnsweredBy::Sidecar,
            upstream: None,
            auth: Explanation::not_asked(),
            note: None,
        },
        None => {
            let mut auth = ready.auth.explain(&call);
            let own = || ready.spec.upstream.target.to_string();
            ExplainAnswer {
                service: service.name.key(),
                generation: snapshot.generation,
                answered_by: AnsweredBy::App,
                upstream: Some(auth.upstream.take().unwrap_or_else(own)),
                auth,
                note,
            }
        }
    };
    Ok(Answer::json(200, json(&body)))
}

fn headers(asked: &ExplainBody) -> Result<HeaderMap, Kind> {
    let mut headers = HeaderMap::new();
    for (name, OneOrMany(values)) in &asked.headers {
        let name: HeaderName = name.parse().map_err(|_| Kind::BadRequest)?;
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|_| Kind::BadRequest)?;
            headers.append(&name, value);
        }
    }
    Ok(headers)
}

fn certificate(asked: &ExplainBody) -> Result<Option<Vec<MtlsName>>, Kind> {
    let Some(OneOrMany(names)) = &asked.certificate else {
        return Ok(None);
    };
    let names = names.iter().map(|name| MtlsName::parse(name));
    let names: Option<Vec<_>> = names.collect();
    names.ok_or(Kind::BadRequest).map(Some)
}

/// The certificate as the port would see it, and what is to be said of that.
fn believed<'a>(
    ready: &Ready,
    named: Option<&'a [MtlsName]>,
) -> (Option<&'a [MtlsName]>, Option<&'static str>) {
    let asks = ready
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    match named {
        Some(_) if asks => (named, None),
        Some(_) => (None, Some(NOT_ASKED_FOR)),
        None => {
            let policy = &ready.spec.auth;
            let own = [&policy.requirement].into_iter();
            let mut requirements = own.chain(
                policy
                    .rules
                    .iter()
                    .filter_map(|rule| rule.requirement.as_ref()),
            );
            let counts =
                requirements.any(|requirement| requirement.strategies().contains(&Strategy::Mtls));
            (None, counts.then_some(NO_CERTIFICATE))
        }
    }
}
