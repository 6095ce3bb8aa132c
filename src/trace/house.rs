//! The reference framework's headers: `x-trace-id`, `x-parent-service-id`,
//! `x-trace-depth`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::{LineStart, hex, is_safe_id};

pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
pub(super) const PARENT_SERVICE: HeaderName = HeaderName::from_static("x-parent-service-id");
pub(super) const DEPTH: HeaderName = HeaderName::from_static("x-trace-depth");
pub(super) const TRACE_ID_START: LineStart = LineStart::new("x-trace-id: ");
pub(super) const DEPTH_START: LineStart = LineStart::new("x-trace-depth: ");
/// On responses only.
pub(super) const SERVICE_START: LineStart = LineStart::new("x-trace-service: ");

/// `x-trace-id` as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HouseId {
    /// 32 hex digits of either case, not all zero: it is the trace id.
    Trace([u8; 16]),
    /// Another safe text: kept beside the trace id.
    Text(HeaderValue),
}

/// The id, unless there is none, several, or an unsafe one.
pub(super) fn read_id(headers: &HeaderMap) -> Option<HouseId> {
    let value = only(headers, &TRACE_ID).filter(|value| is_safe_id(value.as_bytes()))?;
    let lower = value.as_bytes().to_ascii_lowercase();
    Some(match hex::read_id(&lower) {
        Some(id) => HouseId::Trace(id),
        None => HouseId::Text(value.clone()),
    })
}

/// Who called, as the caller's sidecar says.
pub(super) fn read_parent_service(headers: &HeaderMap) -> Option<HeaderValue> {
    only(headers, &PARENT_SERVICE)
        .filter(|value| is_service_id(value.as_bytes()))
        .cloned()
}

/// How many services the request went through; anything odd counts as 0.
pub(super) fn read_depth(headers: &HeaderMap) -> u16 {
    only(headers, &DEPTH)
        .and_then(|value| parse_depth(value.as_bytes()))
        .unwrap_or(0)
}

/// Digits; what is too large for the type is as deep as can be.
pub(super) fn parse_depth(text: &[u8]) -> Option<u16> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = text.iter().map(|digit| u16::from(digit - b'0'));
    Some(digits.fold(0, |number: u16, digit| {
        number.saturating_mul(10).saturating_add(digit)
    }))
}

/// A safe id, or two joined by a slash.
pub(super) fn is_service_id(text: &[u8]) -> bool {
    text.len() <= 128 && text.splitn(2, |byte| *byte == b'/').all(is_safe_id)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart() {
        let of = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a value");
            read_id(&HeaderMap::from_iter([(TRACE_ID, value)]))
        };
        let hex = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert!(matches!(of(hex), Some(HouseId::Trace(_))));
        assert_eq!(of(hex), of(&hex.to_uppercase()));
        for text in ["order-77", &"0".repeat(32), &"z".repeat(32)] {
            assert!(matches!(of(text), Some(HouseId::Text(_))), "{text}");
        }
        for bad in ["", "a b", "a;b", "<x>", &"a".repeat(129)] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn depths_and_services() {
        for (text, depth) in [
            ("0", Some(0)),
            ("64", Some(64)),
            ("99999", Some(u16::MAX)),
            ("100000", Some(u16::MAX)),
            ("99999999999999999999999", Some(u16::MAX)),
            ("000064", Some(64)),
            ("-1", None),
            ("+1", None),
            ("", None),
        ] {
            assert_eq!(parse_depth(text.as_bytes()), depth, "{text}");
        }
        assert!(is_service_id(b"shop/users") && is_service_id(b"users"));
        for bad in [
            &b"shop/users/x"[..],
            b"/users",
            b"shop/",
            b"a b",
            b"a;b",
            b"",
        ] {
            assert!(!is_service_id(bad));
        }
    }
}
