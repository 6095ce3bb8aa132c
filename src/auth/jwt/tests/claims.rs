//! What a token must say, for every algorithm the same.

use super::*;

fn hs256() -> JwtPolicy {
    jwt_policy(
        JwtKeys::Secrets(vec![Secret::new(SECRET)]),
        &[JwtAlgorithm::Hs256],
    )
}

/// The good claims with some replaced; `null` removes one.
fn with(changes: &Value) -> String {
    let mut claims = good_claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    sign(JwtAlgorithm::Hs256, &claims)
}

fn raw(payload: &str) -> String {
    let key = pair(JwtAlgorithm::Hs256).private;
    sign_raw(JwtAlgorithm::Hs256, &key, r#"{"alg":"HS256"}"#, payload)
}

#[test]
fn dates() {
    use AuthReason::{Claims, Expired, NotYetValid};
    let jwt = jwt(&hs256());
    for (changes, expected) in [
        (json!({}), None),
        (json!({"exp": null}), Some(Claims)),
        (json!({"exp": 0}), Some(Expired)),
        (json!({"exp": -1}), Some(Claims)),
        (json!({"exp": NOW - 60}), Some(Expired)),
        (json!({"exp": NOW - 61}), Some(Expired)),
        (json!({"exp": NOW - 59}), None),
        (json!({"exp": NOW as f64 - 59.5}), None),
        (json!({"exp": 253_402_300_799_u64}), None),
        (json!({"exp": 253_402_300_800_u64}), Some(Claims)),
        (json!({"exp": u64::MAX}), Some(Claims)),
        (json!({"exp": 1e300}), Some(Claims)),
        (json!({"exp": NOW.to_string()}), Some(Claims)),
        (json!({"exp": [NOW + 600]}), Some(Claims)),
        (json!({"exp": {}}), Some(Claims)),
        (json!({"exp": true}), Some(Claims)),
        (json!({"nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(NotYetValid)),
        (json!({"nbf": "x"}), Some(Claims)),
        (json!({"nbf": u64::MAX}), Some(Claims)),
        (json!({"iat": NOW}), None),
        (json!({"iat": "x"}), Some(Claims)),
    ] {
        assert_eq!(reason(&jwt, &with(&changes)), expected, "{changes}");
    }
    for (payload, expected) in [
        (
            r#"{"iss":"https://id.example/","aud":"orders","exp":null}"#,
            Some(Claims),
        ),
        (
            r#"{"iss":"https://id.example/","aud":"orders","exp":1e999}"#,
            Some(AuthReason::Malformed),
        ),
        (
            r#"{"iss":"https://id.example/","aud":"orders","exp":NaN}"#,
            Some(AuthReason::Malformed),
        ),
        (
            r#"{"iss":"https://id.example/","aud":"orders","exp":1,"exp":9000000000}"#,
            Some(AuthReason::Malformed),
        ),
        (
            r#"{"iss":"https://id.example/","aud":"orders","exp":9000000000}"#,
            None,
        ),
        ("[]", Some(AuthReason::Malformed)),
        ("", Some(AuthReason::Malformed)),
        ("null", Some(AuthReason::Malformed)),
    ] {
        assert_eq!(reason(&jwt, &raw(payload)), expected, "{payload}");
    }
}

#[test]
fn exp_may_be_waived_but_never_ignored() {
    let mut policy = hs256();
    policy.require_exp = false;
    let jwt = jwt(&policy);
    assert_eq!(reason(&jwt, &with(&json!({"exp": null}))), None);
    assert_eq!(
        reason(&jwt, &with(&json!({"exp": NOW - 100}))),
        Some(AuthReason::Expired)
    );
}

#[test]
fn lifetimes() {
    let mut policy = hs256();
    policy.max_lifetime = Some(Duration::from_secs(3600));
    policy.require_exp = false;
    let jwt = jwt(&policy);
    for (changes, expected) in [
        (json!({"exp": NOW + 600, "iat": NOW - 3000}), None),
        (
            json!({"exp": NOW + 600, "iat": NOW - 3001}),
            Some(AuthReason::Lifetime),
        ),
        (json!({"exp": NOW + 3600}), None),
        (json!({"exp": NOW + 3661}), Some(AuthReason::Lifetime)),
        (
            json!({"exp": NOW + 7200, "iat": NOW + 7000}),
            Some(AuthReason::Lifetime),
        ),
        (json!({"exp": null}), Some(AuthReason::Claims)),
    ] {
        assert_eq!(reason(&jwt, &with(&changes)), expected, "{changes}");
    }
}

#[test]
fn issuer_and_audience() {
    use AuthReason::{Audience, Claims, Issuer};
    let jwt = jwt(&hs256());
    for (changes, expected) in [
        (json!({"iss": null}), Some(Claims)),
        (json!({"iss": ""}), Some(Issuer)),
        (json!({"iss": "https://id.example"}), Some(Issuer)),
        (json!({"iss": ["https://id.example/"]}), Some(Claims)),
        (json!({"iss": 7}), Some(Claims)),
        (json!({"aud": null}), Some(Claims)),
        (json!({"aud": ""}), Some(Audience)),
        (json!({"aud": "Orders"}), Some(Audience)),
        (json!({"aud": ["evil"]}), Some(Audience)),
        (json!({"aud": []}), Some(Audience)),
        (json!({"aud": ["evil", "orders"]}), None),
        (json!({"aud": ["orders", 5]}), Some(Claims)),
        (json!({"aud": {"orders": true}}), Some(Claims)),
        (json!({"aud": 5}), Some(Claims)),
        (json!({"sub": 5}), Some(Claims)),
        (json!({"sub": null}), None),
    ] {
        assert_eq!(reason(&jwt, &with(&changes)), expected, "{changes}");
    }
    let mut open = hs256();
    open.issuer = None;
    open.audience = Vec::new();
    let jwt = super::jwt(&open);
    assert_eq!(
        reason(&jwt, &with(&json!({"iss": null, "aud": null}))),
        None
    );
    assert_eq!(reason(&jwt, &with(&json!({"aud": "any"}))), None);
    assert_eq!(reason(&jwt, &with(&json!({"aud": [5]}))), Some(Claims));
}

#[test]
fn identity_and_headers() {
    let mut policy = hs256();
    policy.claims = [
        ("email", "x-email"),
        ("roles", "x-roles"),
        ("org", "x-org"),
        ("level", "x-level"),
        ("trick", "x-trick"),
        ("commas", "x-commas"),
        ("absent", "x-absent"),
    ]
    .into_iter()
    .map(|(claim, header)| (Arc::from(claim), Arc::from(header)))
    .collect();
    let jwt = jwt(&policy);
    let token = with(&json!({
        "email": "ann@example",
        "roles": ["a", "b"],
        "org": {"id": 7},
        "level": 3,
        "trick": "x\r\nx-auth-subject: root",
        "commas": ["a,b", "c"],
        "serviceName": "payments",
    }));
    let verified = check(&jwt, &token).unwrap();
    let header = |name: &'static str| {
        let name = HeaderName::from_static(name);
        let all = [&verified.named.headers, &verified.headers];
        let value = all.iter().find_map(|headers| headers.get(&name))?;
        Some(std::str::from_utf8(value).unwrap().to_owned())
    };
    assert_eq!(header("x-auth-strategy").as_deref(), Some("jwt"));
    assert_eq!(header("x-auth-subject").as_deref(), Some("ann"));
    assert_eq!(header("x-service-call").as_deref(), Some("true"));
    assert_eq!(header("x-service-name").as_deref(), Some("payments"));
    assert_eq!(header("x-email").as_deref(), Some("ann@example"));
    assert_eq!(header("x-roles").as_deref(), Some("a,b"));
    assert_eq!(header("x-org").as_deref(), Some(r#"{"id":7}"#));
    assert_eq!(header("x-level").as_deref(), Some("3"));
    assert_eq!(header("x-trick"), None);
    assert_eq!(header("x-commas"), None);
    assert_eq!(header("x-absent"), None);

    let person = check(&jwt, &with(&json!({"serviceName": ["payments"]}))).unwrap();
    assert_eq!(person.named.identity.service, None);
    let blank = check(&jwt, &with(&json!({"sub": " root"}))).unwrap();
    let subject = HeaderName::from_static("x-auth-subject");
    assert!(!blank.named.headers.has(&subject));
}

#[test]
fn minted_tokens_are_taken() {
    let jwt = jwt(&hs256());
    let wanted = Mint {
        kind: None,
        algorithm: JwtAlgorithm::Hs256,
        issuer: Some("https://id.example/"),
        subject: Some("orders"),
        audience: Some("orders"),
        service: Some(("serviceName", "orders")),
        claims: [("sub".to_owned(), json!("overruled"))].into(),
        lifetime: Duration::from_secs(60),
    };
    let token = mint(&Secret::new(SECRET), &wanted, now()).unwrap();
    let verified = check(&jwt, &token).unwrap();
    assert_eq!(verified.named.identity.subject.as_deref(), Some("orders"));
    assert_eq!(verified.named.identity.service.as_deref(), Some("orders"));
    let late = jwt.check(token.as_bytes(), now() + Duration::from_secs(120), None);
    assert_eq!(late.err(), Some(Refusal::Wrong(AuthReason::Expired)));
    let typed = Mint {
        kind: Some("at+jwt"),
        ..wanted.clone()
    };
    let token = mint(&Secret::new(SECRET), &typed, now()).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let short = mint(&Secret::new("short"), &wanted, now());
    assert_eq!(short, Err(MintError::ShortSecret));
    let asymmetric = Mint {
        algorithm: JwtAlgorithm::Rs256,
        ..wanted
    };
    let refused = mint(&Secret::new(SECRET), &asymmetric, now());
    assert_eq!(refused, Err(MintError::Algorithm));
}
