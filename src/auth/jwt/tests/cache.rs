//! Tokens seen before.

use super::*;

fn policy(audience: &str) -> JwtPolicy {
    let mut policy = jwt_policy(
        JwtKeys::Secrets(vec![Secret::new(SECRET)]),
        &[JwtAlgorithm::Hs256],
    );
    policy.audience = vec![Arc::from(audience)];
    policy
}

#[test]
fn a_hit_is_the_same_decision_until_the_token_expires() {
    let jwt = jwt(&policy("orders"));
    let token = sign(JwtAlgorithm::Hs256, &good_claims());
    let first = jwt.check(token.as_bytes(), now(), Some(1)).unwrap();
    let second = jwt.check(token.as_bytes(), now(), Some(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(jwt.tokens.len(1), 1);
    assert_eq!(jwt.tokens.len(0), 0);

    let late = now() + Duration::from_secs(660);
    let early = late - Duration::from_millis(1);
    assert!(jwt.check(token.as_bytes(), early, Some(1)).is_ok());
    assert_eq!(
        jwt.check(token.as_bytes(), late, Some(1)).err(),
        Some(Refusal::Wrong(AuthReason::Expired))
    );
    assert_eq!(jwt.tokens.len(1), 0);
}

#[test]
fn the_clock_may_go_back() {
    let jwt = jwt(&policy("orders"));
    let mut claims = good_claims();
    claims["nbf"] = json!(NOW);
    let token = sign(JwtAlgorithm::Hs256, &claims);
    assert!(jwt.check(token.as_bytes(), now(), Some(0)).is_ok());
    assert_eq!(
        jwt.check(token.as_bytes(), now() - Duration::from_secs(61), Some(0))
            .err(),
        Some(Refusal::Wrong(AuthReason::NotYetValid))
    );
}

#[test]
fn what_one_service_takes_is_nothing_to_another() {
    let orders = jwt(&policy("orders"));
    let payments = jwt(&policy("payments"));
    let token = sign(JwtAlgorithm::Hs256, &good_claims());
    for _ in 0..3 {
        assert_eq!(reason(&orders, &token), None);
        assert_eq!(reason(&payments, &token), Some(AuthReason::Audience));
    }
    assert_eq!(payments.tokens.len(0), 0);
}

#[test]
fn the_whole_token_is_the_key() {
    let jwt = jwt(&policy("orders"));
    let token = sign(JwtAlgorithm::Hs256, &good_claims());
    assert_eq!(reason(&jwt, &token), None);
    let (front, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{front}.{first}{}", &signature[1..]);
    assert_eq!(reason(&jwt, &forged), Some(AuthReason::Signature));
}

#[test]
fn the_cache_is_bounded() {
    let jwt = jwt(&policy("orders"));
    let long = "x".repeat(5000);
    for number in 0..2000 {
        let mut claims = good_claims();
        claims["jti"] = json!(number);
        claims["filler"] = json!(long);
        let token = sign(JwtAlgorithm::Hs256, &claims);
        assert_eq!(reason(&jwt, &token), None);
    }
    let kept = jwt.tokens.len(0);
    assert!((100..700).contains(&kept), "{kept}");
}

#[test]
fn an_unused_cache_weighs_little() {
    let jwt = jwt(&policy("orders"));
    let bytes = jwt.tokens.bytes(0);
    assert!(bytes < 4096, "{bytes}");
}
