//! The request a hook gets.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Uri};

use crate::auth::BuildError;
use crate::auth::call::Call;
use crate::auth::carrier::X_API_KEY;
use crate::model::FieldLines;
use crate::model::{FRAMING_HEADERS, HookPolicy, HookPreset};
use crate::trace;
use crate::upstream::h1::{Framing, RequestHead, Target};

static X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
static X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static X_AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");

/// How a question is put.
#[derive(Debug)]
pub(super) struct Shape {
    style: Style,
    /// Path and query of the hook's URL.
    target: Bytes,
    /// Its authority.
    host: HeaderValue,
    /// Client headers that go along.
    headers: Box<[HeaderName]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// GET with `X-Forwarded-*`: Traefik forwardAuth, Caddy forward_auth.
    Forwarded,
    /// The same with what nginx snippets for auth_request add.
    Subrequest,
    /// Method, path and host of the request itself, the path below the hook's:
    /// Envoy ext_authz over HTTP.
    Mirrored,
}

impl Shape {
    pub(super) fn build(policy: &HookPolicy, uri: &Uri) -> Result<Self, BuildError> {
        let style = match policy.preset {
            None | Some(HookPreset::Traefik | HookPreset::Caddy) => Style::Forwarded,
            Some(HookPreset::Nginx) => Style::Subrequest,
            Some(HookPreset::Envoy) => Style::Mirrored,
        };
        let authority = uri.authority().ok_or(BuildError::HookUrl)?.as_str();
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let target = match style {
            Style::Mirrored => uri.path().trim_end_matches('/'),
            Style::Forwarded | Style::Subrequest => {
                uri.path_and_query().map_or("/", |target| target.as_str())
            }
        };
        let headers = match &policy.request_headers {
            Some(names) => header_names(names)?,
            None => [AUTHORIZATION, COOKIE, X_API_KEY.clone(), USER_AGENT, ACCEPT].into(),
        };
        Ok(Self {
            style,
            target: Bytes::copy_from_slice(target.as_bytes()),
            host: HeaderValue::from_str(authority).map_err(|_| BuildError::HookUrl)?,
            headers,
        })
    }

    /// The question about a request.
    pub(super) fn question(&self, call: &Call<'_>) -> RequestHead {
        let mut headers = HeaderMap::with_capacity(24);
        for name in &self.headers {
            for value in call.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        self.describe(call, &mut headers);
        // Where this hop makes none, those of the request itself.
        if call.trace.is_none() {
            for name in &trace::CARRIERS {
                if let Some(value) = call.headers.get(name) {
                    headers.insert(name, value.clone());
                }
            }
        }
        let (method, target, framing) = match self.style {
            Style::Forwarded | Style::Subrequest => {
                (Method::GET, self.target.clone(), Framing::None)
            }
            Style::Mirrored => {
                let mut target = self.target.to_vec();
                target.extend_from_slice(path_and_query(call).as_bytes());
                let framing = match *call.method {
                    Method::GET | Method::HEAD => Framing::None,
                    _ => Framing::Length(0),
                };
                (call.method.clone(), Bytes::from(target), framing)
            }
        };
        RequestHead {
            method,
            target: Target::Made(target),
            headers,
            ours: FieldLines::default(),
            framing,
            upgrade: None,
            http2: false,
        }
    }

    /// Our word on the request, which replaces what the client says of itself.
    fn describe(&self, call: &Call<'_>, headers: &mut HeaderMap) {
        let uri = path_and_query(call);
        let client = call.peer.to_canonical().to_string();
        set(headers, &X_FORWARDED_PROTO, call.scheme);
        set(headers, &X_FORWARDED_HOST, call.host);
        set(headers, &X_FORWARDED_FOR, &client);
        set(headers, &X_FORWARDED_METHOD, call.method.as_str());
        set(headers, &X_FORWARDED_URI, &uri);
        match self.style {
            Style::Forwarded => {
                headers.insert(HOST, self.host.clone());
            }
            Style::Subrequest => {
                headers.insert(HOST, self.host.clone());
                set(headers, &X_REAL_IP, &client);
                set(headers, &X_ORIGINAL_METHOD, call.method.as_str());
                set(headers, &X_ORIGINAL_URI, &uri);
                set(headers, &X_ORIGINAL_URL, &original_url(call));
                set(headers, &X_AUTH_REQUEST_REDIRECT, &uri);
            }
            Style::Mirrored => {
                let host = HeaderValue::from_str(call.host).unwrap_or_else(|_| self.host.clone());
                headers.insert(HOST, host);
            }
        }
    }
}

/// A value that no header can carry leaves the header out.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => {
            headers.remove(name);
        }
    }
}

/// The request's target in origin form.
pub(super) fn path_and_query(call: &Call<'_>) -> String {
    let mut text = String::with_capacity(call.path.len() + 1);
    text.push_str(call.path);
    if let Some(query) = call.query {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// The request's target in absolute form.
pub(super) fn original_url(call: &Call<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{}://{}{}",
        call.scheme,
        call.host,
        path_and_query(call)
    );
    text
}

/// Configured header names.
pub(super) fn header_names(names: &[Arc<str>]) -> Result<Box<[HeaderName]>, BuildError> {
    names
        .iter()
        .map(|name| {
            HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !FRAMING_HEADERS.contains(&name.as_str()))
                .ok_or_else(|| BuildError::HeaderName(name.to_string()))
        })
        .collect()
}
