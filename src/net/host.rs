//! What a request to a door of this machine says of where it comes from.
//!
//! Loopback is no authentication: a web page on a developer's machine reaches
//! it too. Such a page cannot choose its `Host` (DNS rebinding shows the
//! attacker's name there) and cannot leave `Origin` out of a change.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

use crate::model::Kind;

/// Whether a web page made the request. Browsers send `Origin` with every change
/// and `Sec-Fetch-Site` with everything; `none` there is an address typed by a
/// person.
pub fn is_from_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        || headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "none" && site != "same-origin")
}

/// Whether a request is for a door of this machine: its host is an IP literal,
/// `localhost` or listed.
///
/// # Errors
/// `BadRequest` without exactly one host, `Misdirected` for another one.
pub fn check_host(uri: &Uri, headers: &HeaderMap, hosts: &[Arc<str>]) -> Result<(), Kind> {
    let mut values = headers.get_all(HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Kind::BadRequest)?,
        _ => return Err(Kind::BadRequest),
    };
    // In absolute form the target's authority wins (RFC 9112 §3.2.2).
    let host = uri.authority().map_or(host, |authority| authority.as_str());
    if is_served(host, hosts) {
        Ok(())
    } else {
        Err(Kind::Misdirected)
    }
}

/// `host[:port]` that is an IP literal, `localhost` or listed.
fn is_served(host: &str, hosts: &[Arc<str>]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (name, port) = match host.find(':') {
        Some(colon) => host.split_at(colon),
        None => (host, ""),
    };
    let is_name = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    is_port(port)
        && (name.parse::<Ipv4Addr>().is_ok()
            || is_name("localhost")
            || hosts.iter().any(|listed| is_name(listed)))
}

/// Nothing, or a colon and a number.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(number) => {
            number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u16>().is_ok()
        }
        None => text.is_empty(),
    }
}
