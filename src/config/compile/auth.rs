//! `auth`: from what is written to a policy that cannot be half a policy.

use super::context::Context;
use super::names::{header_name, is_credential_header, is_reserved_header};
use super::requirement::{self, Written};
use super::{api_key, hook, jwt, rules};
use crate::config::raw::{RawAppToken, RawAuth, RawPreflight, RawStrategy, Short};
use crate::config::suggest;
use crate::model::{
    AppToken, AuthPolicy, Deny, MtlsName, MtlsPolicy, Preflight, Requirement, Strategy,
};

/// Compiles `auth`.
pub(super) fn compile(
    written: Option<&Short<RawAuth>>,
    has_client_ca: bool,
    context: &mut Context<'_>,
) -> AuthPolicy {
    let empty = RawAuth::default();
    let mut short = None;
    let raw = match written {
        Some(Short::Full(raw)) => raw,
        Some(Short::Text(word)) => {
            short = strategy_word(word, context);
            &empty
        }
        Some(Short::On | Short::Off) => {
            context.report.error_hint(
                "auth",
                "expected a strategy or a mapping",
                "an open service says `strategy: none`",
            );
            &empty
        }
        None => &empty,
    };
    let (requirement, mut explicit) = requirement(raw, short, context);
    // Something was said, if not understood: that is reported already.
    explicit |= matches!(written, Some(Short::Text(_) | Short::On | Short::Off));
    let rules = rules::compile(raw.rules.as_deref().unwrap_or_default(), context);
    let mut named: Vec<Strategy> = requirement.strategies().to_vec();
    for rule in &rules {
        if let Some(requirement) = &rule.requirement {
            named.extend(requirement.strategies());
        }
    }
    let single = single_strategy(&requirement, &rules);
    flat_names(raw, single, context);
    unused_blocks(raw, &named, context);
    let policy = AuthPolicy {
        explicit,
        allow: raw
            .allow
            .as_ref()
            .map(|who| rules::who(who, "auth.allow", context)),
        preflight: match raw.preflight {
            Some(RawPreflight::Authenticate) => Preflight::Authenticate,
            Some(RawPreflight::Forward) | None => Preflight::Forward,
        },
        hide_credentials: raw.hide_credentials.unwrap_or(false),
        app_token: raw
            .app_token
            .as_ref()
            .and_then(|token| app_token(token, context)),
        api_key: named
            .contains(&Strategy::ApiKey)
            .then(|| api_key::compile(raw, single, context)),
        jwt: named
            .contains(&Strategy::Jwt)
            .then(|| jwt::compile(raw, single, context))
            .flatten(),
        hook: named
            .contains(&Strategy::Custom)
            .then(|| hook::compile(raw.hook.as_ref(), context))
            .flatten(),
        mtls: named
            .contains(&Strategy::Mtls)
            .then(|| mtls(raw, has_client_ca, context)),
        requirement,
        rules,
    };
    sense(&policy, context);
    policy
}

fn strategy_word(word: &str, context: &mut Context<'_>) -> Option<RawStrategy> {
    let found = RawStrategy::parse(word);
    if found.is_none() {
        let words = RawStrategy::ALL.iter().map(|(name, _)| *name);
        let list = "none, api-key, jwt, custom, mtls";
        // A resolved reference is never printed.
        let message = if context.report.places().is_resolved("auth") {
            format!("the reference's value is not one of {list}")
        } else {
            let shown: String = word.chars().take(60).collect();
            format!("`{shown}` is not one of {list}")
        };
        match suggest::closest(word, words) {
            Some(found) => {
                context
                    .report
                    .error_hint("auth", message, format!("did you mean `{found}`?"));
            }
            None => context.report.error("auth", message),
        }
    }
    found
}

