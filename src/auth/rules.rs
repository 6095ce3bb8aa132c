//! Which rule decides about a request.
//!
//! The first rule that fits exactly decides, else the policy's default. A rule
//! that fits only in another spelling (case, needless encoding, trailing slash)
//! never decides, so it cannot exempt anything; but its demands must be met as
//! well, so a stricter rule cannot be dodged. That holds whatever the rules mean
//! to each other: nothing has to be ranked by strictness.

use http::Method;
use smallvec::SmallVec;

use crate::model::{AuthPolicy, Requirement, Rule, Who};

use super::BuildError;
use super::path::{Fit, Glob, is_plain};
use super::who::{ClaimNames, Listed, Refusal};

/// What is asked of a request.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) requirement: Requirement,
    pub(super) allow: Option<Listed>,
    pub(super) deny: Refusal,
}

impl Plan {
    fn new(
        requirement: &Requirement,
        allow: Option<&Who>,
        deny: Refusal,
        names: &mut ClaimNames,
    ) -> Self {
        Self {
            requirement: requirement.clone(),
            allow: allow.map(|who| Listed::new(who, names)),
            deny,
        }
    }

    /// Whether nothing at all is asked.
    fn is_open(&self) -> bool {
        matches!(self.requirement, Requirement::None) && !matches!(self.deny, Refusal::Everyone)
    }
}

#[derive(Debug)]
struct Compiled {
    globs: Box<[Glob]>,
    methods: Box<[Method]>,
    plan: Plan,
}

/// The ordered rules of a service and its default.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Box<[Compiled]>,
    default: Plan,
    /// Whether PATH-1 applies.
    plain_paths_only: bool,
}

/// The outcome of the search.
#[derive(Debug)]
pub(super) struct Found {
    /// The rule that decides; `None` = the default.
    decider: Option<usize>,
    /// Rules whose demands must be met too, because another spelling of the
    /// request would fall under them.
    also: SmallVec<[usize; 2]>,
}

impl Found {
    /// The rule to name, and whose upstream counts.
    pub(super) fn rule(&self) -> Option<usize> {
        self.also.first().copied().or(self.decider)
    }
}

impl Rules {
    pub(super) fn build(policy: &AuthPolicy, names: &mut ClaimNames) -> Result<Self, BuildError> {
        let mut rules = Vec::with_capacity(policy.rules.len());
        for rule in &policy.rules {
            let requirement = rule.requirement.as_ref().unwrap_or(&policy.requirement);
            let allow = rule.allow.as_ref().or(policy.allow.as_ref());
            let deny = Refusal::new(&rule.deny, names);
            rules.push(Compiled {
                globs: rule.paths.iter().map(Glob::new).collect(),
                methods: methods(rule)?,
                plan: Plan::new(requirement, allow, deny, names),
            });
        }
        Ok(Self {
            plain_paths_only: rules.iter().any(|rule| !rule.globs.is_empty()),
            rules: rules.into(),
            default: Plan::new(
                &policy.requirement,
                policy.allow.as_ref(),
                Refusal::Nobody,
                names,
            ),
        })
    }

    /// `None`: the target has two readings (PATH-1).
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<Found> {
        if self.plain_paths_only && !is_plain(path) {
            return None;
        }
        let mut also = SmallVec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            match rule.fit(method, path) {
                Fit::No => {}
                Fit::Spelling if rule.plan.is_open() => {}
                Fit::Spelling => also.push(index),
                Fit::Exact => {
                    return Some(Found {
                        decider: Some(index),
                        also,
                    });
                }
            }
        }
        Some(Found {
            decider: None,
            also,
        })
    }

    /// Every plan that must be met, the decider's last.
    pub(super) fn plans<'a>(&'a self, found: &'a Found) -> impl Iterator<Item = &'a Plan> {
        let Found { decider, also } = found;
        also.iter()
            .copied()
            .map(Some)
            .chain([*decider])
            .map(|index| match index {
                Some(index) => {
                    &self
                        .rules
                        .get(index)
                        .expect("indices come from the search over these rules")
                        .plan
                }
                None => &self.default,
            })
    }
}

fn methods(rule: &Rule) -> Result<Box<[Method]>, BuildError> {
    rule.methods
        .iter()
        .map(|name| {
            Method::from_bytes(name.as_bytes()).map_err(|_| BuildError::Method(name.to_string()))
        })
        .collect()
}

impl Compiled {
    fn fit(&self, method: &Method, path: &str) -> Fit {
        let fit = self.fit_method(method);
        if fit == Fit::No || self.globs.is_empty() {
            return fit;
        }
        let best = self.globs.iter().map(|glob| glob.fit(path)).max();
        fit.min(best.unwrap_or(Fit::No))
    }

    /// HEAD counts as GET where only GET is listed: apps serve it by the same
    /// code. Method names are case-sensitive, but not every app knows.
    fn fit_method(&self, method: &Method) -> Fit {
        if self.methods.is_empty() || self.methods.contains(method) {
            return Fit::Exact;
        }
        if *method == Method::HEAD && self.methods.contains(&Method::GET) {
            return Fit::Exact;
        }
        let shown = method.as_str();
        if self.methods.iter().any(|listed| {
            listed.as_str().eq_ignore_ascii_case(shown)
                || (*listed == Method::GET && shown.eq_ignore_ascii_case("head"))
        }) {
            Fit::Spelling
        } else {
            Fit::No
        }
    }
}
