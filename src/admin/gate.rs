//! Who may come through a door.

use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};

use super::DoorKind;
use crate::model::Kind;
use crate::net::host::{check_host, is_from_a_page};
use crate::secret::Secret;

/// Whether a request may come in. `public`: the page is one that the observe
/// door shows too.
pub(super) fn check<B>(
    kind: &DoorKind,
    token: Option<&Secret>,
    request: &Request<B>,
    peer: IpAddr,
    public: bool,
) -> Result<(), Kind> {
    if is_from_a_page(request.headers()) {
        return Err(Kind::CrossSite);
    }
    let DoorKind::Admin { hosts } = kind else {
        return Ok(());
    };
    check_host(request.uri(), request.headers(), hosts)?;
    if public {
        return Ok(());
    }
    match token {
        Some(token) => check_token(request.headers(), token),
        None if peer.to_canonical().is_loopback() => Ok(()),
        // Configuration asks for a token with such an address; should one slip
        // through, the door stays shut.
        None => Err(Kind::NotAllowed),
    }
}

/// `Authorization: Bearer …` (RFC 6750 §2.1), compared in constant time.
fn check_token(headers: &HeaderMap, token: &Secret) -> Result<(), Kind> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Kind::CredentialMissing),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(Kind::CredentialAmbiguous),
    };
    let Some((scheme, shown)) = value.split_at_checked(7) else {
        return Err(Kind::CredentialMissing);
    };
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(Kind::CredentialMissing);
    }
    if !token.is_empty() && token.matches(shown.trim_ascii()) {
        Ok(())
    } else {
        Err(Kind::CredentialInvalid)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1";
    const ELSEWHERE: &str = "10.0.0.7";

    /// A door and its token.
    type Case = (DoorKind, Option<Secret>);

    fn admin(token: Option<&str>) -> Case {
        let hosts = vec![Arc::from("admin.internal")];
        (DoorKind::Admin { hosts }, token.map(Secret::new))
    }

    fn observe() -> Case {
        (DoorKind::Observe, None)
    }

    fn gate(
        (kind, token): &Case,
        headers: &[(&str, &str)],
        peer: &str,
        public: bool,
    ) -> Option<Kind> {
        let mut request = Request::builder().uri("/services");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let peer = peer.parse().expect("address");
        check(kind, token.as_ref(), &request, peer, public).err()
    }

    #[test]
    fn hosts_are_literals_localhost_or_listed() {
        for (host, expected) in [
            ("127.0.0.1:9900", None),
            ("[::1]:9900", None),
            ("[::1]", None),
            ("LocalHost:9900", None),
            ("localhost", None),
            ("Admin.internal", None),
            ("evil.example", Some(Kind::Misdirected)),
            ("localhost.evil.example:9900", Some(Kind::Misdirected)),
            ("127.0.0.1.evil.example", Some(Kind::Misdirected)),
            ("localhost:", Some(Kind::Misdirected)),
            ("localhost:99999", Some(Kind::Misdirected)),
            ("[::1", Some(Kind::Misdirected)),
            ("[evil]", Some(Kind::Misdirected)),
            ("", Some(Kind::Misdirected)),
        ] {
            assert_eq!(
                gate(&admin(None), &[("host", host)], LOOPBACK, false),
                expected,
                "{host}"
            );
        }
        assert_eq!(
            gate(&admin(None), &[], LOOPBACK, false),
            Some(Kind::BadRequest)
        );
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(
            gate(&admin(None), &twice, LOOPBACK, false),
            Some(Kind::BadRequest)
        );
        assert_eq!(
            gate(&observe(), &[("host", "evil.example")], ELSEWHERE, true),
            None
        );
    }

    #[test]
    fn an_absolute_target_wins_over_the_header() {
        let request = Request::builder()
            .uri("http://evil.example/services")
            .header("host", "localhost")
            .body(())
            .expect("a request");
        let peer = LOOPBACK.parse().expect("address");
        assert_eq!(
            check(&admin(None).0, None, &request, peer, false),
            Err(Kind::Misdirected)
        );
    }

    #[test]
    fn pages_are_refused() {
        let host = ("host", "localhost");
        for (header, refused) in [
            (("origin", "http://localhost:9900"), true),
            (("origin", "null"), true),
            (("sec-fetch-site", "cross-site"), true),
            (("sec-fetch-site", "same-site"), true),
            (("sec-fetch-site", "none"), false),
        ] {
            let expected = refused.then_some(Kind::CrossSite);
            assert_eq!(
                gate(&admin(None), &[host, header], LOOPBACK, false),
                expected
            );
            assert_eq!(gate(&observe(), &[host, header], ELSEWHERE, true), expected);
        }
    }

    #[test]
    fn the_token_is_asked_of_everybody_once_set() {
        let host = ("host", "localhost");
        let with = |value| {
            gate(
                &admin(Some("s3cret")),
                &[host, ("authorization", value)],
                LOOPBACK,
                false,
            )
        };
        assert_eq!(with("Bearer s3cret"), None);
        assert_eq!(with("bearer s3cret"), None);
        assert_eq!(with("Bearer s3cres"), Some(Kind::CredentialInvalid));
        assert_eq!(with("Bearer "), Some(Kind::CredentialInvalid));
        assert_eq!(with("Basic czpz"), Some(Kind::CredentialMissing));
        assert_eq!(with("x"), Some(Kind::CredentialMissing));
        let door = admin(Some("s3cret"));
        assert_eq!(
            gate(&door, &[host], LOOPBACK, false),
            Some(Kind::CredentialMissing)
        );
        let twice = [
            host,
            ("authorization", "Bearer s3cret"),
            ("authorization", "Bearer x"),
        ];
        assert_eq!(
            gate(&door, &twice, LOOPBACK, false),
            Some(Kind::CredentialAmbiguous)
        );
        assert_eq!(
            gate(&door, &[host], ELSEWHERE, true),
            None,
            "probes and metrics work"
        );
        assert_eq!(
            gate(
                &admin(Some("")),
                &[host, ("authorization", "Bearer ")],
                LOOPBACK,
                false
            ),
            Some(Kind::CredentialInvalid)
        );
    }

    #[test]
    fn without_a_token_another_host_sees_only_what_is_public() {
        let host = [("host", "10.0.0.1:9900")];
        assert_eq!(
            gate(&admin(None), &host, ELSEWHERE, false),
            Some(Kind::NotAllowed)
        );
        assert_eq!(gate(&admin(None), &host, ELSEWHERE, true), None);
        assert_eq!(gate(&admin(None), &host, "::ffff:127.0.0.1", false), None);
    }
}