/// The requirement where no rule matches, and whether somebody said so.
fn requirement(
    raw: &RawAuth,
    short: Option<RawStrategy>,
    context: &mut Context<'_>,
) -> (Requirement, bool) {
    let written = Written {
        strategy: raw.strategy.or(short),
        any_of: raw.any_of.as_ref(),
        all_of: raw.all_of.as_ref(),
    };
    if let Some(requirement) = requirement::compile(&written, "auth", context) {
        return (requirement, true);
    }
    let blocks: Vec<(&str, Strategy)> = [
        ("apiKey", Strategy::ApiKey, raw.api_key.is_some()),
        ("jwt", Strategy::Jwt, raw.jwt.is_some()),
        ("hook", Strategy::Custom, raw.hook.is_some()),
        ("mtls", Strategy::Mtls, raw.mtls.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, strategy, present)| present.then_some((name, strategy)))
    .collect();
    match blocks.as_slice() {
        [(_, strategy)] => return (Requirement::AnyOf(vec![*strategy]), true),
        [] => {}
        [first, ..] => {
            let names: Vec<&str> = blocks.iter().map(|(name, _)| *name).collect();
            context.report.error_hint(
                "auth",
                format!("has {}, but no `strategy`", names.join(" and ")),
                "name the strategy, or list them in `anyOf` or `allOf`",
            );
            return (Requirement::AnyOf(vec![first.1]), true);
        }
    }
    if let Some((_, strategy)) = context.defaults.framework.strategy {
        // What opens a service stands in its own file: an environment that says
        // `none` leaves it as unsaid as it was.
        return match requirement::convert(strategy) {
            Some(strategy) => (Requirement::AnyOf(vec![strategy]), true),
            None => (Requirement::None, false),
        };
    }
    if raw.secret_key.is_some() || raw.public_key.is_some() {
        context.report.error_hint(
            "auth",
            "has a key, but no `strategy`",
            "add `strategy: api-key` or `strategy: jwt`",
        );
    }
    (Requirement::None, false)
}

/// The only strategy of the whole policy, if there is exactly one.
fn single_strategy(requirement: &Requirement, rules: &[crate::model::Rule]) -> Option<Strategy> {
    let [only] = requirement.strategies() else {
        return None;
    };
    rules
        .iter()
        .filter_map(|rule| rule.requirement.as_ref())
        .flat_map(Requirement::strategies)
        .all(|other| other == only)
        .then_some(*only)
}

/// `secretKey` and `publicKey` are for policies of exactly one strategy.
fn flat_names(raw: &RawAuth, single: Option<Strategy>, context: &mut Context<'_>) {
    let flat = [
        ("secretKey", raw.secret_key.is_some()),
        ("publicKey", raw.public_key.is_some()),
    ];
    for (name, present) in flat {
        if !present {
            continue;
        }
        let key = format!("auth.{name}");
        match (single, name) {
            (Some(Strategy::Jwt), _) | (Some(Strategy::ApiKey), "secretKey") => {}
            (Some(Strategy::ApiKey), _) => {
                context
                    .report
                    .error(&key, "has no use with strategy api-key");
            }
            (Some(strategy), _) => context.report.error(
                &key,
                format!("has no use with strategy {}", strategy.as_str()),
            ),
            (None, _) => context.report.error_hint(
                &key,
                "is allowed only with exactly one strategy",
                "use the blocks `apiKey` and `jwt`",
            ),
        }
    }
}

fn unused_blocks(raw: &RawAuth, named: &[Strategy], context: &mut Context<'_>) {
    for (name, strategy, present) in [
        ("apiKey", Strategy::ApiKey, raw.api_key.is_some()),
        ("jwt", Strategy::Jwt, raw.jwt.is_some()),
        ("hook", Strategy::Custom, raw.hook.is_some()),
        ("mtls", Strategy::Mtls, raw.mtls.is_some()),
    ] {
        if present && !named.contains(&strategy) {
            context.report.warn(
                &format!("auth.{name}"),
                format!(
                    "is not used: no strategy or rule names {}",
                    strategy.as_str()
                ),
            );
        }
    }
}

/// Another spelling of a credential's header: stripping it from requests would
/// strip the credential before it is read.
pub(super) fn shadows_credential(name: &str) -> bool {
    is_credential_header(name) && !matches!(name, "authorization" | "x-api-key" | "cookie")
}

fn app_token(written: &RawAppToken, context: &mut Context<'_>) -> Option<AppToken> {
    let header = written.header.as_deref().and_then(header_name);
    match &header {
        None => context
            .report
            .error("auth.appToken.header", "needs the name of a header"),
        Some(name) if is_reserved_header(name) || shadows_credential(name) => context
            .report
            .error("auth.appToken.header", "this header cannot be set"),
        Some(_) => {}
    }
    let value = written.value.as_ref();
    match value {
        None => context.report.error("auth.appToken", "needs `value`"),
        Some(value) if value.0.is_empty() => {
            context.report.error("auth.appToken.value", "is empty");
        }
        Some(value) if http::HeaderValue::from_bytes(value.0.expose()).is_err() => context
            .report
            .error("auth.appToken.value", "cannot stand in a header"),
        Some(_) => {}
    }
    Some(AppToken {
        header: header?,
        value: value?.0.clone(),
    })
}

