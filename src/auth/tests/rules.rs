//! Which rule decides, and that no spelling gets around it.

use super::*;
use crate::model::Who;

fn open(paths: &[&str]) -> Rule {
    Rule {
        requirement: Some(Requirement::None),
        ..rule(paths)
    }
}

fn keyed(paths: &[&str]) -> Rule {
    Rule {
        requirement: Some(api_key()),
        ..rule(paths)
    }
}

fn with_rules(default: Requirement, rules: Vec<Rule>) -> Arc<Authenticator> {
    let mut policy = policy(default);
    policy.rules = rules;
    build(&policy)
}

const DENIED: Result<String, Kind> = Err(Kind::CredentialMissing);

fn nobody() -> Result<String, Kind> {
    Ok("nobody".to_owned())
}

#[test]
fn first_match_decides() {
    let authenticator = with_rules(
        api_key(),
        vec![open(&["/a/b"]), keyed(&["/a/**"]), open(&["/a/c"])],
    );
    assert_eq!(get("/a/b").verdict(&authenticator), nobody());
    assert_eq!(get("/a/c").verdict(&authenticator), DENIED);
    assert_eq!(get("/x").verdict(&authenticator), DENIED);
    let allowed = get("/a/b").to(&authenticator).unwrap();
    assert_eq!(allowed.rule, Some(0));
    let allowed = get("/x").with("x-api-key", KEY).to(&authenticator).unwrap();
    assert_eq!(allowed.rule, None);
}

#[test]
fn an_exemption_is_taken_exactly() {
    let authenticator = with_rules(api_key(), vec![open(&["/public/**"])]);
    for exempt in ["/public", "/public/", "/public/x", "/public/x/Y%20z"] {
        assert_eq!(get(exempt).verdict(&authenticator), nobody(), "{exempt}");
    }
    for other in [
        "/PUBLIC/x",
        "/Public",
        "/%70ublic/x",
        "/publicx",
        "/x/public/y",
        "*",
    ] {
        assert_eq!(get(other).verdict(&authenticator), DENIED, "{other}");
    }
    for hostile in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public//../admin",
        "//public/x",
        "/public;/../admin",
        "/public/\\..\\admin",
        "/public%00/admin",
        "/public/%",
    ] {
        assert_eq!(
            get(hostile).verdict(&authenticator),
            Err(Kind::BadRequest),
            "{hostile}"
        );
    }
}

#[test]
fn a_stricter_rule_is_met_in_any_spelling() {
    let authenticator = with_rules(Requirement::None, vec![keyed(&["/admin/**", "/secret"])]);
    for guarded in [
        "/admin",
        "/admin/",
        "/Admin",
        "/ADMIN/x",
        "/%61dmin",
        "/%41DMIN/x",
        "/secret",
        "/secret/",
        "/Secret",
        "/secre%74",
    ] {
        assert_eq!(get(guarded).verdict(&authenticator), DENIED, "{guarded}");
        let with_key = get(guarded).with("x-api-key", KEY);
        let allowed = with_key.to(&authenticator).unwrap();
        assert_eq!(allowed.rule, Some(0), "{guarded}");
        assert!(allowed.identity.is_some(), "{guarded}");
    }
    for other in ["/", "/adminx", "/x/admin", "/secret/x"] {
        assert_eq!(get(other).verdict(&authenticator), nobody(), "{other}");
    }
}

#[test]
fn an_earlier_exemption_shields_only_its_own_spelling() {
    let rules = vec![open(&["/admin/login"]), keyed(&["/admin/**"])];
    let authenticator = with_rules(Requirement::None, rules);
    assert_eq!(get("/admin/login").verdict(&authenticator), nobody());
    for other in [
        "/admin/LOGIN",
        "/ADMIN/login",
        "/admin/login/",
        "/admin/log%69n",
    ] {
        assert_eq!(get(other).verdict(&authenticator), DENIED, "{other}");
    }
}

