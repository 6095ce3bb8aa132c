//! Where credentials are found: `x-api-key` and `Authorization: Bearer`.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use crate::model::{AuthReason, Kind};

use super::call::Denied;

/// Carrier of API keys.
pub(super) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The credentials a request carries, borrowed from its headers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried<'a> {
    /// `x-api-key`.
    pub(super) key: Option<&'a [u8]>,
    pub(super) bearer: Option<Bearer<'a>>,
}

/// What follows `Bearer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer<'a> {
    /// Three base64url parts.
    Token(&'a [u8]),
    /// Anything else.
    Key(&'a [u8]),
}

impl<'a> Carried<'a> {
    /// Reads both carriers. `known` tells of a credential that it is a token seen
    /// before, which need not be looked at again.
    ///
    /// # Errors
    /// `CredentialAmbiguous` for more than one field of a carrier or an empty
    /// credential (RFC 6750 §3.1 `invalid_request`).
    pub(super) fn read(
        headers: &'a HeaderMap,
        known: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Self, Denied> {
        let (mut key, mut authorization) = (None, None);
        // One walk instead of two look-ups: there are few fields.
        for (name, value) in headers {
            let place = match name {
                name if *name == AUTHORIZATION => &mut authorization,
                name if *name == X_API_KEY => &mut key,
                _ => continue,
            };
            // May stand once at most.
            if place.replace(value.as_bytes().trim_ascii()).is_some() {
                return Err(ambiguous());
            }
        }
        let bearer = match authorization {
            Some(value) => read_bearer(value, known)?,
            None => None,
        };
        if key.is_some_and(<[u8]>::is_empty) {
            return Err(ambiguous());
        }
        Ok(Self { key, bearer })
    }
}

fn ambiguous() -> Denied {
    Denied::new(Kind::CredentialAmbiguous, None, AuthReason::Ambiguous)
}

/// The scheme is compared case-insensitively (RFC 9110 §11.1); another scheme is
/// somebody else's credential and counts as none.
fn read_bearer(
    value: &[u8],
    known: impl FnOnce(&[u8]) -> bool,
) -> Result<Option<Bearer<'_>>, Denied> {
    let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(at) => value.split_at(at),
        None => (value, &[][..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let credential = rest.trim_ascii();
    if credential.is_empty() {
        return Err(ambiguous());
    }
    let is_token = known(credential) || is_token_shaped(credential);
    Ok(Some(match is_token {
        true => Bearer::Token(credential),
        false => Bearer::Key(credential),
    }))
}

/// Three parts of base64url characters. The last may be empty: a token stripped
/// of its signature is a bad token, not a key.
fn is_token_shaped(bytes: &[u8]) -> bool {
    let mut dots = 0_usize;
    // Without a branch for each of some hundred bytes, and so that the compiler
    // looks at many of them at once.
    for chunk in bytes.chunks(64) {
        let (few, strange) = chunk.iter().fold((0_u8, 0_u8), |(few, strange), &byte| {
            let dot = u8::from(byte == b'.');
            let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            let digit = byte.wrapping_sub(b'0') < 10;
            let plain = letter | digit | (byte == b'-') | (byte == b'_');
            (few + dot, strange | (u8::from(!plain) & !dot))
        });
        if strange & 1 != 0 {
            return false;
        }
        dots += usize::from(few);
    }
    let first = bytes.iter().position(|byte| *byte == b'.');
    dots == 2 && first.is_some_and(|at| at > 0 && bytes.get(at + 1) != Some(&b'.'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn bearer(value: &'static str) -> Option<Option<Bearer<'static>>> {
        read_bearer(value.as_bytes(), |_| false).ok()
    }

    #[test]
    fn shapes() {
        assert_eq!(bearer("Bearer a.b.c"), Some(Some(Bearer::Token(b"a.b.c"))));
        assert_eq!(bearer("bEARER a.b.c"), Some(Some(Bearer::Token(b"a.b.c"))));
        assert_eq!(bearer("Bearer   a.b."), Some(Some(Bearer::Token(b"a.b."))));
        for key in [
            "abc", "a.b", "a.b.c.d", "a.b.c=", "a..c", ".b.c", "a b", "a.b.c d",
        ] {
            let value: &'static str = format!("Bearer {key}").leak();
            assert_eq!(
                bearer(value),
                Some(Some(Bearer::Key(key.as_bytes()))),
                "{key}"
            );
        }
        for other in [
            "Basic YTpi",
            "Bearer2 x",
            "Bearertoken",
            "",
            "Digest a=b",
            "Bearer\tx",
        ] {
            assert_eq!(bearer(other), Some(None), "{other}");
        }
        for empty in ["Bearer", "bearer ", "Bearer    "] {
            assert_eq!(bearer(empty), None, "{empty}");
        }
    }

    #[test]
    fn each_carrier_once() {
        for fields in [
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")][..],
            &[("authorization", "Basic a"), ("authorization", "Bearer a")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("x-api-key", "")],
            &[("authorization", "Bearer")],
        ] {
            let denied = Carried::read(&headers(fields), |_| false)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(denied.kind, Kind::CredentialAmbiguous, "{fields:?}");
        }
        let map = headers(&[("authorization", "Bearer a.b.c"), ("x-api-key", "k")]);
        let carried = Carried::read(&map, |_| false).unwrap();
        assert_eq!(carried.key, Some(&b"k"[..]));
        assert_eq!(carried.bearer, Some(Bearer::Token(b"a.b.c")));
    }
}
