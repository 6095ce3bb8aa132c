//! `x-request-id`: kept when it is safe, else made (SPEC §4).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ids::IdGenerator;
use crate::model::hex;

/// The header, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one request: 1 to 128 of `A-Z a-z 0-9 . _ -`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// A new one: 32 hex digits.
    pub fn generate(ids: &IdGenerator) -> Self {
        let mut text = [0; 32];
        hex::write(&ids.trace_id(), &mut text);
        Self(HeaderValue::from_bytes(&text).expect("hex digits are visible ASCII"))
    }

    /// As text, for logs and bodies: nothing in it needs escaping.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As header value, for the request to the app and the response.
    pub const fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// The id of a request with these headers: the client's when there is exactly
/// one and it is safe, without copying it, else a new one.
pub fn request_id(headers: &HeaderMap, ids: &IdGenerator) -> RequestId {
    let mut values = headers.get_all(REQUEST_ID).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if is_safe_id(value.as_bytes()) => RequestId(value.clone()),
        _ => RequestId::generate(ids),
    }
}

/// Whether an id may be kept, logged and sent on: `[A-Za-z0-9._-]{1,128}`.
pub fn is_safe_id(bytes: &[u8]) -> bool {
    (1..=128).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id_of(values: &[&[u8]]) -> RequestId {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.append(REQUEST_ID, value);
        }
        request_id(&headers, &IdGenerator::with_seed(1))
    }

    #[test]
    fn safe_ids_are_kept_and_others_replaced() {
        let made = RequestId::generate(&IdGenerator::with_seed(1));
        assert_eq!(made.as_str().len(), 32);
        assert_eq!(id_of(&[b"a-B_c.9"]).as_str(), "a-B_c.9");
        assert_eq!(id_of(&[&[b'x'; 128]]).as_str().len(), 128);
        for bad in [
            &b""[..],
            b"a b",
            b"a\"b",
            b"<script>",
            b"a,b",
            b"\xff",
            &[b'x'; 129],
        ] {
            assert_eq!(id_of(&[bad]), made);
        }
        assert_eq!(id_of(&[]), made);
        assert_eq!(id_of(&[b"one", b"two"]), made);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_id_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if HeaderValue::from_bytes(&bytes).is_ok() {
                prop_assert!(is_safe_id(id_of(&[&bytes]).as_str().as_bytes()));
            }
        }
    }
}
