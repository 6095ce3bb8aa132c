//! Addresses as people write them: `8080`, `host:port`, URLs, doors.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{Address, DoorListen};

/// An address whose port may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LooseAddress {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: Arc<str>,
    pub(super) port: Option<u16>,
    /// Whether a scheme was written.
    pub(super) is_url: bool,
}

impl LooseAddress {
    /// With the port a URL implies, or the one given.
    pub(super) fn with_port(&self, port: Option<u16>) -> Option<Address> {
        let implied = self.is_url.then_some(if self.tls { 443 } else { 80 });
        Some(Address {
            tls: self.tls,
            host: Arc::clone(&self.host),
            port: self.port.or(port).or(implied)?,
        })
    }
}

/// Parses `host`, `host:port`, `[v6]:port`, `http(s)://host[:port][/]`.
///
/// # Errors
/// What is wrong, without the text itself.
pub(super) fn parse_address(text: &str) -> Result<LooseAddress, String> {
    let (tls, is_url, rest) = if let Some(rest) = text.strip_prefix("https://") {
        (true, true, rest)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, true, rest)
    } else if text.contains("://") {
        return Err("only http:// and https:// are spoken".to_owned());
    } else {
        (false, false, text)
    };
    let rest = if is_url {
        rest.strip_suffix('/').unwrap_or(rest)
    } else {
        rest
    };
    if rest.contains(['/', '?', '#']) {
        return Err("takes no path or query".to_owned());
    }
    if rest.contains('@') {
        return Err("takes no user or password".to_owned());
    }
    let (host, port) = split_port(rest)?;
    if !is_host(host) {
        return Err("expected host:port or a URL".to_owned());
    }
    Ok(LooseAddress {
        tls,
        host: Arc::from(host),
        port,
        is_url,
    })
}

/// Splits `host:port` and `[v6]:port`; a bare IPv6 address has no port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let bad = || "the port must be a number from 1 to 65535".to_owned();
    let parse = |port: &str| match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(bad()),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| "the bracket is not closed".to_owned())?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("brackets are for IPv6 addresses".to_owned());
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, parse(port)?)),
            None if after.is_empty() => Ok((host, None)),
            None => Err(bad()),
        };
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, parse(port)?)),
        None => Ok((text, None)),
    }
}

/// A host name or address literal, without brackets.
fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
        || (!host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !host.starts_with(['.', '-']))
}

/// Whether a host is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Parses the address of a door: `off`, a port, or `address:port`.
///
/// # Errors
/// What is wrong.
pub(super) fn parse_door(text: &str, default: IpAddr) -> Result<DoorListen, String> {
    if matches!(text, "off" | "false") {
        return Ok(DoorListen::Off);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(DoorListen::At(SocketAddr::new(default, port)));
    }
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse::<SocketAddr>()
        .map(DoorListen::At)
        .map_err(|_| "expected address:port, a port, or off".to_owned())
}

/// Parses an `http` or `https` URL that may have a path and a query.
///
/// # Errors
/// What is wrong, without the text itself.
pub(super) fn parse_url(text: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text.parse().map_err(|_| "expected a URL".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("expected an http:// or https:// URL".to_owned());
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("takes no user or password".to_owned())
        }
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err("the URL names no host".to_owned()),
    }
}

/// Whether a URL's host is this machine itself.
pub(super) fn is_loopback_url(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    is_loopback(host.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("payments", Some((false, "payments", None))),
            ("payments:3003", Some((false, "payments", Some(3003)))),
            (
                "https://pay.example/",
                Some((true, "pay.example", Some(443))),
            ),
            ("http://[::1]:80", Some((false, "::1", Some(80)))),
            ("::1", Some((false, "::1", None))),
            ("[::1]:9", Some((false, "::1", Some(9)))),
            ("ftp://x", None),
            ("http://user@x", None),
            ("http://x/path", None),
            ("x:0", None),
            ("x:65536", None),
            ("", None),
            (":80", None),
            ("a b", None),
            ("[x]:80", None),
        ] {
            let parsed = parse_address(text).ok();
            let flat = parsed.as_ref().map(|address| {
                let port = address.with_port(None).map(|full| full.port);
                (address.tls, &*address.host, port)
            });
            assert_eq!(flat, expected, "{text}");
        }
    }

    #[test]
    fn doors() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(parse_door("off", local), Ok(DoorListen::Off));
        assert_eq!(
            parse_door("localhost:1", local),
            Ok(DoorListen::At(SocketAddr::new(local, 1)))
        );
        assert_eq!(
            parse_door("0", local),
            Ok(DoorListen::At(SocketAddr::new(local, 0)))
        );
        assert!(parse_door("example.com:1", local).is_err());
    }
}