#[test]
fn a_variant_spelling_meets_the_lists_of_both() {
    let list = |id: &str| {
        Some(Who {
            keys: vec![Arc::from(id)],
            ..Who::default()
        })
    };
    let rules = vec![Rule {
        allow: list("orders"),
        ..rule(&["/reports/**"])
    }];
    let mut policy = policy(api_key());
    policy.rules = rules;
    let authenticator = build(&policy);
    let web = |path: &str| get(path).with("x-api-key", KEY).verdict(&authenticator);
    let orders = |path: &str| {
        get(path)
            .with("x-api-key", OTHER_KEY)
            .verdict(&authenticator)
    };
    assert_eq!(web("/other"), Ok("web".to_owned()));
    assert_eq!(web("/reports/1"), Err(Kind::NotAllowed));
    assert_eq!(web("/REPORTS/1"), Err(Kind::NotAllowed));
    assert_eq!(orders("/reports/1"), Ok("orders".to_owned()));
    assert_eq!(orders("/Reports/1"), Ok("orders".to_owned()));
}

#[test]
fn methods() {
    let mut only_get = open(&["/x"]);
    only_get.methods = vec![Arc::from("GET")];
    let authenticator = with_rules(api_key(), vec![only_get]);
    assert_eq!(get("/x").verdict(&authenticator), nobody());
    assert_eq!(get("/x").method("HEAD").verdict(&authenticator), nobody());
    for other in ["POST", "get", "head", "OPTIONS"] {
        let sent = get("/x").method(other);
        assert_eq!(sent.verdict(&authenticator), DENIED, "{other}");
    }

    let mut guarded = keyed(&["/x"]);
    guarded.methods = vec![Arc::from("GET"), Arc::from("POST")];
    let authenticator = with_rules(Requirement::None, vec![guarded]);
    for dodge in ["GET", "HEAD", "POST", "get", "pOST", "head"] {
        let sent = get("/x").method(dodge);
        assert_eq!(sent.verdict(&authenticator), DENIED, "{dodge}");
    }
    assert_eq!(get("/x").method("PUT").verdict(&authenticator), nobody());
}

#[test]
fn a_rule_without_paths_leaves_targets_alone() {
    let mut any_post = keyed(&[]);
    any_post.methods = vec![Arc::from("POST")];
    let authenticator = with_rules(Requirement::None, vec![any_post]);
    assert_eq!(get("/a//b;c/%2e").verdict(&authenticator), nobody());
    assert_eq!(get("/").method("POST").verdict(&authenticator), DENIED);
}

#[test]
fn deny_for_all_and_for_some() {
    let mut closed = rule(&["/internal/**"]);
    closed.deny = Deny::Everyone;
    let mut no_web = rule(&["/orders/**"]);
    no_web.deny = Deny::Who(Who {
        keys: vec![Arc::from("web")],
        ..Who::default()
    });
    let authenticator = with_rules(api_key(), vec![closed, no_web]);
    let web = |path: &str| get(path).with("x-api-key", KEY).verdict(&authenticator);
    assert_eq!(web("/internal/x"), Err(Kind::NotAllowed));
    assert_eq!(web("/INTERNAL/x"), Err(Kind::NotAllowed));
    assert_eq!(
        get("/internal").verdict(&authenticator),
        Err(Kind::NotAllowed)
    );
    assert_eq!(web("/orders/1"), Err(Kind::NotAllowed));
    assert_eq!(web("/Orders/1"), Err(Kind::NotAllowed));
    assert_eq!(web("/x"), Ok("web".to_owned()));
    let orders = get("/orders/1").with("x-api-key", OTHER_KEY);
    assert_eq!(orders.verdict(&authenticator), Ok("orders".to_owned()));
}

#[test]
fn explain_tells_the_rule_and_the_decision() {
    let mut guarded = keyed(&["/admin/**"]);
    guarded.origin.key = "auth.rules[0]".to_owned();
    let authenticator = with_rules(Requirement::None, vec![guarded]);
    let told = authenticator.explain(&get("/ADMIN").call());
    assert_eq!(told.rule, Some(0));
    assert_eq!(told.origin.as_deref(), Some("auth.rules[0]"));
    assert_eq!(told.requirement, "api-key");
    assert_eq!(told.decision, Decision::Denied);
    assert_eq!((told.strategy, told.reason), ("api-key", "missing"));
    let told = authenticator.explain(&get("/admin").with("x-api-key", KEY).call());
    assert_eq!(told.decision, Decision::Allowed);
    assert_eq!(told.service.as_deref(), Some("web"));
    let told = authenticator.explain(&get("/").call());
    assert_eq!((told.rule, told.decision), (None, Decision::Allowed));
    assert_eq!(told.requirement, "none");
}
