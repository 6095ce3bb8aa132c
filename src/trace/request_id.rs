//! `x-request-id`: kept when it is safe, else made (SPEC §4).

use http::{HeaderMap, HeaderName};

use super::ids::IdGenerator;
use crate::model::{LineStart, RequestId};

/// The header, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The beginning of its line.
pub const REQUEST_ID_START: LineStart = LineStart::new("x-request-id: ");

/// A new id of a request: 32 hex digits.
pub fn new_request_id(ids: &IdGenerator) -> RequestId {
    RequestId::made_of(&ids.trace_id())
}

/// The id of a request with these headers: the client's when there is exactly
/// one and it is safe, without copying it, else a new one.
pub fn request_id(headers: &HeaderMap, ids: &IdGenerator) -> RequestId {
    let mut values = headers.get_all(REQUEST_ID).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => RequestId::safe(value),
        _ => None,
    }
    .unwrap_or_else(|| new_request_id(ids))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::model::is_safe_id;

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
        let made = new_request_id(&IdGenerator::with_seed(1));
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
