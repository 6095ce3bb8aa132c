//! The signature layer: published examples, and everything that looks like a
//! signature and is none.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    jwk: Value,
    token: String,
    verifies: bool,
}

/// RFC 7515 appendix A, RFC 7520 §4, RFC 8037 appendix A.4.
fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../tests/vectors.json")).unwrap()
}

fn verdict(set: &KeySet, token: &str) -> Option<Verdict> {
    let token = Token::read(token, &JwtAlgorithm::ALL, &[]).ok()?;
    Some(token.verify(set))
}

#[test]
fn published_examples() {
    for vector in vectors() {
        let document = json!({"keys": [vector.jwk]}).to_string();
        let set = KeySet::document(document.as_bytes(), &JwtAlgorithm::ALL, true).unwrap();
        let found = verdict(&set, &vector.token);
        assert_eq!(
            found == Some(Verdict::Verified),
            vector.verifies,
            "{}",
            vector.name
        );
        if vector.verifies {
            let (front, signature) = vector.token.rsplit_once('.').unwrap();
            let first = if signature.starts_with('A') { "B" } else { "A" };
            let tail = signature.get(1..).unwrap();
            assert_ne!(
                verdict(&set, &format!("{front}.{first}{tail}")),
                Some(Verdict::Verified),
                "{}: another signature",
                vector.name
            );
        }
    }
}

#[test]
fn every_algorithm_takes_its_own_and_nothing_else() {
    for algorithm in JwtAlgorithm::ALL {
        let Pair {
            private,
            public,
            stranger,
        } = pair(algorithm);
        let name = algorithm.as_str();
        let jwt = jwt(&jwt_policy(public, &[algorithm]));
        let header = json!({"alg": name}).to_string();
        let payload = good_claims().to_string();
        let good = sign_raw(algorithm, &private, &header, &payload);
        assert_eq!(reason(&jwt, &good), None, "{name}");

        let signed_by_stranger = sign_raw(algorithm, &stranger, &header, &payload);
        assert_eq!(
            reason(&jwt, &signed_by_stranger),
            Some(AuthReason::Signature),
            "{name}"
        );

        let (message, signature) = good.rsplit_once('.').unwrap();
        for (what, token) in [
            ("stripped", format!("{message}.")),
            ("doubled", format!("{message}.{signature}{signature}")),
            (
                "shortened",
                format!("{message}.{}", &signature[..signature.len() - 4]),
            ),
            ("lengthened", format!("{message}.{signature}AAAA")),
            (
                "of zeros",
                format!("{message}.{}", "A".repeat(signature.len() / 4 * 4)),
            ),
        ] {
            let refusal = reason(&jwt, &token);
            assert!(
                matches!(refusal, Some(AuthReason::Signature | AuthReason::Malformed)),
                "{name} {what}: {refusal:?}"
            );
        }
        for padded in [format!("{good}="), format!("{good}=="), format!("{good}\n")] {
            assert_eq!(reason(&jwt, &padded), Some(AuthReason::Malformed), "{name}");
        }
        for (what, token) in [
            ("four parts", format!("{good}.{signature}")),
            ("two parts", message.to_owned()),
        ] {
            assert_eq!(
                reason(&jwt, &token),
                Some(AuthReason::Malformed),
                "{name} {what}"
            );
        }

        let other_payload =
            json!({"sub": "eve", "iss": "https://id.example/", "aud": "orders", "exp": NOW + 600});
        let (front, _) = message.split_once('.').unwrap();
        let swapped = format!(
            "{front}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(other_payload.to_string())
        );
        assert_eq!(
            reason(&jwt, &swapped),
            Some(AuthReason::Signature),
            "{name}"
        );
    }
}

