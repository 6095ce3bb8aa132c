//! `OUTRIGGER_…`: every process setting as a variable, nested by `_`.
//!
//! The names follow from the schema of the process file: a test writes the list
//! from it. Making a schema is work, and memory, that a start does without.

#[cfg(test)]
use std::collections::BTreeMap;

use super::environment::Environment;
use crate::config::problem::Problem;
use crate::config::source::{Node, Place, Value};
use crate::config::suggest;

/// The prefix of our variables.
const PREFIX: &str = "OUTRIGGER_";

/// Variables with the prefix that are no settings.
const OTHERS: [&str; 1] = ["OUTRIGGER_CONFIG"];

/// How a variable's text becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    /// Separated by commas.
    List,
    /// `key=value`, separated by commas.
    Map,
}

/// A line for every setting: variable, keys with dots between, shape.
const VARIABLES: &str = include_str!("variables.txt");

/// A setting that a variable may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    variable: &'static str,
    /// With dots between.
    keys: &'static str,
    shape: Shape,
}

/// Sets every `OUTRIGGER_…` variable in the tree of the process file; gives
/// warnings about unknown ones.
pub(super) fn apply(
    node: &mut Node,
    environment: &Environment,
    notes: &mut Vec<String>,
) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (name, text) in environment.iter() {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if text.is_empty()
            || OTHERS.contains(&name)
            || rest.starts_with("TEST_")
            || rest.starts_with("DEMO_")
        {
            continue;
        }
        if is_service_link(name, environment) {
            if is_link_value(text) && name.ends_with("_PORT") {
                notes.push(format!(
                    "ignored {name}: it is a service link of the container platform"
                ));
            }
            continue;
        }
        let place = Place::Environment(name.into());
        match settings().find(|setting| setting.variable == name) {
            Some(Setting { keys, shape, .. }) => {
                let keys: Vec<&str> = keys.split('.').collect();
                node.set(&keys, value(&place, text, shape));
            }
            None => {
                let mut warning = Problem::warning(place.origin(""), "unknown variable");
                warning.hint = suggest::closest(name, settings().map(|setting| setting.variable))
                    .map(|found| format!("did you mean `{found}`?"));
                warnings.push(warning);
            }
        }
    }
    warnings
}

/// Whether a value is what Kubernetes and Docker put into `…_PORT` for a
/// service of that name.
pub(super) fn is_link_value(text: &str) -> bool {
    text.starts_with("tcp://") || text.starts_with("udp://")
}

/// Whether a variable belongs to a service link, which a Kubernetes service
/// called `outrigger` makes: `OUTRIGGER_PORT`, `OUTRIGGER_SERVICE_HOST`,
/// `OUTRIGGER_PORT_80_TCP_ADDR` ….
fn is_service_link(name: &str, environment: &Environment) -> bool {
    let linked = |base: &str| {
        environment
            .get(&format!("{base}_PORT"))
            .is_some_and(is_link_value)
    };
    for marker in ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"] {
        let mut from = 0;
        while let Some(at) = name.get(from..).and_then(|rest| rest.find(marker)) {
            let end = from + at;
            if linked(name.get(..end).unwrap_or_default()) {
                return true;
            }
            from = end + marker.len();
        }
    }
    false
}

fn value(place: &Place, text: &str, shape: Shape) -> Node {
    let parts = || {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
    };
    let value = match shape {
        Shape::Text => return Node::scalar(place.clone(), text),
        Shape::List => Value::List(
            parts()
                .map(|part| Node::scalar(place.clone(), part))
                .collect(),
        ),
        Shape::Map => {
            let mut map = Node::map(place.clone());
            for part in parts() {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                map.set(&[key], Node::scalar(place.clone(), value));
            }
            return map;
        }
    };
    Node {
        place: place.clone(),
        value,
    }
}

/// The keys of each variable.
#[cfg(test)]
pub(in crate::config) fn paths() -> BTreeMap<String, Vec<String>> {
    let owned = |keys: &str| keys.split('.').map(str::to_owned).collect();
    let all = settings().map(|setting| (setting.variable.to_owned(), owned(setting.keys)));
    all.collect()
}

/// The variables of all settings.
pub(super) fn names() -> std::collections::BTreeSet<String> {
    let names = settings().map(|setting| setting.variable.to_owned());
    names.collect()
}