fn mtls(raw: &RawAuth, has_client_ca: bool, context: &mut Context<'_>) -> MtlsPolicy {
    if !has_client_ca && !context.tolerant {
        context.report.error_hint(
            "auth",
            "strategy mtls needs `tls.clientCa`",
            "client certificates are checked on the service's own TLS port",
        );
    }
    let list = raw.mtls.as_ref().and_then(|mtls| mtls.allow.as_ref());
    let mut allow = Vec::new();
    if list.is_none_or(Vec::is_empty) {
        context.report.error_hint(
            "auth.mtls",
            "strategy mtls needs `allow`",
            "list exact names: spiffe://trust-domain/path or dns:name",
        );
    }
    for (index, name) in list.into_iter().flatten().enumerate() {
        match MtlsName::parse(name) {
            Some(parsed) => allow.push(parsed),
            None => context.report.error(
                &format!("auth.mtls.allow[{index}]"),
                "expected an exact name: spiffe://trust-domain/path or dns:name",
            ),
        }
    }
    MtlsPolicy { allow }
}

/// Ids in `allow` and `deny` that no key has.
fn key_ids(policy: &AuthPolicy, context: &mut Context<'_>) {
    if context.tolerant {
        return;
    }
    let keys = policy.api_key.iter().flat_map(|policy| &policy.keys);
    let known: Vec<&str> = keys.map(|key| &*key.id).collect();
    let mut lists: Vec<(String, &Vec<_>)> = Vec::new();
    if let Some(who) = &policy.allow {
        lists.push(("auth.allow.keys".to_owned(), &who.keys));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if let Some(who) = &rule.allow {
            lists.push((format!("auth.rules[{index}].allow.keys"), &who.keys));
        }
        if let Deny::Who(who) = &rule.deny {
            lists.push((format!("auth.rules[{index}].deny.keys"), &who.keys));
        }
    }
    for (key, ids) in lists {
        for (index, id) in ids.iter().enumerate() {
            if !known.contains(&&**id) {
                let key = format!("{key}[{index}]");
                let id = context.report.shown(&key, id);
                let message = format!("no key of this service has the id {id}");
                let hint = "ids are those of `auth.apiKey.keys`, and `default`";
                context.report.warn_hint(&key, message, hint);
            }
        }
    }
}

/// What cannot ever be met, or opens more than it seems to.
fn sense(policy: &AuthPolicy, context: &mut Context<'_>) {
    let anything_named = policy
        .rules
        .iter()
        .filter_map(|rule| rule.requirement.as_ref())
        .any(|requirement| *requirement != Requirement::None);
    if policy.requirement == Requirement::None && policy.allow.is_some() && !anything_named {
        context.report.error_hint(
            "auth.allow",
            "nobody is authenticated, so nobody can be allowed",
            "name a strategy",
        );
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let is_listed = rule.allow.is_some() || matches!(rule.deny, Deny::Who(_));
        // A rule that says `none` itself is told so where it is read.
        if rule.requirement.is_none() && policy.requirement == Requirement::None && is_listed {
            context.report.error_hint(
                &format!("auth.rules[{index}]"),
                "nobody is authenticated here, so nobody can be allowed or denied by name",
                "name a strategy in the rule",
            );
        }
    }
    key_ids(policy, context);
    if policy.preflight == Preflight::Authenticate && policy.requirement == Requirement::None {
        context
            .report
            .warn("auth.preflight", "has no effect on an open service");
    }
    if policy.requirement != Requirement::None || context.tolerant {
        return;
    }
    if !policy.explicit && context.settings.auth_required {
        context.report.error_hint(
            "auth",
            "the process requires authentication (`auth.required`)",
            "name a strategy, or write `auth: none` to leave the service open",
        );
    } else if !policy.explicit {
        context.report.warn_hint(
            "auth",
            "no authentication: whoever reaches the port may call",
            "name a strategy, or write `auth: none` to say that it is meant",
        );
    }
}
