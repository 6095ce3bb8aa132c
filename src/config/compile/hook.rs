//! Strategy `custom`: somebody else is asked.

use std::sync::Arc;
use std::time::Duration;

use super::auth::shadows_credential;
use super::context::Context;
use super::names::{header_name, is_reserved_header};
use super::tls;
use crate::config::address::parse_url;
use crate::config::raw::{RawHook, RawHookPreset};
use crate::model::{FRAMING_HEADERS, HookPolicy, HookPreset};

/// Compiles the block.
pub(super) fn compile(written: Option<&RawHook>, context: &mut Context<'_>) -> Option<HookPolicy> {
    let Some(written) = written else {
        context.report.error_hint(
            "auth",
            "strategy custom needs `auth.hook`",
            "set `auth.hook.url` to the service that decides",
        );
        return None;
    };
    let is_https = check(written, context);
    let request_headers = written
        .request_headers
        .as_ref()
        .map(|list| headers(list, "auth.hook.requestHeaders", false, context));
    let response_headers = written
        .response_headers
        .as_ref()
        .map(|list| headers(list, "auth.hook.responseHeaders", true, context))
        .unwrap_or_default();
    let tls = is_https.then(|| {
        let tls = written.tls.clone().unwrap_or_default();
        tls::client(&tls, "auth.hook.tls", context)
    });
    Some(HookPolicy {
        url: written.url.clone().unwrap_or_default(),
        preset: written.preset.map(|preset| match preset {
            RawHookPreset::Traefik => HookPreset::Traefik,
            RawHookPreset::Nginx => HookPreset::Nginx,
            RawHookPreset::Envoy => HookPreset::Envoy,
            RawHookPreset::Caddy => HookPreset::Caddy,
        }),
        timeout: context.duration(
            "auth.hook.timeout",
            written.timeout,
            Duration::from_millis(500),
        ),
        fail_open: written.fail_open.unwrap_or(false),
        request_headers,
        response_headers,
        sign_in: written.sign_in.clone(),
        cache: written.cache.map_or(Duration::ZERO, |cache| cache.0),
        max_in_flight: context.count("auth.hook.maxInFlight", written.max_in_flight, 256),
        tls,
    })
}

/// Checks what is written about the hook's place; gives whether TLS is spoken.
fn check(written: &RawHook, context: &mut Context<'_>) -> bool {
    let mut is_https = false;
    match written.url.as_deref().map(parse_url) {
        None => context.report.error("auth.hook", "needs `url`"),
        Some(Ok(uri)) => is_https = uri.scheme_str() == Some("https"),
        Some(Err(message)) => context.report.error("auth.hook.url", message),
    }
    if written.tls.is_some() && !is_https {
        context
            .report
            .error("auth.hook.tls", "has no use without an https:// url");
    }
    if let Some(sign_in) = &written.sign_in
        && (!sign_in.bytes().all(|byte| byte.is_ascii_graphic())
            || (!sign_in.starts_with('/') && parse_url(sign_in).is_err()))
    {
        context
            .report
            .error("auth.hook.signIn", "expected a URL or a path");
    }
    if written.fail_open == Some(true) {
        context.report.warn(
            "auth.hook.failOpen",
            "requests pass without identity while the hook fails",
        );
    }
    is_https
}

/// Header names in lower case; of the answer only those the app may be given.
fn headers(
    list: &[String],
    key: &str,
    is_answer: bool,
    context: &mut Context<'_>,
) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let key = format!("{key}[{index}]");
        match header_name(text) {
            None => context.report.error(&key, "is no header name"),
            Some(name) if is_answer && (is_reserved_header(&name) || shadows_credential(&name)) => {
                context.report.error(&key, "this header cannot be set");
            }
            Some(name) if !is_answer && FRAMING_HEADERS.contains(&&*name) => {
                context
                    .report
                    .error(&key, "this header cannot be passed on");
            }
            Some(name) if names.contains(&name) => {}
            Some(name) => names.push(name),
        }
    }
    names
}