/// Every setting there is.
fn settings() -> impl Iterator<Item = Setting> {
    VARIABLES.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (variable, keys, shape) = (words.next()?, words.next()?, words.next()?);
        let shape = match shape {
            "list" => Shape::List,
            "map" => Shape::Map,
            _ => Shape::Text,
        };
        Some(Setting {
            variable,
            keys,
            shape,
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::config::schema;

    /// Set to write the list anew.
    const UPDATE: &str = "OUTRIGGER_TEST_UPDATE_SCHEMAS";

    /// Keys and shape by variable.
    type Found = BTreeMap<String, (Vec<String>, Shape)>;

    fn walk(schema: &Json, root: &Json, path: &mut Vec<String>, settings: &mut Found) {
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            let pointer = target.trim_start_matches('#');
            if let Some(found) = root.pointer(pointer) {
                walk(found, root, path, settings);
            }
            return;
        }
        let alternatives = ["anyOf", "oneOf"]
            .iter()
            .filter_map(|word| schema.get(*word).and_then(Json::as_array))
            .flatten();
        let mut any = false;
        for alternative in alternatives {
            any = true;
            walk(alternative, root, path, settings);
        }
        if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
            for (key, property) in properties {
                if key == "$schema" {
                    continue;
                }
                path.push(key.clone());
                walk(property, root, path, settings);
                path.pop();
            }
            return;
        }
        if any || path.is_empty() {
            return;
        }
        let shape = match schema.get("type").and_then(Json::as_str) {
            Some("array") => Shape::List,
            Some("object") => Shape::Map,
            _ => Shape::Text,
        };
        let known = settings
            .entry(variable(path))
            .or_insert_with(|| (path.clone(), shape));
        // A list wins over the text it may be shortened to.
        if known.1 == Shape::Text {
            known.1 = shape;
        }
    }

    /// `["admin", "listen"]` is `OUTRIGGER_ADMIN_LISTEN`.
    fn variable(path: &[String]) -> String {
        let mut name = String::from("OUTRIGGER");
        for key in path {
            name.push('_');
            for character in key.chars() {
                if character.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(character.to_ascii_uppercase());
            }
        }
        name
    }

    #[test]
    fn the_list_is_that_of_the_schema() {
        let schema = schema::process();
        let mut found = Found::new();
        walk(&schema, &schema, &mut Vec::new(), &mut found);
        let mut lines = String::new();
        for (variable, (keys, shape)) in found {
            let shape = match shape {
                Shape::Text => "text",
                Shape::List => "list",
                Shape::Map => "map",
            };
            lines += &format!("{variable} {} {shape}\n", keys.join("."));
        }
        if crate::config::Environment::capture()
            .value(UPDATE)
            .is_some()
        {
            let path = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/src/config/process/variables.txt"
            );
            std::fs::write(path, &lines).expect("written");
        }
        assert!(
            lines == VARIABLES,
            "variables.txt is not what the schema says; run the tests with {UPDATE}=1, then again"
        );
    }

    #[test]
    fn names_follow_from_the_schema() {
        for (name, shape) in [
            ("OUTRIGGER_SERVICES_DIR", Shape::Text),
            ("OUTRIGGER_WORKERS", Shape::Text),
            ("OUTRIGGER_ADMIN_TOKEN", Shape::Text),
            ("OUTRIGGER_TRUSTED_PROXIES", Shape::List),
            ("OUTRIGGER_SHUTDOWN_QUIT_ENDPOINT", Shape::Text),
            ("OUTRIGGER_TRACING_EXPORTER", Shape::Text),
            ("OUTRIGGER_TRACING_EXPORTER_OTLP_HEADERS", Shape::Map),
            ("OUTRIGGER_DATABASE_ROLE_SECRET", Shape::Text),
            ("OUTRIGGER_ACCESS_LOG", Shape::Text),
        ] {
            let found = settings().find(|setting| setting.variable == name);
            assert_eq!(found.map(|found| found.shape), Some(shape), "{name}");
        }
    }

    #[test]
    fn service_links_are_told_from_settings() {
        let linked = Environment::from_pairs([("OUTRIGGER_PORT", "tcp://10.0.0.1:80")]);
        assert!(is_service_link("OUTRIGGER_PORT_80_TCP_ADDR", &linked));
        assert!(is_service_link("OUTRIGGER_SERVICE_HOST", &linked));
        assert!(is_service_link("OUTRIGGER_PORT", &linked));
        assert!(!is_service_link("OUTRIGGER_ADMIN_LISTEN", &linked));
        let unlinked = Environment::from_pairs([("A", "b")]);
        assert!(!is_service_link("OUTRIGGER_SERVICE_HOST", &unlinked));
    }
}
