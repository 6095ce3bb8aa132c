//! Every metric and every label that the alerts and the dashboard name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::support::manifests::{documents, list, project, text};

/// Added to every series by Prometheus, or a bucket's bound.
const OTHER_LABELS: [&str; 3] = ["job", "instance", "le"];

/// Each metric with its type and labels, from the generated list.
fn known() -> BTreeMap<String, (String, Vec<String>)> {
    let list = fs::read_to_string(project("docs/metrics.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").filter(|label| *label != "–");
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        (
            cells[1].trim_matches('`').to_owned(),
            (cells[2].to_owned(), labels.collect()),
        )
    })
    .collect()
}

/// The expressions of the dashboard's panels and variables.
fn dashboard() -> Vec<String> {
    let file = fs::read_to_string(project("examples/monitoring/dashboard.json")).unwrap();
    let document: Value = serde_json::from_str(&file).unwrap();
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in list(&document, "/panels") {
        assert!(
            ids.insert(panel["id"].to_string()),
            "two panels {}",
            panel["id"]
        );
        for target in list(panel, "/targets") {
            found.push(text(target, "/expr").to_owned());
        }
    }
    for variable in list(&document, "/templating/list") {
        if let Some(query) = variable.pointer("/query/query").and_then(Value::as_str) {
            found.push(query.to_owned());
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The expressions of the alerts, and of the series of their tests.
fn alerts() -> Vec<String> {
    let mut found = Vec::new();
    for document in documents(&project("examples/monitoring/alerts.yaml")) {
        for group in list(&document, "/groups") {
            for rule in list(group, "/rules") {
                found.push(text(rule, "/expr").to_owned());
                for pointer in ["/annotations/description", "/annotations/summary"] {
                    found.extend(rule.pointer(pointer).map(ToString::to_string));
                }
            }
        }
    }
    for document in documents(&project("examples/monitoring/alerts.test.yaml")) {
        for test in list(&document, "/tests") {
            for series in list(test, "/input_series") {
                found.push(text(series, "/series").to_owned());
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

fn is_name(byte: char) -> bool {
    byte.is_ascii_alphanumeric() || byte == '_'
}

/// The metrics of an expression, each with what follows it.
fn named(expression: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for prefix in ["outrigger_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            let before = expression[..at].chars().next_back();
            if before.is_some_and(|before| is_name(before) || before == '.') {
                continue;
            }
            let rest = &expression[at..];
            let end = rest.find(|byte| !is_name(byte)).unwrap_or(rest.len());
            found.push((&rest[..end], &rest[end..]));
        }
    }
    found
}

/// Label names of `{a="b",c=~"d"}` at the beginning of a text.
fn selected(rest: &str) -> Vec<&str> {
    let Some(inside) = rest
        .strip_prefix('{')
        .and_then(|rest| rest.split('}').next())
    else {
        return Vec::new();
    };
    // A value may hold commas and more; names stand before `=` or `!`.
    let mut names = Vec::new();
    let mut outside = true;
    let mut start = 0;
    for (at, byte) in inside.char_indices() {
        match byte {
            '"' => outside = !outside,
            ',' if outside => start = at + 1,
            '=' | '!' if outside && start <= at => {
                names.push(inside[start..at].trim());
                start = inside.len();
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn every_metric_and_label_named_exists() {
    let known = known();
    assert!(
        known.len() > 25 && known.contains_key("outrigger_circuit_state"),
        "{known:?}"
    );
    let mut used = 0;
    for expression in dashboard().into_iter().chain(alerts()) {
        let mut labels_here: BTreeSet<&str> = OTHER_LABELS.into_iter().collect();
        for (name, rest) in named(&expression) {
            let family = match known.get(name) {
                Some((kind, _)) => {
                    assert_ne!(
                        kind, "histogram",
                        "{name} has _bucket, _sum, _count: {expression}"
                    );
                    name
                }
                None => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap_or(name),
            };
            let (_, labels) = known
                .get(family)
                .unwrap_or_else(|| panic!("no metric `{name}`: {expression}"));
            labels_here.extend(labels.iter().map(String::as_str));
            for label in selected(rest) {
                let there = labels.iter().any(|known| known == label);
                assert!(
                    there || OTHER_LABELS.contains(&label),
                    "{name} has no label `{label}`: {expression}"
                );
            }
            used += 1;
        }
        for grouped in expression.split(" by (").skip(1) {
            for label in grouped.split(')').next().unwrap().split(',') {
                let label = label.trim();
                assert!(
                    labels_here.contains(label),
                    "no label `{label}`: {expression}"
                );
            }
        }
    }
    assert!(used > 60, "{used} metrics are named");
}

#[test]
fn names_and_labels_are_found() {
    let expression =
        "sum by (le) (rate(outrigger_x_bucket{a=~\"b,c=\", d!=\"e\"}[5m])) / process_y";
    let found = named(expression);
    assert_eq!(found[0].0, "outrigger_x_bucket");
    assert_eq!(selected(found[0].1), ["a", "d"]);
    assert_eq!(found[1], ("process_y", ""));
}
