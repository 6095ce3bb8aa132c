//! Who may come in.

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::request::Parts;

use crate::model::{Kind, SqlSettings};
use crate::net::host::{check_host, is_from_a_page};
use crate::secret::Secret;

const CONNECTION_STRING: &str = "neon-connection-string";

/// Refuses what web pages and rebound names send.
pub(super) fn check(parts: &Parts, settings: &SqlSettings) -> Result<(), Kind> {
    let headers = &parts.headers;
    check_host(&parts.uri, headers, &[])?;
    if is_from_a_page(headers) && !is_allowed(headers, settings) {
        return Err(Kind::CrossSite);
    }
    // A plain form of another site can send none of these.
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let shows = headers.contains_key(AUTHORIZATION) || headers.contains_key(CONNECTION_STRING);
    if parts.method != http::Method::GET && !is_json && !shows {
        return Err(Kind::CrossSite);
    }
    Ok(())
}

fn is_allowed(headers: &HeaderMap, settings: &SqlSettings) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => settings
            .allow_origins
            .iter()
            .any(|listed| listed.as_bytes() == origin.as_bytes()),
        _ => false,
    }
}

/// Compares what is shown with a service's token. `needed`: without a token the
/// service stays shut.
pub(super) fn check_token(
    headers: &HeaderMap,
    token: Option<&Secret>,
    needed: bool,
) -> Result<(), Kind> {
    let token = match token {
        Some(token) if !token.is_empty() => token,
        _ if needed => return Err(Kind::NotAllowed),
        _ => return Ok(()),
    };
    if let Some(shown) = bearer(headers)? {
        return matches(token, shown);
    }
    match password(headers) {
        Some(shown) => matches(token, &shown),
        None => Err(Kind::CredentialMissing),
    }
}

fn matches(token: &Secret, shown: &[u8]) -> Result<(), Kind> {
    match token.matches(shown) {
        true => Ok(()),
        false => Err(Kind::CredentialInvalid),
    }
}

/// `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Kind> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(Kind::CredentialAmbiguous),
    };
    let split = value.split_at_checked(7);
    let shown = split.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    Ok(shown.map(|(_, shown)| shown.trim_ascii()))
}

/// The password of `postgres://user:password@…`, decoded (RFC 3986 §2.1).
fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let text = headers.get(CONNECTION_STRING)?.to_str().ok()?;
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (login, _) = authority.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    let mut bytes = Vec::with_capacity(password.len());
    let mut rest = password.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const TOKEN: &str = "a-token-of-ou/rs";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder();
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0.headers
    }

    #[test]
    fn tokens_come_as_bearer_or_password() {
        let token = Secret::new(TOKEN);
        let check = |pairs: &[(&str, &str)]| check_token(&headers(pairs), Some(&token), true);
        assert_eq!(
            check(&[("authorization", "Bearer a-token-of-ou/rs")]),
            Ok(())
        );
        let url = "postgresql://me:a-token-of-ou%2Frs@db.localhost/shop";
        assert_eq!(check(&[(CONNECTION_STRING, url)]), Ok(()));
        for (pairs, kind) in [
            (&[][..], Kind::CredentialMissing),
            (&[("authorization", "Basic x")], Kind::CredentialMissing),
            (&[("authorization", "Bearer x")], Kind::CredentialInvalid),
            (
                &[(CONNECTION_STRING, "postgres://h/d")],
                Kind::CredentialMissing,
            ),
            (
                &[(CONNECTION_STRING, "postgres://a:%zz@h/d")],
                Kind::CredentialMissing,
            ),
            (
                &[(CONNECTION_STRING, "postgres://a:b@h/d")],
                Kind::CredentialInvalid,
            ),
        ] {
            assert_eq!(check(pairs), Err(kind), "{pairs:?}");
        }
        assert_eq!(check_token(&headers(&[]), None, false), Ok(()));
        assert_eq!(
            check_token(&headers(&[]), None, true),
            Err(Kind::NotAllowed)
        );
    }
}
