//! Which fields of interest a message has.

use http::HeaderMap;

use super::client::is_forwarding;

/// A bit for each field that the walk of a message asks about: one pass over
/// the names instead of a look-up for each, since most messages have hardly any
/// of them. A field that was removed since may still be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen(u16);

impl Seen {
    pub const CONNECTION: Self = Self(1);
    /// Any field of one hop, `Connection` among them.
    pub const HOP_BY_HOP: Self = Self(1 << 1);
    pub const TE: Self = Self(1 << 2);
    pub const TRANSFER_ENCODING: Self = Self(1 << 3);
    pub const TRAILER: Self = Self(1 << 4);
    pub const EXPECT: Self = Self(1 << 5);
    pub const CONTENT_LENGTH: Self = Self(1 << 6);
    pub const CONTENT_TYPE: Self = Self(1 << 7);
    /// What speaks of the client's side, in any spelling.
    pub const FORWARDING: Self = Self(1 << 8);
    pub const FORWARDED: Self = Self(1 << 9);
    pub const REQUEST_ID: Self = Self(1 << 10);

    /// Looks at every name once.
    pub fn of(headers: &HeaderMap) -> Self {
        let hop = Self::HOP_BY_HOP.0;
        let found = headers.keys().fold(0, |found, name| {
            found
                | match name.as_str() {
                    "connection" => Self::CONNECTION.0 | hop,
                    "te" => Self::TE.0 | hop,
                    "transfer-encoding" => Self::TRANSFER_ENCODING.0 | hop,
                    "upgrade" | "keep-alive" | "proxy-connection" | "proxy-authenticate"
                    | "http2-settings" => hop,
                    "trailer" => Self::TRAILER.0,
                    "expect" => Self::EXPECT.0,
                    "content-length" => Self::CONTENT_LENGTH.0,
                    "content-type" => Self::CONTENT_TYPE.0,
                    "forwarded" => Self::FORWARDED.0 | Self::FORWARDING.0,
                    "x-request-id" => Self::REQUEST_ID.0,
                    _ if is_forwarding(name) => Self::FORWARDING.0,
                    _ => 0,
                }
        });
        Self(found)
    }

    /// Whether the field is, or was, there.
    pub const fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn each_field_is_told_of() {
        for (name, field) in [
            ("connection", Seen::CONNECTION),
            ("connection", Seen::HOP_BY_HOP),
            ("te", Seen::TE),
            ("te", Seen::HOP_BY_HOP),
            ("transfer-encoding", Seen::TRANSFER_ENCODING),
            ("transfer-encoding", Seen::HOP_BY_HOP),
            ("upgrade", Seen::HOP_BY_HOP),
            ("keep-alive", Seen::HOP_BY_HOP),
            ("proxy-connection", Seen::HOP_BY_HOP),
            ("proxy-authenticate", Seen::HOP_BY_HOP),
            ("http2-settings", Seen::HOP_BY_HOP),
            ("trailer", Seen::TRAILER),
            ("expect", Seen::EXPECT),
            ("content-length", Seen::CONTENT_LENGTH),
            ("content-type", Seen::CONTENT_TYPE),
            ("forwarded", Seen::FORWARDED),
            ("forwarded", Seen::FORWARDING),
            ("x_forwarded-for", Seen::FORWARDING),
            ("x-real-ip", Seen::FORWARDING),
            ("x-request-id", Seen::REQUEST_ID),
        ] {
            let mut headers = HeaderMap::new();
            assert!(!Seen::of(&headers).has(field), "{name}");
            headers.insert("accept", HeaderValue::from_static("*/*"));
            assert!(!Seen::of(&headers).has(field), "{name}");
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
            assert!(Seen::of(&headers).has(field), "{name}");
        }
    }
}
