//! Who the client is, through proxies (FWD-1).

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::reserved::{fold, remove_where};
use super::seen::Seen;
use crate::model::{FieldLines, LineStart, TrustedProxies};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FOR_START: LineStart = LineStart::new("x-forwarded-for: ");
const HOST_START: LineStart = LineStart::new("x-forwarded-host: ");
const PROTO_START: LineStart = LineStart::new("x-forwarded-proto: ");
const REAL_IP_START: LineStart = LineStart::new("x-real-ip: ");
const FAMILY: &[u8] = b"x-forwarded-";
/// Longest chain of proxies that is read.
const MAX_HOPS: usize = 32;
/// `255.255.255.255`.
const MAX_V4_TEXT: usize = 15;

/// The client's side of a request, as far as forwarding headers may tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The right-most address that is no trusted proxy.
    pub address: IpAddr,
    /// The request carried forwarding headers.
    pub forwarded: bool,
    /// They came from a trusted proxy.
    pub trusted: bool,
}

impl Client {
    /// Reads; changes nothing.
    pub fn of(headers: &HeaderMap, seen: Seen, peer: IpAddr, trusted: &TrustedProxies) -> Self {
        let peer = peer.to_canonical();
        let forwarded = seen.has(Seen::FORWARDING);
        if !forwarded || !trusted.contains(peer) {
            return Self {
                address: peer,
                forwarded,
                trusted: false,
            };
        }
        Self {
            address: rightmost_untrusted(headers, peer, trusted),
            forwarded,
            trusted: true,
        }
    }
}

/// The scheme that the client spoke, where a trusted proxy says so.
pub fn client_scheme(headers: &HeaderMap, client: Client) -> Option<&'static str> {
    let told = told_by_proxy(headers, client, &X_FORWARDED_PROTO)?;
    ["https", "http"]
        .into_iter()
        .find(|scheme| told.as_bytes().eq_ignore_ascii_case(scheme.as_bytes()))
}

/// The authority that the client asked for, where a trusted proxy says so; not
/// checked.
pub fn client_host(headers: &HeaderMap, client: Client) -> Option<&HeaderValue> {
    told_by_proxy(headers, client, &X_FORWARDED_HOST)
}

/// Exactly one line: a list has more than one reading.
fn told_by_proxy<'a>(
    headers: &'a HeaderMap,
    client: Client,
    name: &HeaderName,
) -> Option<&'a HeaderValue> {
    if !client.trusted {
        return None;
    }
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn rightmost_untrusted(headers: &HeaderMap, peer: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    let lines: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .take(MAX_HOPS);
    let mut nearest = peer;
    for hop in hops {
        let Some(address) = parse_hop(hop) else {
            return nearest;
        };
        nearest = address;
        if !trusted.contains(address) {
            return address;
        }
    }
    nearest
}

/// An address with or without port or brackets; anything else ends the chain.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

/// Writes the forwarding headers toward the app into `ours`: those of an
/// untrusted peer are replaced, a trusted proxy's are continued. `peer` is the
/// peer's address, as [`address_value`] writes it.
pub fn write_forwarding(
    headers: &mut HeaderMap,
    ours: &mut FieldLines,
    client: Client,
    peer: (IpAddr, &HeaderValue),
    host: &HeaderValue,
    tls: bool,
) {
    let (peer, peer_value) = (peer.0.to_canonical(), peer.1);
    let mut had_forwarded = false;
    let mut told = (false, false);
    let mut hops = None;
    if client.forwarded {
        had_forwarded = headers.contains_key(header::FORWARDED);
        if client.trusted {
            hops = joined(headers, &X_FORWARDED_FOR, peer_value);
            headers.remove(X_REAL_IP);
            told = (
                headers.contains_key(X_FORWARDED_PROTO),
                headers.contains_key(X_FORWARDED_HOST),
            );
        } else {
            remove_where(headers, is_forwarding);
        }
    }
    let hops = hops.as_ref().unwrap_or(peer_value);
    ours.line(FOR_START).value(hops).end();
    if !told.0 {
        let proto = if tls { "https" } else { "http" };
        ours.line(PROTO_START).text(proto).end();
    }
    if !told.1 {
        ours.line(HOST_START).value(host).end();
    }
    let line = ours.line(REAL_IP_START);
    match client.address == peer {
        true => line.value(peer_value).end(),
        false => line.value(&address_value(client.address)).end(),
    }
    if had_forwarded {
        let element = forwarded_element(peer, host, tls);
        let elements = joined(headers, &header::FORWARDED, &element);
        ours.push(&header::FORWARDED, elements.as_ref().unwrap_or(&element));
    }
}

