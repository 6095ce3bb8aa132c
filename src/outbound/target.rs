//! Whom a call is for. Nothing is reached that is not a declared dependency of
//! a local service, whatever a request says.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, Method, Version};

use super::Entry;
use super::directory::{Directory, Found};
use crate::model::{Failure, Kind};
use crate::snapshot::Dependency;

/// Names the dependency on the shared door.
const SERVICE: HeaderName = HeaderName::from_static("x-outrigger-service");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// `localhost`, as clients of a local port call it.
const LOCALHOST: &str = "localhost";

/// Finds caller and dependency, or says why there are none.
///
/// # Errors
/// 404 for what is no dependency, 405 for methods that could reach farther or
/// read a credential, 403 for web pages, 400 and 421 for the host.
pub(super) fn find(directory: &Directory, entry: Entry, parts: &Parts) -> Result<Found, Failure> {
    // TRACE would show the app its caller's credential (RFC 9110 §9.3.8).
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Failure::new(Kind::MethodNotAllowed));
    }
    refuse_pages(directory, parts)?;
    let asked = Asked::of(parts)?;
    match entry {
        Entry::LocalPort { slot, port } => {
            let found = directory.by_port(slot, port);
            let found = found.ok_or_else(|| unknown("no dependency has this port"))?;
            let strict = directory.settings.outbound.strict || asked.proxied;
            let elsewhere = asked.proxied && asked.port.is_some_and(|asked| !is_own(asked, port));
            if elsewhere || (strict && !is_for(&asked, &found.route.dependency)) {
                return Err(match asked.proxied {
                    true => unknown("not what this port is for"),
                    false => Failure::because(Kind::Misdirected, "a Host from elsewhere"),
                });
            }
            Ok(found)
        }
        Entry::Door { port } => at_door(directory, port, &asked, parts),
    }
}

/// The shared door: by absolute target, by header, or by `Host`.
fn at_door(
    directory: &Directory,
    door_port: u16,
    asked: &Asked<'_>,
    parts: &Parts,
) -> Result<Found, Failure> {
    let named = match header(parts, &SERVICE)? {
        Some(name) if !asked.proxied => Some(name),
        _ => None,
    };
    if asked.port.is_some_and(|port| !is_own(port, door_port)) {
        return Err(unknown("a port of its own is named: calls here go by name"));
    }
    let undeclared = || unknown("no local service declares a dependency of this name");
    if let Some(name) = named {
        let found = directory.by_name(name).ok_or_else(undeclared)?;
        return match is_for(asked, &found.route.dependency) {
            true => Ok(found),
            false => Err(unknown("Host and x-outrigger-service differ")),
        };
    }
    directory.by_name(asked.name).ok_or_else(undeclared)
}

/// Ports a name may be given with: HTTP's own, and that of the door itself, as
/// clients for whom the name resolves to this machine write it.
fn is_own(port: u16, door_port: u16) -> bool {
    port == 80 || port == door_port
}

/// A page must not use what listens on its user's machine.
fn refuse_pages(directory: &Directory, parts: &Parts) -> Result<(), Failure> {
    let allowed = &directory.settings.outbound.allow_origins;
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    if let Some(origin) = origins.next() {
        let listed = |one: &std::sync::Arc<str>| one.as_bytes() == origin.as_bytes();
        return match allowed.iter().any(listed) && origins.next().is_none() {
            true => Ok(()),
            false => Err(Failure::because(
                Kind::CrossSite,
                "an Origin that is not allowed",
            )),
        };
    }
    let mut sites = parts.headers.get_all(SEC_FETCH_SITE).iter();
    match sites.all(|site| matches!(site.as_bytes(), b"none" | b"same-origin")) {
        true => Ok(()),
        false => Err(Failure::because(
            Kind::CrossSite,
            "a cross-site Sec-Fetch-Site",
        )),
    }
}

/// The authority a request names.
struct Asked<'a> {
    /// Of letters, digits, `.`, `-`; or an IP literal without brackets.
    name: &'a str,
    port: Option<u16>,
    /// As to a proxy: the target is absolute, in HTTP/1.
    proxied: bool,
}

impl<'a> Asked<'a> {
    fn of(parts: &'a Parts) -> Result<Self, Failure> {
        let host = header(parts, &HOST)?;
        let target = parts.uri.authority().map(http::uri::Authority::as_str);
        let proxied = parts.version < Version::HTTP_2 && target.is_some();
        let differs = |host: &str| target.is_some_and(|target| !target.eq_ignore_ascii_case(host));
        if parts.version == Version::HTTP_2 && host.is_some_and(differs) {
            return Err(bad(":authority and Host differ"));
        }
        if parts.version == Version::HTTP_11 && host.is_none() {
            return Err(bad("no Host"));
        }
        if proxied && parts.uri.scheme_str() != Some("http") {
            return Err(unknown("only http:// is called through here"));
        }
        let authority = target.or(host).ok_or_else(|| bad("no Host"))?;
        let (name, port) = split(authority).ok_or_else(|| unknown("the host is no name"))?;
        Ok(Self {
            name,
            port,
            proxied,
        })
    }
}

/// Whether a request that came for this dependency says nothing else: a client
/// of a local port names loopback, or the dependency itself.
fn is_for(asked: &Asked<'_>, dependency: &Dependency) -> bool {
    let loopback = asked.name.eq_ignore_ascii_case(LOCALHOST)
        || asked
            .name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    (loopback && !asked.proxied) || (dependency.is_called(asked.name) && !asked.name.contains('/'))
}

/// `name[:port]` or `[v6][:port]`; `None` for anything else, user information
/// and percent-encoding above all.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (name, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(digits(port)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        name.parse::<std::net::Ipv6Addr>().ok()?;
        return Some((name, port));
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, Some(digits(port)?)),
        None => (authority, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (!name.is_empty() && name.bytes().all(plain)).then_some((name, port))
}

fn digits(text: &str) -> Option<u16> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// A field that may be there once.
fn header<'a>(parts: &'a Parts, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(bad("a name that is no text")),
        },
        (Some(_), Some(_)) => Err(bad("a name given twice")),
    }
}

fn unknown(reason: &'static str) -> Failure {
    Failure::because(Kind::UnknownService, reason)
}

fn bad(reason: &'static str) -> Failure {
    Failure::because(Kind::BadRequest, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_read() {
        for (text, expected) in [
            ("payments", Some(("payments", None))),
            ("payments.shop:80", Some(("payments.shop", Some(80)))),
            ("[::1]:9901", Some(("::1", Some(9901)))),
            ("127.0.0.1", Some(("127.0.0.1", None))),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        for text in [
            "",
            ":80",
            "payments:",
            "payments:x",
            "payments:+80",
            "payments:99999",
            "payments:80:80",
            "user@payments",
            "user:pass@payments",
            "payments%2eevil",
            "payments/evil",
            "payments\\evil",
            "payments#evil",
            "[::1",
            "[::1]x",
            "[payments]",
            "pay ments",
            "päyments",
        ] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
