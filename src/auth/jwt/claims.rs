//! What a verified token must say (RFC 7519 §4.1), and what is kept of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use serde_json::{Map, Value};

use crate::auth::named::{Named, faithful};
use crate::auth::who::ClaimValues;
use crate::model::{AuthReason, FieldLines, Identity, JwtPolicy, Strategy};

/// 9999-12-31T23:59:59Z: a later date is no date but a trick.
const LAST_DATE: f64 = 253_402_300_799.0;

/// A token found good, with everything that is needed to use it again.
#[derive(Debug)]
pub(in crate::auth) struct Verified {
    pub(in crate::auth) named: Named,
    /// Headers from claims.
    pub(in crate::auth) headers: FieldLines,
    /// For `allow` and `deny`.
    pub(in crate::auth) values: ClaimValues,
    validity: Validity,
}

/// When a token is good, leeway included, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Validity {
    not_before: f64,
    expires: f64,
}

/// Which claims become what.
#[derive(Debug)]
pub(super) struct Uses {
    /// Claim, header.
    pub(super) headers: Vec<(Arc<str>, HeaderName)>,
    /// Claims that lists ask about.
    pub(super) values: Vec<Arc<str>>,
}

impl Verified {
    /// # Errors
    /// `Expired` or `NotYetValid`.
    pub(super) fn check_time(&self, now: SystemTime) -> Result<(), AuthReason> {
        self.validity.check(seconds(now))
    }
}

impl Validity {
    fn check(&self, now: f64) -> Result<(), AuthReason> {
        if now >= self.expires {
            Err(AuthReason::Expired)
        } else if now < self.not_before {
            Err(AuthReason::NotYetValid)
        } else {
            Ok(())
        }
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// Judges the claims of a token whose signature is good.
///
/// # Errors
/// The reason to refuse it.
pub(super) fn accept(
    claims: &Map<String, Value>,
    policy: &JwtPolicy,
    uses: &Uses,
    now: SystemTime,
) -> Result<Verified, AuthReason> {
    let validity = check_dates(claims, policy, seconds(now))?;
    check_issuer(claims, policy)?;
    check_audience(claims, policy)?;
    let subject = text(claims.get("sub"))?;
    let service = match claims.get(&*policy.service_name_claim) {
        Some(Value::String(name)) => Some(name.as_str()),
        _ => None,
    };
    let identity = Identity {
        strategy: Strategy::Jwt,
        subject: subject.filter(|text| !text.is_empty()).map(Arc::from),
        service: service
            .filter(|name| faithful(name).is_some())
            .map(Arc::from),
    };
    Ok(Verified {
        named: Named::new(identity),
        headers: headers(claims, uses),
        values: uses
            .values
            .iter()
            .map(|claim| values(claim, claims.get(&**claim)))
            .collect(),
        validity,
    })
}

/// What the app is told of the claims. Of two for one header the later counts.
fn headers(claims: &Map<String, Value>, uses: &Uses) -> FieldLines {
    let mut headers = FieldLines::default();
    for (claim, name) in &uses.headers {
        let text = claims.get(&**claim).and_then(header_text);
        if let Some(value) = text.as_deref().and_then(faithful) {
            headers.set(name, &value);
        }
    }
    headers
}

fn check_dates(
    claims: &Map<String, Value>,
    policy: &JwtPolicy,
    now: f64,
) -> Result<Validity, AuthReason> {
    let leeway = policy.leeway.as_secs_f64();
    let expires = date(claims.get("exp"))?;
    let not_before = date(claims.get("nbf"))?;
    let issued = date(claims.get("iat"))?;
    if expires.is_none() && (policy.require_exp || policy.max_lifetime.is_some()) {
        return Err(AuthReason::Claims);
    }
    let validity = Validity {
        not_before: not_before.map_or(f64::NEG_INFINITY, |date| date - leeway),
        expires: expires.map_or(f64::INFINITY, |date| date + leeway),
    };
    validity.check(now)?;
    if let (Some(max), Some(expires)) = (policy.max_lifetime, expires) {
        let max = max.as_secs_f64();
        // The token's own word on when it began, and ours on how long it still has.
        let own = issued.or(not_before).map_or(0.0, |start| expires - start);
        if own > max || expires - now > max + leeway {
            return Err(AuthReason::Lifetime);
        }
    }
    Ok(validity)
}

/// A NumericDate (RFC 7519 §2): a number, not negative, within the calendar.
fn date(value: Option<&Value>) -> Result<Option<f64>, AuthReason> {
    match value {
        None => Ok(None),
        Some(Value::Number(number)) => number
            .as_f64()
            .filter(|date| (0.0..=LAST_DATE).contains(date))
            .map(Some)
            .ok_or(AuthReason::Claims),
        Some(_) => Err(AuthReason::Claims),
    }
}

fn text(value: Option<&Value>) -> Result<Option<&str>, AuthReason> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AuthReason::Claims),
    }
}

fn check_issuer(claims: &Map<String, Value>, policy: &JwtPolicy) -> Result<(), AuthReason> {
    let shown = text(claims.get("iss"))?;
    match &policy.issuer {
        None => Ok(()),
        Some(expected) if shown == Some(expected) => Ok(()),
        Some(_) if shown.is_none() => Err(AuthReason::Claims),
        Some(_) => Err(AuthReason::Issuer),
    }
}

/// A string, or a list of nothing but strings (RFC 7519 §4.1.3).
fn check_audience(claims: &Map<String, Value>, policy: &JwtPolicy) -> Result<(), AuthReason> {
    let is_ours = |name: &str| policy.audience.iter().any(|ours| &**ours == name);
    let meant = match claims.get("aud") {
        None if policy.audience.is_empty() => return Ok(()),
        None => return Err(AuthReason::Claims),
        Some(Value::String(name)) => is_ours(name),
        Some(Value::Array(list)) => {
            let mut meant = false;
            for name in list {
                let Value::String(name) = name else {
                    return Err(AuthReason::Claims);
                };
                meant |= is_ours(name);
            }
            meant
        }
        Some(_) => return Err(AuthReason::Claims),
    };
    if meant || policy.audience.is_empty() {
        Ok(())
    } else {
        Err(AuthReason::Audience)
    }
}

/// The text of a scalar.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A claim as a header value: a scalar's text, scalars of a list joined by
/// commas, JSON for anything else. A list whose items hold commas is left out:
/// the app could not take it apart again.
fn header_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(list) => {
            let items: Option<Vec<String>> = list.iter().map(scalar).collect();
            match items {
                Some(items) if items.iter().any(|item| item.contains(',')) => None,
                Some(items) => Some(items.join(",")),
                None => Some(value.to_string()),
            }
        }
        Value::Object(_) => Some(value.to_string()),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => scalar(value),
    }
}

/// A claim as lists see it: each item of a list; of `scope` each word (RFC 8693
/// §4.2).
fn values(claim: &str, value: Option<&Value>) -> Box<[Box<str>]> {
    match value {
        None => Box::default(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(scalar)
            .map(String::into_boxed_str)
            .collect(),
        Some(Value::String(words)) if claim == "scope" => words
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(Box::from)
            .collect(),
        Some(value) => scalar(value)
            .map(String::into_boxed_str)
            .into_iter()
            .collect(),
    }
}
