//! Strategies and their carriers, one by one and in lists.

use super::*;
use crate::model::{AppToken, MtlsName, MtlsPolicy, Preflight, Who};

#[test]
fn api_key_answers() {
    let authenticator = build(&policy(api_key()));
    let bearer = format!("Bearer {KEY}");
    let web = Ok("web".to_owned());
    for (sent, expected) in [
        (get("/"), Err(Kind::CredentialMissing)),
        (get("/").with("x-api-key", KEY), web.clone()),
        (get("/").with("authorization", &bearer), web.clone()),
        (
            get("/").with("authorization", &format!("bEARER   {KEY}")),
            web.clone(),
        ),
        (
            get("/").with("authorization", "Basic YTpi"),
            Err(Kind::CredentialMissing),
        ),
        (
            get("/").with("authorization", KEY),
            Err(Kind::CredentialMissing),
        ),
        (
            get("/").with("authorization", "Bearer"),
            Err(Kind::CredentialAmbiguous),
        ),
        (
            get("/").with("x-api-key", ""),
            Err(Kind::CredentialAmbiguous),
        ),
        (
            get("/")
                .with("authorization", &bearer)
                .with("authorization", &bearer),
            Err(Kind::CredentialAmbiguous),
        ),
        (
            get("/").with("x-api-key", "wrong"),
            Err(Kind::CredentialInvalid),
        ),
        (
            get("/").with("authorization", "Bearer wrong"),
            Err(Kind::CredentialInvalid),
        ),
        // A token where only keys are taken cannot be parsed as a key …
        (
            get("/").with("authorization", "Bearer a.b.c"),
            Err(Kind::CredentialInvalid),
        ),
        // … but beside a good key it may be meant for the app.
        (
            get("/")
                .with("authorization", "Bearer a.b.c")
                .with("x-api-key", KEY),
            web.clone(),
        ),
        // Keys in both carriers must both be good.
        (
            get("/")
                .with("authorization", "Bearer wrong")
                .with("x-api-key", KEY),
            Err(Kind::CredentialInvalid),
        ),
        (
            get("/")
                .with("authorization", &format!("Bearer {OTHER_KEY}"))
                .with("x-api-key", KEY),
            web,
        ),
    ] {
        assert_eq!(sent.verdict(&authenticator), expected, "{:?}", sent.headers);
    }
}

#[test]
fn a_key_names_a_service_to_the_app() {
    let authenticator = build(&policy(api_key()));
    let allowed = get("/")
        .with("x-api-key", OTHER_KEY)
        .to(&authenticator)
        .unwrap();
    assert_eq!(value(&allowed, "x-auth-strategy"), Some(&b"api-key"[..]));
    assert_eq!(value(&allowed, "x-auth-subject"), Some(&b"orders"[..]));
    assert_eq!(value(&allowed, "x-service-call"), Some(&b"true"[..]));
    assert_eq!(value(&allowed, "x-service-name"), Some(&b"orders"[..]));
    assert!(allowed.remove.is_empty());
    assert_eq!((allowed.strategy, allowed.reason), ("api-key", "good"));
}

#[test]
fn none_asks_nobody() {
    let authenticator = build(&policy(Requirement::None));
    for sent in [
        get("/"),
        get("/").with("authorization", "Bearer"),
        get("/").with("x-api-key", "wrong"),
    ] {
        let allowed = sent.to(&authenticator).unwrap();
        assert!(allowed.identity.is_none() && allowed.set.is_empty() && allowed.remove.is_empty());
        assert_eq!((allowed.strategy, allowed.reason), ("none", "open"));
    }
}

