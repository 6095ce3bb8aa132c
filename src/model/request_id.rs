//! What a request is known by.

use http::HeaderValue;

use super::fields::Line;
use super::hex;

/// The id of one request: 1 to 128 of `A-Z a-z 0-9 . _ -`. Cheap to clone; one
/// that was made here stands in it, as most do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Hex digits.
    Made([u8; 32]),
    /// As the client has it.
    Came(HeaderValue),
}

impl RequestId {
    /// 32 hex digits of these.
    pub fn made_of(random: &[u8; 16]) -> Self {
        Self(Form::Made(hex::digits(random)))
    }

    /// The client's, without copying it; `None` where it is not safe.
    pub fn safe(value: &HeaderValue) -> Option<Self> {
        is_safe_id(value.as_bytes()).then(|| Self(Form::Came(value.clone())))
    }

    /// As text, for logs and bodies: nothing in it needs escaping.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Made(text) => std::str::from_utf8(text).unwrap_or_default(),
            Form::Came(value) => value.to_str().unwrap_or_default(),
        }
    }

    /// As a header value of its own.
    pub fn value(&self) -> HeaderValue {
        match &self.0 {
            Form::Made(text) => {
                HeaderValue::from_bytes(text).expect("hex digits are visible ASCII")
            }
            Form::Came(value) => value.clone(),
        }
    }

    /// Ends a line of the request to the app, or of the response, with it.
    pub fn end_line(&self, line: Line<'_>) {
        match &self.0 {
            Form::Made(text) => line.digits(text).end(),
            Form::Came(value) => line.value(value).end(),
        }
    }
}

/// Whether an id may be kept, logged and sent on: `[A-Za-z0-9._-]{1,128}`.
pub fn is_safe_id(bytes: &[u8]) -> bool {
    (1..=128).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