#[test]
fn the_key_fixes_the_family() {
    for algorithm in JwtAlgorithm::ALL {
        let Pair { public, .. } = pair(algorithm);
        let listed: Vec<_> = JwtAlgorithm::ALL
            .into_iter()
            .filter(|one| one.is_symmetric() == algorithm.is_symmetric())
            .collect();
        let jwt = jwt(&jwt_policy(public.clone(), &listed));
        // HMAC with the public key's text as the secret, under every HMAC name.
        if let JwtKeys::PublicKey(pem) = &public {
            for spelling in [pem.as_str(), pem.trim()] {
                let key = EncodingKey::from_secret(spelling.as_bytes());
                for name in [
                    JwtAlgorithm::Hs256,
                    JwtAlgorithm::Hs384,
                    JwtAlgorithm::Hs512,
                ] {
                    let header = json!({"alg": name.as_str()}).to_string();
                    let forged = sign_raw(name, &key, &header, &good_claims().to_string());
                    assert_eq!(reason(&jwt, &forged), Some(AuthReason::Algorithm));
                }
            }
        }
        // A good signature under another algorithm's name.
        for other in JwtAlgorithm::ALL {
            if other == algorithm {
                continue;
            }
            let header = json!({"alg": other.as_str()}).to_string();
            let token = sign_raw(
                algorithm,
                &pair(algorithm).private,
                &header,
                &good_claims().to_string(),
            );
            assert!(reason(&jwt, &token).is_some(), "{algorithm:?} as {other:?}");
        }
        for none in ["none", "None", "NONE", "nOnE", ""] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": none}).to_string());
            let payload = URL_SAFE_NO_PAD.encode(good_claims().to_string());
            for signature in ["", "AAAA"] {
                let token = format!("{header}.{payload}.{signature}");
                assert_eq!(reason(&jwt, &token), Some(AuthReason::Algorithm));
            }
        }
    }
}

