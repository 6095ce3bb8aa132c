//! `strategy`, `anyOf`, `allOf`: what a request must show.

use super::context::Context;
use crate::config::raw::RawStrategy;
use crate::model::{Requirement, Strategy};

/// The three keys as written, at one place.
pub(super) struct Written<'a> {
    pub(super) strategy: Option<RawStrategy>,
    pub(super) any_of: Option<&'a Vec<RawStrategy>>,
    pub(super) all_of: Option<&'a Vec<RawStrategy>>,
}

/// Compiles the requirement at `key`; `None` = nothing is written.
pub(super) fn compile(
    written: &Written<'_>,
    key: &str,
    context: &mut Context<'_>,
) -> Option<Requirement> {
    let given = [
        written.strategy.is_some(),
        written.any_of.is_some(),
        written.all_of.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        context
            .report
            .error(key, "takes only one of `strategy`, `anyOf` and `allOf`");
    }
    if let Some(strategy) = written.strategy {
        return Some(match convert(strategy) {
            Some(strategy) => Requirement::AnyOf(vec![strategy]),
            None => Requirement::None,
        });
    }
    if let Some(list) = written.any_of {
        return Some(Requirement::AnyOf(strategies(
            list,
            &format!("{key}.anyOf"),
            context,
        )));
    }
    let list = written.all_of?;
    let list = strategies(list, &format!("{key}.allOf"), context);
    Some(Requirement::AllOf(list))
}

/// The strategy, or `None` for `none`.
pub(super) fn convert(strategy: RawStrategy) -> Option<Strategy> {
    match strategy {
        RawStrategy::None => None,
        RawStrategy::ApiKey => Some(Strategy::ApiKey),
        RawStrategy::Jwt => Some(Strategy::Jwt),
        RawStrategy::Custom => Some(Strategy::Custom),
        RawStrategy::Mtls => Some(Strategy::Mtls),
    }
}

fn strategies(list: &[RawStrategy], key: &str, context: &mut Context<'_>) -> Vec<Strategy> {
    if list.is_empty() {
        context
            .report
            .error_hint(key, "is empty", "name at least one strategy");
    }
    let mut strategies = Vec::new();
    for (index, strategy) in list.iter().enumerate() {
        let item = format!("{key}[{index}]");
        match convert(*strategy) {
            None => context.report.error_hint(
                &item,
                "`none` has no place in a list",
                "a rule with `strategy: none` opens single paths",
            ),
            Some(strategy) if strategies.contains(&strategy) => {
                context.report.error(&item, "is there twice");
            }
            Some(strategy) => strategies.push(strategy),
        }
    }
    strategies
}
