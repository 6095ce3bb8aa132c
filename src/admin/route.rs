//! Path and method to page.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{Door, DoorKind, change, explain, gate, pages, probes};
use crate::model::Kind;
use crate::reply::{ReplyContext, problem};
use crate::telemetry::metrics::TEXT_FORMAT;
use crate::trace::{IdGenerator, RequestId, request_id};

/// What a door can answer with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Page<'a> {
    Metrics,
    Live,
    Started,
    Ready,
    ReadyService(&'a str),
    ServicesHealth,
    Services,
    Pools,
    Explain,
    Reload,
    Drain,
    Quit,
    LogLevel,
}

impl<'a> Page<'a> {
    /// Pages have no other spelling: no trailing slash, no encoding.
    fn at(path: &'a str) -> Option<Self> {
        Some(match path {
            "/metrics" => Self::Metrics,
            "/livez" => Self::Live,
            "/startupz" => Self::Started,
            "/readyz" => Self::Ready,
            "/health/services" => Self::ServicesHealth,
            "/services" => Self::Services,
            "/pools" => Self::Pools,
            "/explain" => Self::Explain,
            "/reload" => Self::Reload,
            "/drain" => Self::Drain,
            "/quitquitquit" => Self::Quit,
            "/log-level" => Self::LogLevel,
            _ => Self::ReadyService(
                path.strip_prefix("/readyz/")
                    .filter(|name| !name.is_empty())?,
            ),
        })
    }

    /// Whether the observe door has it too.
    const fn is_public(&self) -> bool {
        match self {
            Self::Metrics | Self::Live | Self::Started | Self::Ready | Self::ReadyService(_) => {
                true
            }
            Self::ServicesHealth
            | Self::Services
            | Self::Pools
            | Self::Explain
            | Self::Reload
            | Self::Drain
            | Self::Quit
            | Self::LogLevel => false,
        }
    }

    /// The `Allow` of a 405.
    const fn allow(&self) -> &'static str {
        match self {
            Self::Metrics
            | Self::Live
            | Self::Started
            | Self::Ready
            | Self::ReadyService(_)
            | Self::ServicesHealth
            | Self::Services
            | Self::Pools => "GET, HEAD",
            Self::Explain | Self::Reload | Self::Drain | Self::Quit => "POST",
            Self::LogLevel => "PUT",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|name| name == method.as_str())
    }
}

/// What a page sends back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

impl Answer {
    /// JSON that is already bytes.
    pub(super) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("pages use statuses of three digits"),
            content_type: "application/json",
            body: body.into(),
        }
    }
}

/// Answers one request.
pub(super) async fn answer(
    door: &Door,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Response<Bytes> {
    let id = request_id(request.headers(), &IdGenerator::new());
    let head = request.method() == Method::HEAD;
    match dispatch(door, request, peer).await {
        Ok(answer) => finish(answer, &id),
        Err((kind, allow)) => {
            let mut context = ReplyContext::door(id.as_str());
            context.head = head;
            context.allow = allow;
            problem(kind, &context)
        }
    }
}

/// The kind of failure and the `Allow` that would go with it.
type Refusal = (Kind, &'static str);

async fn dispatch(
    door: &Door,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Answer, Refusal> {
    let observe = matches!(door.kind, DoorKind::Observe);
    let path = request.uri().path().to_owned();
    let page = Page::at(&path).filter(|page| !observe || page.is_public());
    // The gate comes first: a stranger does not learn which pages there are.
    let public = page.as_ref().is_some_and(Page::is_public);
    let house = &door.house;
    let settings = Arc::clone(&house.current.load().settings);
    let token = settings.admin.token.as_ref();
    gate::check(&door.kind, token, &request, peer, public).map_err(|kind| (kind, ""))?;
    let page = page.ok_or((Kind::NotFound, ""))?;
    if page == Page::Quit && !settings.shutdown.quit_endpoint {
        return Err((Kind::NotFound, ""));
    }
    if !page.allows(request.method()) {
        return Err((Kind::MethodNotAllowed, page.allow()));
    }
    let result = match page {
        Page::Metrics => pages::metrics(house).await,
        Page::Live => Ok(probes::live(house)),
        Page::Started => Ok(probes::started(house)),
        Page::Ready => Ok(probes::ready(house)),
        Page::ReadyService(name) => probes::ready_service(house, name),
        Page::ServicesHealth => pages::services_health(house).await,
        Page::Services => pages::services(house).await,
        Page::Pools => pages::pools(house).await,
        Page::Explain => explain::explain(house, request).await,
        Page::Reload => change::reload(house, &request).await,
        Page::Drain => change::drain(house),
        Page::Quit => change::quit(house),
        Page::LogLevel => change::log_level(house, request).await,
    };
    result.map_err(|kind| (kind, ""))
}

fn finish(answer: Answer, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(crate::trace::REQUEST_ID, id.value().clone());
    response
}

/// For the metrics page, whose type is not JSON.
pub(super) fn exposition(text: String) -> Answer {
    Answer {
        status: StatusCode::OK,
        content_type: TEXT_FORMAT,
        body: Bytes::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_one_spelling() {
        assert_eq!(
            Page::at("/readyz/shop/users"),
            Some(Page::ReadyService("shop/users"))
        );
        for path in [
            "/",
            "/metrics/",
            "/Metrics",
            "/readyz/",
            "/reload/x",
            "//metrics",
            "/%6detrics",
        ] {
            assert_eq!(Page::at(path), None, "{path}");
        }
    }

    #[test]
    fn what_changes_something_is_not_public() {
        for path in [
            "/explain",
            "/reload",
            "/drain",
            "/quitquitquit",
            "/log-level",
            "/services",
        ] {
            let page = Page::at(path).expect("a page");
            assert!(!page.is_public(), "{path}");
        }
        assert!(Page::Reload.allows(&Method::POST));
        assert!(!Page::Reload.allows(&Method::GET));
        assert!(Page::Metrics.allows(&Method::HEAD));
    }
}
