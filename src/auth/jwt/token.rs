//! The three parts of a token (RFC 7515 §7.1) and its header.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::model::{AuthReason, JwtAlgorithm};

use super::json;

/// Longer tokens are refused unread: 8 KiB is the usual bound of a whole
/// request head.
const MAX_BYTES: usize = 8 * 1024;

/// A token split, its header read and found acceptable. Nothing is verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) header: Header,
    /// What is signed: header, dot, payload.
    pub(super) message: &'a str,
    payload: &'a str,
    /// Encoded.
    pub(super) signature: &'a str,
}

/// What a header says that matters here. `jku`, `x5u`, `jwk` and `x5c` do not:
/// where keys come from is configuration.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: JwtAlgorithm,
    /// Looks a key up, nothing else.
    pub(super) kid: Option<String>,
}

impl<'a> Token<'a> {
    /// Splits a token and judges its header.
    ///
    /// # Errors
    /// The reason to refuse it, found without any cryptography.
    pub(super) fn read(
        text: &'a str,
        algorithms: &[JwtAlgorithm],
        types: &[std::sync::Arc<str>],
    ) -> Result<Self, AuthReason> {
        if text.len() > MAX_BYTES {
            return Err(AuthReason::TooLong);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(AuthReason::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(AuthReason::Malformed)?;
        if payload.contains('.') || decode(signature).is_none() {
            return Err(AuthReason::Malformed);
        }
        let header = decode(header)
            .and_then(|bytes| json::object(&bytes))
            .ok_or(AuthReason::Malformed)?;
        if header.contains_key("crit") {
            // None is understood, and an empty list is malformed (RFC 7515 §4.1.11).
            return Err(AuthReason::Critical);
        }
        let kid = optional_text(header.get("kid"))?;
        let kind = optional_text(header.get("typ"))?;
        if !types.is_empty() && !kind.is_some_and(|kind| types.iter().any(|one| is_type(one, kind)))
        {
            return Err(AuthReason::Type);
        }
        let name = optional_text(header.get("alg"))?.ok_or(AuthReason::Malformed)?;
        let algorithm = algorithms
            .iter()
            .copied()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(AuthReason::Algorithm)?;
        Ok(Self {
            header: Header {
                algorithm,
                kid: kid.map(str::to_owned),
            },
            message,
            payload,
            signature,
        })
    }

    /// The claims, unverified until the signature is.
    pub(super) fn claims(&self) -> Result<serde_json::Map<String, Value>, AuthReason> {
        decode(self.payload)
            .and_then(|bytes| json::object(&bytes))
            .ok_or(AuthReason::Malformed)
    }
}

/// Strict base64url: no padding, no other alphabet, no stray bits at the end.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn optional_text(value: Option<&Value>) -> Result<Option<&str>, AuthReason> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AuthReason::Malformed),
    }
}

/// Media types compare without regard to case, and `application/` may be left
/// out (RFC 7515 §4.1.9).
fn is_type(listed: &str, shown: &str) -> bool {
    let bare = |text: &str| -> String {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("application/") {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => text,
        }
    };
    bare(listed) == bare(shown)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn token(header: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        let payload = URL_SAFE_NO_PAD.encode("{}");
        format!("{header}.{payload}.c2ln")
    }

    fn reason(header: &str) -> Result<(), AuthReason> {
        Token::read(&token(header), &[JwtAlgorithm::Rs256], &[]).map(|_| ())
    }

    #[test]
    fn headers() {
        use AuthReason::{Algorithm, Critical, Malformed};
        for (header, expected) in [
            (r#"{"alg":"RS256"}"#, Ok(())),
            (r#"{"alg":"RS256","kid":"a","typ":"JWT"}"#, Ok(())),
            (
                r#"{"alg":"RS256","jku":"http://evil","x5u":"http://evil","jwk":{},"x5c":[]}"#,
                Ok(()),
            ),
            (r#"{"alg":"none"}"#, Err(Algorithm)),
            (r#"{"alg":"None"}"#, Err(Algorithm)),
            (r#"{"alg":"HS256"}"#, Err(Algorithm)),
            (r#"{"alg":"ES512"}"#, Err(Algorithm)),
            (r#"{"alg":"rs256"}"#, Err(Algorithm)),
            (r#"{"alg":""}"#, Err(Algorithm)),
            (r#"{"alg":null}"#, Err(Malformed)),
            (r#"{"alg":["RS256"]}"#, Err(Malformed)),
            (r#"{}"#, Err(Malformed)),
            (r#"{"alg":"RS256","alg":"RS256"}"#, Err(Malformed)),
            (r#"{"alg":"RS256","kid":7}"#, Err(Malformed)),
            (r#"{"alg":"RS256","typ":{}}"#, Err(Malformed)),
            (
                r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
                Err(Critical),
            ),
            (r#"{"alg":"RS256","crit":[]}"#, Err(Critical)),
            (r#"{"alg":"RS256","crit":["exp"],"exp":1}"#, Err(Critical)),
            (r#"[]"#, Err(Malformed)),
            (r#"{"alg":"RS256"}x"#, Err(Malformed)),
        ] {
            assert_eq!(reason(header), expected, "{header}");
        }
    }

    #[test]
    fn types_are_media_types() {
        let types = [Arc::from("at+jwt")];
        let read =
            |header: &str| Token::read(&token(header), &[JwtAlgorithm::Rs256], &types).map(|_| ());
        for good in ["at+jwt", "AT+JWT", "application/at+jwt"] {
            assert_eq!(
                read(&format!(r#"{{"alg":"RS256","typ":"{good}"}}"#)),
                Ok(())
            );
        }
        assert_eq!(read(r#"{"alg":"RS256"}"#), Err(AuthReason::Type));
        assert_eq!(
            read(r#"{"alg":"RS256","typ":"JWT"}"#),
            Err(AuthReason::Type)
        );
    }

    #[test]
    fn encodings() {
        let good = token(r#"{"alg":"RS256"}"#);
        let (front, _) = good.rsplit_once('.').unwrap();
        let read = |text: &str| Token::read(text, &[JwtAlgorithm::Rs256], &[]).map(|_| ());
        // `YQ` is one byte; `YR` carries stray bits and would be a second spelling.
        assert_eq!(read(&format!("{front}.YQ")), Ok(()));
        for bad in ["YR", "YQ==", "YQ=", "Y", "Y Q", "Y+Q/", "YQ\n", "YQ.YQ"] {
            assert_eq!(
                read(&format!("{front}.{bad}")),
                Err(AuthReason::Malformed),
                "{bad}"
            );
        }
        for bad in ["", ".", "..", "a", "a.b", "é.b.c"] {
            assert_eq!(read(bad), Err(AuthReason::Malformed), "{bad}");
        }
        let long = format!("{front}.{}", "A".repeat(MAX_BYTES));
        assert_eq!(read(&long), Err(AuthReason::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in ".*", header in ".*", payload in ".*") {
            let _refused = Token::read(&text, &JwtAlgorithm::ALL, &[]).map(|_| ());
            let made = format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(payload)
            );
            if let Ok(token) = Token::read(&made, &JwtAlgorithm::ALL, &[]) {
                let _claims = token.claims();
            }
        }
    }
}
