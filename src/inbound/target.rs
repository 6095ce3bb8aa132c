//! Whom a request is for: the host, which no parser checks.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Version};

use crate::model::{Failure, Kind};

/// The authority of the request, which is also the `Host` the app will see.
/// `fallback` stands in for HTTP/1.0 clients that send none.
///
/// # Errors
/// `bad_request` unless there is exactly one valid authority (SMUG-4, SMUG-5).
pub(super) fn authority(parts: &Parts, fallback: &HeaderValue) -> Result<HeaderValue, Failure> {
    check_form(parts)?;
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return refuse("more than one Host");
    }
    if let Some(host) = host
        && !is_authority(host.as_bytes())
    {
        return refuse("invalid Host");
    }
    let Some(target) = parts.uri.authority() else {
        return match host {
            Some(host) => Ok(host.clone()),
            None if parts.version == Version::HTTP_10 => Ok(fallback.clone()),
            None => refuse("no Host"),
        };
    };
    if !is_authority(target.as_str().as_bytes()) {
        return refuse("invalid authority in the target");
    }
    let differs = |host: &HeaderValue| {
        !host
            .as_bytes()
            .eq_ignore_ascii_case(target.as_str().as_bytes())
    };
    if parts.version == Version::HTTP_2 && host.is_some_and(differs) {
        return refuse(":authority and Host differ");
    }
    if parts.version == Version::HTTP_11 && host.is_none() {
        return refuse("no Host");
    }
    HeaderValue::from_str(target.as_str()).or_else(|_| refuse("invalid authority in the target"))
}

/// The forms of RFC 9112 §3.2 that a service is asked in: `*` belongs to OPTIONS,
/// a bare authority to CONNECT, and only http(s) has a service behind it.
fn check_form(parts: &Parts) -> Result<(), Failure> {
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return refuse("the target `*` outside OPTIONS");
    }
    match parts.uri.scheme_str() {
        Some("http" | "https") => Ok(()),
        Some(_) => refuse("a target that is neither http nor https"),
        None if parts.uri.authority().is_some() => refuse("an authority as target"),
        None => Ok(()),
    }
}

/// `host [ ":" port ]`, not empty, without user information (RFC 9110 §7.2).
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    is_plain_host(bytes) || is_other_authority(bytes)
}

/// Letters, digits, `-` and `.`.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        byte += 1;
    }
    plain
};

/// A name or an IPv4 address, with a port or without: what nearly every request
/// has, told without the parser.
fn is_plain_host(bytes: &[u8]) -> bool {
    let plain = |byte: &&u8| PLAIN[usize::from(**byte)];
    let length = bytes.iter().take_while(plain).count();
    let (host, rest) = bytes.split_at(length);
    !host.is_empty()
        && match rest {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// Up to five digits, 65535 at most.
fn is_port(bytes: &[u8]) -> bool {
    (1..=5).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_digit)
        && bytes
            .iter()
            .fold(0, |port, digit| port * 10 + u32::from(digit - b'0'))
            <= u16::MAX.into()
}

fn is_other_authority(bytes: &[u8]) -> bool {
    !bytes.contains(&b'@')
        && Authority::try_from(bytes).is_ok_and(|authority| {
            // `port()` is `None` for a port that is no number.
            let rest = authority.as_str().strip_prefix(authority.host());
            !authority.host().is_empty()
                && is_unmixed(authority.host())
                && rest.is_some_and(|rest| match rest {
                    "" | ":" => true,
                    _ => rest.starts_with(':') && authority.port().is_some(),
                })
        })
}

/// Without brackets, or nothing but an IPv6 address in them: the parser takes
/// other text around them.
fn is_unmixed(host: &str) -> bool {
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.contains(['[', ']']),
    }
}

fn refuse<T>(reason: &'static str) -> Result<T, Failure> {
    Err(Failure::because(Kind::BadRequest, reason))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("legal").into_parts().0
    }

    fn host(version: Version, target: &str, fields: &[(&str, &str)]) -> Option<String> {
        let authority = authority(
            &parts(version, target, fields),
            &HeaderValue::from_static("own"),
        );
        authority
            .ok()
            .map(|value| value.to_str().expect("ascii").to_owned())
    }

    #[test]
    fn exactly_one_valid_host() {
        let v11 = Version::HTTP_11;
        assert_eq!(
            host(v11, "/", &[("host", "shop:80")]).as_deref(),
            Some("shop:80")
        );
        assert_eq!(
            host(v11, "/", &[("host", "[::1]:80")]).as_deref(),
            Some("[::1]:80")
        );
        assert_eq!(host(Version::HTTP_10, "/", &[]).as_deref(), Some("own"));
        for bad in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "a b")],
        ] {
            assert_eq!(host(v11, "/", bad), None, "{bad:?}");
        }
        for port in ["a:abc", "a:99999", "a:1:2", "[::1]:x"] {
            assert_eq!(host(v11, "/", &[("host", port)]), None, "{port}");
        }
        for mixed in [
            "a[::1]:80",
            "[::1]x:80",
            "[::1]:80[",
            "[::1][::1]",
            "[a]",
            "[]",
        ] {
            assert_eq!(host(v11, "/", &[("host", mixed)]), None, "{mixed}");
        }
        for whole in ["[::1]", "[2001:db8::7]:8080", "[::ffff:192.0.2.1]"] {
            assert_eq!(host(v11, "/", &[("host", whole)]).as_deref(), Some(whole));
        }
        assert_eq!(host(v11, "/", &[("host", "user@shop")]), None);
        assert_eq!(host(v11, "/", &[("host", "a/b")]), None);
    }

    /// What is told without the parser, the parser would have told.
    #[test]
    fn the_short_way_is_the_parsers() {
        let ports = (0..=100_000).map(|port| format!("shop:{port}"));
        let others = [
            "", ":", ":1", "a:", "a:00080", "a:-1", "a:+1", "a:1a", "a:065536",
        ];
        for text in ports.chain(others.map(str::to_owned)) {
            let bytes = text.as_bytes();
            let is_plain = is_plain_host(bytes);
            assert!(!is_plain || is_other_authority(bytes), "{text}");
            let has_port = text.starts_with("shop:") && !text.ends_with("100000");
            assert!(
                is_plain || !has_port || !is_other_authority(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn the_target_wins_over_host() {
        let fields = [("host", "other")];
        let absolute = host(Version::HTTP_11, "http://shop/x", &fields);
        assert_eq!(absolute.as_deref(), Some("shop"));
        assert_eq!(host(Version::HTTP_11, "http://user@shop/x", &fields), None);
        assert_eq!(host(Version::HTTP_2, "http://shop/x", &fields), None);
    }
}