/// Whether a field speaks of the client's side, in any spelling.
pub(super) fn is_forwarding(name: &HeaderName) -> bool {
    let text = name.as_str().as_bytes();
    if *name == header::FORWARDED {
        return true;
    }
    if text.first() != Some(&b'x') || text.len() < X_REAL_IP.as_str().len() {
        return false;
    }
    let folds_to = |wanted: &[u8]| {
        text.iter()
            .zip(wanted)
            .all(|(byte, wanted)| fold(*byte) == *wanted)
    };
    (text.len() >= FAMILY.len() && folds_to(FAMILY))
        || (text.len() == X_REAL_IP.as_str().len() && folds_to(X_REAL_IP.as_str().as_bytes()))
}

/// Takes the lines of a field out, and appends to them, so that the app sees
/// one list; `None` where there are none.
fn joined(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
    let mut list: Vec<u8> = Vec::new();
    for line in headers.get_all(name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return None;
    }
    headers.remove(name);
    list.extend_from_slice(value.as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(list)).ok()
}

/// An address as a header value has it.
pub fn address_value(address: IpAddr) -> HeaderValue {
    let text = match address {
        IpAddr::V4(address) => {
            // Written often: `Display` takes a thousand instructions.
            let mut text = BytesMut::with_capacity(MAX_V4_TEXT);
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    text.put_u8(b'.');
                }
                put_decimal(&mut text, octet);
            }
            text.freeze()
        }
        IpAddr::V6(address) => Bytes::from(address.to_string()),
    };
    HeaderValue::from_maybe_shared(text).expect("an address is visible ASCII")
}

fn put_decimal(text: &mut BytesMut, octet: u8) {
    if octet >= 100 {
        text.put_u8(b'0' + octet / 100);
    }
    if octet >= 10 {
        text.put_u8(b'0' + octet / 10 % 10);
    }
    text.put_u8(b'0' + octet % 10);
}

/// RFC 7239 §4: IPv6 addresses in brackets and quotes.
fn forwarded_element(peer: IpAddr, host: &HeaderValue, tls: bool) -> HeaderValue {
    let node = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let proto = if tls { "https" } else { "http" };
    let host = host.to_str().unwrap_or_default().replace(['"', '\\'], "");
    HeaderValue::from_str(&format!("for={node};host=\"{host}\";proto={proto}"))
        .unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn addresses_are_written_as_display_does() {
        for text in [
            "0.0.0.0",
            "1.20.255.100",
            "255.255.255.255",
            "127.0.0.1",
            "10.99.101.9",
            "::1",
            "2001:db8::ff00:42:8329",
        ] {
            assert_eq!(address_value(ip(text)), text);
        }
    }

    fn trusted() -> TrustedProxies {
        TrustedProxies {
            networks: vec![],
            loopback: false,
            private: true,
        }
    }

    fn forwarded(headers: &mut HeaderMap, peer: &str) -> Client {
        let client = Client::of(headers, Seen::of(headers), ip(peer), &trusted());
        let mut ours = FieldLines::default();
        let peer = (ip(peer), &address_value(ip(peer).to_canonical()));
        let host = HeaderValue::from_static("shop");
        write_forwarding(headers, &mut ours, client, peer, &host, false);
        // Nothing of the client's stands beside what is ours.
        assert!(headers.keys().all(|name| !ours.has(name)));
        ours.insert_into(headers);
        client
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ascii"))
    }

    #[test]
    fn an_untrusted_peer_is_the_client() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_user", "root"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let client = forwarded(&mut headers, "203.0.113.7");
        assert_eq!(client.address, ip("203.0.113.7"));
        assert_eq!(text(&headers, "x-forwarded-for"), "203.0.113.7");
        assert_eq!(text(&headers, "x-real-ip"), "203.0.113.7");
        assert_eq!(
            text(&headers, "forwarded"),
            "for=203.0.113.7;host=\"shop\";proto=http"
        );
        for gone in ["x_forwarded_user", "x-forwarded-prefix", "x_real_ip"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_trusted_chain_is_followed_to_the_rightmost_untrusted() {
        let mut headers = HeaderMap::new();
        headers.append(
            "x-forwarded-for",
            HeaderValue::from_static("6.6.6.6, 9.9.9.9"),
        );
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.3"));
        headers.append("x-forwarded-proto", HeaderValue::from_static("https"));
        let client = forwarded(&mut headers, "::ffff:10.0.0.2");
        assert_eq!(client.address, ip("9.9.9.9"));
        assert_eq!(
            text(&headers, "x-forwarded-for"),
            "6.6.6.6, 9.9.9.9, 10.0.0.3, 10.0.0.2"
        );
        assert_eq!(text(&headers, "x-forwarded-proto"), "https");
        assert_eq!(text(&headers, "x-real-ip"), "9.9.9.9");
    }

    #[test]
    fn garbage_ends_the_chain() {
        let mut headers = HeaderMap::new();
        headers.append(
            "x-forwarded-for",
            HeaderValue::from_static("9.9.9.9, evil, [fd00::1]:8"),
        );
        let client = forwarded(&mut headers, "10.0.0.2");
        assert_eq!(client.address, ip("fd00::1"));
    }
}
