//! `rules`, `allow` and `deny`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::names::parse_glob;
use super::requirement::{self, Written};
use super::upstream;
use crate::config::raw::{RawRule, RawWho, Short};
use crate::config::suggest;
use crate::model::{Deny, PathGlob, Requirement, Rule, Segment, Who};

/// Compiles the rules in their order.
pub(super) fn compile(written: &[RawRule], context: &mut Context<'_>) -> Vec<Rule> {
    let mut caught_all: Option<usize> = None;
    let mut rules = Vec::new();
    for (index, raw) in written.iter().enumerate() {
        let key = format!("auth.rules[{index}]");
        let rule = one(raw, &key, context);
        if let Some(before) = caught_all {
            context.report.warn(
                &key,
                format!("is never reached: rule {before} matches every request"),
            );
        } else if raw.methods.is_none() && matches_everything(raw, &rule.paths) {
            caught_all = Some(index);
        }
        rules.push(rule);
    }
    rules
}

fn matches_everything(raw: &RawRule, paths: &[PathGlob]) -> bool {
    raw.paths.is_none() || paths.iter().any(|glob| glob.segments == [Segment::Rest])
}

fn one(raw: &RawRule, key: &str, context: &mut Context<'_>) -> Rule {
    let paths = paths(raw, key, context);
    let methods = methods(raw, key, context);
    let written = Written {
        strategy: raw.strategy,
        any_of: raw.any_of.as_ref(),
        all_of: raw.all_of.as_ref(),
    };
    let requirement = requirement::compile(&written, key, context);
    let deny = match &raw.deny {
        None | Some(Short::Off) => Deny::Nobody,
        Some(Short::On) => Deny::Everyone,
        Some(Short::Full(who)) => Deny::Who(self::who(who, &format!("{key}.deny"), context)),
        Some(Short::Text(_)) => {
            context
                .report
                .error(&format!("{key}.deny"), "expected true, false or a mapping");
            Deny::Everyone
        }
    };
    if requirement == Some(Requirement::None) {
        // Also what is left of a rule whose file was cut off in the middle.
        if raw.paths.is_none() && deny != Deny::Everyone {
            context.report.error_hint(
                key,
                "an exemption needs `paths`",
                "to open everything, write `strategy: none` in `auth` itself",
            );
        }
        if raw.allow.is_some() || matches!(deny, Deny::Who(_)) {
            context.report.error(
                key,
                "nobody is authenticated here, so nobody can be allowed or denied by name",
            );
        }
    }
    let allow = raw
        .allow
        .as_ref()
        .map(|who| self::who(who, &format!("{key}.allow"), context));
    let upstream = raw.upstream.as_ref().map(|written| {
        let port = context.port;
        upstream::compile(Some(written), &format!("{key}.upstream"), port, context)
    });
    Rule {
        paths,
        methods,
        requirement,
        allow,
        deny,
        upstream,
        origin: context.report.origin(key),
    }
}

fn paths(raw: &RawRule, key: &str, context: &mut Context<'_>) -> Vec<PathGlob> {
    let mut globs = Vec::new();
    if raw.paths.as_ref().is_some_and(Vec::is_empty) {
        context.report.error_hint(
            &format!("{key}.paths"),
            "is empty",
            "without `paths` a rule matches every path",
        );
    }
    for (index, text) in raw.paths.iter().flatten().enumerate() {
        match parse_glob(text) {
            Ok(glob) => globs.push(glob),
            Err(message) => context
                .report
                .error(&format!("{key}.paths[{index}]"), message),
        }
    }
    globs
}

/// RFC 9110 §9, RFC 5789.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
];

fn methods(raw: &RawRule, key: &str, context: &mut Context<'_>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    if raw.methods.as_ref().is_some_and(Vec::is_empty) {
        context.report.error(&format!("{key}.methods"), "is empty");
    }
    for (index, text) in raw.methods.iter().flatten().enumerate() {
        let key = format!("{key}.methods[{index}]");
        let name = text.to_ascii_uppercase();
        if http::Method::from_bytes(name.as_bytes()).is_err() {
            context.report.error(&key, "is no method");
        } else if name == "CONNECT" {
            context.report.error(&key, "CONNECT is always refused");
        } else {
            if !METHODS.contains(&&*name)
                && let Some(meant) = suggest::closest(&name, METHODS)
            {
                let message = format!("`{name}` is not one of HTTP's own methods");
                let hint = format!("did you mean `{meant}`?");
                context.report.warn_hint(&key, message, hint);
            }
            names.push(Arc::from(name));
        }
    }
    names
}

/// Compiles `allow` or `deny` at `key`.
pub(super) fn who(raw: &RawWho, key: &str, context: &mut Context<'_>) -> Who {
    if *raw == RawWho::default() {
        context.report.error_hint(
            key,
            "names nobody",
            "list `services`, `keys`, `subjects` or `claims`",
        );
    }
    let mut list = |name: &str, written: Option<&Vec<String>>| -> Vec<Arc<str>> {
        let Some(written) = written else {
            return Vec::new();
        };
        if written.is_empty() || written.iter().any(String::is_empty) {
            context.report.error(&format!("{key}.{name}"), "is empty");
        }
        written
            .iter()
            .map(|text| Arc::from(text.as_str()))
            .collect()
    };
    let services = list("services", raw.services.as_ref());
    let keys = list("keys", raw.keys.as_ref());
    let subjects = list("subjects", raw.subjects.as_ref());
    let mut claims: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
    if raw.claims.as_ref().is_some_and(BTreeMap::is_empty) {
        list("claims", Some(&Vec::new()));
    }
    for (claim, values) in raw.claims.iter().flatten() {
        let values = list(&format!("claims.{claim}"), Some(&values.0));
        claims.insert(Arc::from(claim.as_str()), values);
    }
    Who {
        services,
        keys,
        subjects,
        claims,
    }
}