#[test]
fn headers_cannot_bring_their_own_keys() {
    for algorithm in JwtAlgorithm::ALL {
        let Pair {
            public, stranger, ..
        } = pair(algorithm);
        let jwt = jwt(&jwt_policy(public, &[algorithm]));
        for extra in [
            json!({"jku": "http://evil.example/jwks"}),
            json!({"x5u": "http://evil.example/cert"}),
            json!({"x5c": ["MIIB"]}),
            json!({"jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(OTHER_SECRET)}}),
            json!({"kid": "../../../dev/null"}),
            json!({"kid": "' OR 1=1 --"}),
            json!({"kid": ""}),
        ] {
            let mut header = extra.clone();
            header["alg"] = json!(algorithm.as_str());
            let payload = good_claims().to_string();
            let forged = sign_raw(algorithm, &stranger, &header.to_string(), &payload);
            assert_eq!(
                reason(&jwt, &forged),
                Some(AuthReason::Signature),
                "{extra}"
            );
        }
        for crit in [
            json!([]),
            json!(["exp"]),
            json!(["b64"]),
            json!(null),
            json!("x"),
        ] {
            let header = json!({"alg": algorithm.as_str(), "crit": crit, "b64": true});
            let token = sign_raw(
                algorithm,
                &pair(algorithm).private,
                &header.to_string(),
                &good_claims().to_string(),
            );
            assert_eq!(reason(&jwt, &token), Some(AuthReason::Critical), "{crit}");
        }
    }
}

#[test]
fn keys_that_cannot_work_are_refused_when_built() {
    let build = |keys: JwtKeys, algorithms: &[JwtAlgorithm]| {
        Jwt::build(
            &jwt_policy(keys, algorithms),
            &ClaimNames::default(),
            1,
            None,
        )
        .map(|_| ())
    };
    let refused = |error: KeyError| Err(BuildError::Jwt(error));
    let hs = [JwtAlgorithm::Hs256];
    let rs = [JwtAlgorithm::Rs256];
    let pem = |text: &str| JwtKeys::PublicKey(text.to_owned());
    assert_eq!(
        build(JwtKeys::Secrets(vec![]), &hs),
        refused(KeyError::NoSecret)
    );
    let short = JwtKeys::Secrets(vec![Secret::new(SECRET), Secret::new("short")]);
    assert_eq!(build(short, &hs), refused(KeyError::ShortSecret));
    let secret = JwtKeys::Secrets(vec![Secret::new(SECRET)]);
    assert_eq!(build(secret, &rs), refused(KeyError::NoAlgorithm));
    assert_eq!(build(pem("nonsense"), &rs), refused(KeyError::Pem));
    assert_eq!(build(pem(pem!("rsa")), &rs), refused(KeyError::Private));
    assert_eq!(
        build(pem(pem!("rsa-1024.pub")), &rs),
        refused(KeyError::Pem)
    );
    assert_eq!(
        build(pem(pem!("rsa.pub")), &hs),
        refused(KeyError::NoAlgorithm)
    );
    assert_eq!(
        build(pem(pem!("rsa.pub")), &[JwtAlgorithm::Es256]),
        refused(KeyError::NoAlgorithm)
    );
    assert_eq!(
        build(pem(pem!("ec-P-256.pub")), &[JwtAlgorithm::Es384]),
        refused(KeyError::NoAlgorithm)
    );
    assert_eq!(
        build(pem(pem!("ec-P-256.pub")), &[JwtAlgorithm::Es256]),
        Ok(())
    );
    let file = |content: &str| {
        JwtKeys::Jwks(JwksSource::File {
            path: "keys.json".into(),
            content: Secret::new(content),
        })
    };
    assert_eq!(build(file("{}"), &rs), refused(KeyError::Document));
    assert_eq!(
        build(file(r#"{"keys":[]}"#), &rs),
        refused(KeyError::Useless)
    );
}

#[test]
fn key_sets_are_read_leniently_and_used_strictly() {
    let rsa = vectors().remove(1).jwk;
    let with = |extra: Value| {
        let mut jwk = rsa.clone();
        for (name, value) in extra.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let count = |keys: Vec<Value>, symmetric: bool| {
        let document = json!({"keys": keys, "more": true}).to_string();
        KeySet::document(document.as_bytes(), &JwtAlgorithm::ALL, symmetric).map(|set| set.len())
    };
    let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    for (jwk, usable) in [
        (rsa.clone(), 1),
        (with(json!({"use": "sig"})), 1),
        (with(json!({"use": "enc"})), 0),
        (with(json!({"key_ops": ["verify"]})), 1),
        (with(json!({"key_ops": ["encrypt"]})), 0),
        (with(json!({"alg": "RS512"})), 1),
        (with(json!({"alg": "RSA-OAEP"})), 0),
        (with(json!({"alg": "ES256"})), 0),
        (with(json!({"alg": "unheard-of"})), 0),
        (with(json!({"n": "AQAB"})), 0),
        (with(json!({"n": "*"})), 0),
        (
            json!({"kty": "EC", "crv": "P-521", "x": "AQ", "y": "AQ"}),
            0,
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}),
            0,
        ),
        (json!({"kty": "OKP", "crv": "X25519", "x": "AQ"}), 0),
        (json!({"kty": "unheard-of"}), 0),
        (json!({"kty": 7}), 0),
        (json!("text"), 0),
        (oct.clone(), 0),
    ] {
        // One bad key does not spoil the set.
        assert_eq!(
            count(vec![jwk.clone(), rsa.clone()], false),
            Ok(usable + 1),
            "{jwk}"
        );
    }
    assert_eq!(count(vec![oct], true), Ok(1));
    let short = json!({"kty": "oct", "k": "c2hvcnQ"});
    assert_eq!(count(vec![short], true), Ok(0));
    assert_eq!(count(vec![rsa.clone(); 32], false), Ok(32));
    assert_eq!(count(vec![rsa; 33], false), Err(KeyError::TooMany));
    for garbage in [
        "",
        "[]",
        "null",
        "{\"keys\":{}}",
        "{\"keys\":[],\"keys\":[]}",
        "<html>",
    ] {
        assert_eq!(
            KeySet::document(garbage.as_bytes(), &JwtAlgorithm::ALL, false).map(|set| set.len()),
            Err(KeyError::Document),
            "{garbage}"
        );
    }
}

#[test]
fn kid_only_looks_up() {
    let all = vectors();
    let mut first = all[1].jwk.clone();
    first["kid"] = json!("one");
    let mut second = all[2].jwk.clone();
    second["kid"] = json!("two");
    let document = json!({"keys": [first, second]}).to_string();
    let set = KeySet::document(document.as_bytes(), &JwtAlgorithm::ALL, false).unwrap();
    let token = Token::read(&all[1].token, &JwtAlgorithm::ALL, &[]).unwrap();
    let verify =
        |kid: Option<&str>| set.verify(token.header.algorithm, kid, token.message, token.signature);
    assert_eq!(verify(Some("one")), Verdict::Verified);
    assert_eq!(verify(None), Verdict::Verified);
    assert_eq!(verify(Some("two")), Verdict::WrongAlgorithm);
    assert_eq!(verify(Some("three")), Verdict::UnknownKey);
    let forged = set.verify(JwtAlgorithm::Rs256, Some("one"), token.message, "AAAA");
    assert_eq!(forged, Verdict::WrongSignature);
    let forged = set.verify(JwtAlgorithm::Rs256, None, token.message, "AAAA");
    assert_eq!(
        forged,
        Verdict::UnknownKey,
        "a newer set might hold the signer"
    );
}

#[test]
fn any_of_several_secrets_verifies() {
    let keys = JwtKeys::Secrets(vec![Secret::new(OTHER_SECRET), Secret::new(SECRET)]);
    let jwt = jwt(&jwt_policy(keys, &[JwtAlgorithm::Hs256]));
    assert_eq!(
        reason(&jwt, &sign(JwtAlgorithm::Hs256, &good_claims())),
        None
    );
}