#[test]
fn credentials_are_hidden_on_request() {
    let mut policy = policy(api_key());
    policy.hide_credentials = true;
    let mut open = rule(&["/open"]);
    open.requirement = Some(Requirement::None);
    policy.rules = vec![open];
    let authenticator = build(&policy);
    let removed = |sent: Sent| {
        let allowed = sent.to(&authenticator).unwrap();
        let mut names: Vec<_> = allowed.remove.iter().map(HeaderName::to_string).collect();
        names.sort();
        names
    };
    let bearer = format!("Bearer {KEY}");
    assert_eq!(removed(get("/").with("x-api-key", KEY)), ["x-api-key"]);
    assert_eq!(
        removed(get("/").with("authorization", &bearer)),
        ["authorization"]
    );
    assert_eq!(
        removed(
            get("/")
                .with("x-api-key", KEY)
                .with("authorization", "Bearer a.b.c")
        ),
        ["x-api-key"]
    );
    assert_eq!(
        removed(get("/open").with("authorization", &bearer)),
        ["x-api-key", "authorization"]
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    assert_eq!(
        removed(get("/open").with("authorization", "Basic YTpi")),
        ["x-api-key"]
    );
}

#[test]
fn preflights_pass_without_identity_or_credentials() {
    let preflight = || {
        get("/x")
            .method("OPTIONS")
            .with("origin", "https://a.example")
            .with("access-control-request-method", "PUT")
            .with("x-api-key", KEY)
    };
    let mut policy = policy(api_key());
    let allowed = preflight().to(&build(&policy)).unwrap();
    assert!(allowed.identity.is_none() && allowed.set.is_empty());
    assert_eq!(allowed.remove.len(), 3);
    assert_eq!(allowed.reason, "preflight");

    for almost in [
        get("/x").method("OPTIONS").with("origin", "https://a"),
        get("/x")
            .method("OPTIONS")
            .with("access-control-request-method", "PUT"),
        get("/x")
            .with("origin", "https://a")
            .with("access-control-request-method", "PUT"),
    ] {
        assert_eq!(
            almost.verdict(&build(&policy)),
            Err(Kind::CredentialMissing)
        );
    }

    policy.preflight = Preflight::Authenticate;
    let authenticator = build(&policy);
    assert_eq!(preflight().verdict(&authenticator), Ok("web".to_owned()));

    policy.preflight = Preflight::Forward;
    let mut closed = rule(&["/x"]);
    closed.deny = Deny::Everyone;
    policy.rules = vec![closed];
    assert_eq!(
        preflight().verdict(&build(&policy)),
        Err(Kind::NotAllowed),
        "deny: true is for all"
    );
}

#[test]
fn the_app_token_goes_with_every_request_and_is_reserved() {
    let mut policy = policy(Requirement::None);
    policy.app_token = Some(AppToken {
        header: Arc::from("x-app-token"),
        value: Secret::new("swordfish"),
    });
    let authenticator = build(&policy);
    let allowed = get("/").to(&authenticator).unwrap();
    assert_eq!(value(&allowed, "x-app-token"), Some(&b"swordfish"[..]));
    let reserved = authenticator.reserved_headers();
    assert!(reserved.iter().any(|name| name == "x-app-token"));

    // A carrier is read first, then replaced.
    policy = super::policy(api_key());
    policy.app_token = Some(AppToken {
        header: Arc::from("authorization"),
        value: Secret::new("Basic eDp5"),
    });
    let authenticator = build(&policy);
    assert!(
        !authenticator
            .reserved_headers()
            .contains(&http::header::AUTHORIZATION)
    );
    let bearer = format!("Bearer {KEY}");
    let allowed = get("/")
        .with("authorization", &bearer)
        .to(&authenticator)
        .unwrap();
    assert_eq!(value(&allowed, "authorization"), Some(&b"Basic eDp5"[..]));
    assert!(allowed.remove.contains(&http::header::AUTHORIZATION));
}

#[test]
fn strategies_without_a_policy_cannot_judge() {
    let authenticator = build(&policy(Requirement::AnyOf(vec![Strategy::Mtls])));
    let denied = get("/").to(&authenticator).unwrap_err();
    assert_eq!(denied.kind, Kind::AuthUnavailable);
    assert_eq!((denied.strategy, denied.reason), ("mtls", "not_built"));
    assert_eq!(
        denied.result(),
        crate::telemetry::metrics::AuthResult::Unavailable
    );
    let list = vec![Strategy::Mtls, Strategy::ApiKey];
    let any = build(&policy(Requirement::AnyOf(list.clone())));
    let good = get("/").with("x-api-key", KEY);
    let bad = get("/").with("x-api-key", "wrong");
    assert_eq!(good.verdict(&any), Ok("web".to_owned()));
    assert_eq!(bad.verdict(&any), Err(Kind::CredentialInvalid));
    assert_eq!(get("/").verdict(&any), Err(Kind::AuthUnavailable));
    let all = build(&policy(Requirement::AllOf(list)));
    assert_eq!(good.verdict(&all), Err(Kind::AuthUnavailable));
}

#[test]
fn a_certificate_counts_by_its_exact_names_and_for_mtls_only() {
    let spiffe = |name: &str| MtlsName::Spiffe(name.into());
    let dns = |name: &str| MtlsName::Dns(name.into());
    let with = |requirement| {
        let mut policy = policy(requirement);
        policy.mtls = Some(MtlsPolicy {
            allow: vec![spiffe("spiffe://shop/orders"), dns("cart.shop")],
        });
        build(&policy)
    };
    let verdict = |authenticator: &Authenticator, sent: &Sent, names: Option<&[MtlsName]>| {
        let call = Call {
            certificate: names,
            ..sent.call()
        };
        match authenticator.decide(&Request::at(&call, SystemTime::now())) {
            Ok(allowed) => Ok(allowed.identity.unwrap().subject.unwrap().to_string()),
            Err(Unmet::Denied(denied)) => Err((denied.kind, denied.reason)),
            Err(Unmet::Wait(_)) => panic!("nobody else is asked"),
        }
    };
    let mtls = with(Requirement::AnyOf(vec![Strategy::Mtls]));
    let plain = get("/");
    let orders = [spiffe("spiffe://shop/orders"), dns("x.shop")];
    let cart = [dns("x.shop"), dns("cart.shop")];
    assert_eq!(
        verdict(&mtls, &plain, Some(&orders)),
        Ok("spiffe://shop/orders".to_owned())
    );
    assert_eq!(
        verdict(&mtls, &plain, Some(&cart)),
        Ok("cart.shop".to_owned())
    );
    assert_eq!(
        verdict(&mtls, &plain, None),
        Err((Kind::CredentialMissing, "missing"))
    );
    for other in [
        vec![],
        vec![spiffe("spiffe://shop/orders/")],
        vec![spiffe("spiffe://shop/Orders")],
        vec![spiffe("cart.shop")],
        vec![dns("spiffe://shop/orders")],
        vec![dns("*.shop"), dns("a.cart.shop")],
    ] {
        let refused = verdict(&mtls, &plain, Some(&other));
        assert_eq!(refused, Err((Kind::NotAllowed, "not_listed")), "{other:?}");
    }
    // Beside others: it satisfies nothing but `mtls`, and spoils nothing.
    let keyed = get("/").with("x-api-key", KEY);
    let wrong = get("/").with("x-api-key", "wrong");
    let key = with(api_key());
    let missing = Err((Kind::CredentialMissing, "missing"));
    assert_eq!(verdict(&key, &plain, Some(&orders)), missing);
    let list = vec![Strategy::Mtls, Strategy::ApiKey];
    let any = with(Requirement::AnyOf(list.clone()));
    let stranger = [dns("x.shop")];
    assert_eq!(verdict(&any, &keyed, Some(&stranger)), Ok("web".to_owned()));
    assert_eq!(
        verdict(&any, &keyed, Some(&cart)),
        Ok("cart.shop".to_owned())
    );
    let unknown = Err((Kind::CredentialInvalid, "unknown_key"));
    assert_eq!(verdict(&any, &wrong, Some(&cart)), unknown);
    let not_listed = Err((Kind::NotAllowed, "not_listed"));
    assert_eq!(verdict(&any, &plain, Some(&stranger)), not_listed);
    let all = with(Requirement::AllOf(list));
    assert_eq!(verdict(&all, &keyed, Some(&cart)), Ok("web".to_owned()));
    assert_eq!(verdict(&all, &keyed, Some(&stranger)), not_listed);
    assert_eq!(verdict(&all, &keyed, None), missing);
    assert_eq!(verdict(&all, &plain, Some(&cart)), missing);
}

#[test]
fn lists_decide_once_authenticated() {
    let mut policy = policy(api_key());
    policy.allow = Some(Who {
        services: vec![Arc::from("orders")],
        ..Who::default()
    });
    let authenticator = build(&policy);
    let orders = get("/").with("x-api-key", OTHER_KEY);
    let web = get("/").with("x-api-key", KEY);
    assert_eq!(orders.verdict(&authenticator), Ok("orders".to_owned()));
    let denied = web.to(&authenticator).unwrap_err();
    assert_eq!(denied.kind, Kind::NotAllowed);
    assert_eq!((denied.strategy, denied.reason), ("api-key", "not_listed"));
    assert_eq!(
        get("/").verdict(&authenticator),
        Err(Kind::CredentialMissing)
    );
    assert_eq!(
        get("/").with("x-api-key", "wrong").verdict(&authenticator),
        Err(Kind::CredentialInvalid)
    );
}
