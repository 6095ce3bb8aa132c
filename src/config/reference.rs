//! `docs/reference.md`: every key with its type and meaning, written from the
//! schemas, so that it cannot say anything else than the code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::process::overlay;
use super::schema;

/// Set to write the page anew.
const UPDATE: &str = "OUTRIGGER_TEST_UPDATE_SCHEMAS";

const HEAD: &str = "\
# Reference: every key

Written from the schemas by a test; `outrigger schema service` and `outrigger schema process` \
print those. What the keys are for and how they work together is in [configuration](configuration.md).

*text*, *number*, *true or false* may be quoted, and wherever one of them stands, \
`${env:NAME}`, `${env:NAME:-default}` or `${file:path}` may stand. A *duration* is `300ms`, `5s`, \
`30m`, `24h`, `7d` or `0`; a *size* is `64KiB`, `10MiB`. `[]` is a list: \
`auth.apiKey.keys[].id` is the `id` of each entry. Keys beginning with `x-` and `$schema` are \
allowed in every mapping.
";

/// One key.
struct Row {
    path: String,
    kind: String,
    meaning: String,
}

/// What a schema says, with references followed.
struct Pages<'a> {
    root: &'a Value,
    rows: Vec<Row>,
}

impl<'a> Pages<'a> {
    fn of(root: &'a Value) -> Vec<Row> {
        let mut pages = Self {
            root,
            rows: Vec::new(),
        };
        pages.mapping(root, "");
        pages.rows
    }

    fn follow(&self, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                let pointer = target.trim_start_matches('#');
                self.root.pointer(pointer).expect("a definition is there")
            }
            None => schema,
        }
    }

    /// The alternatives of a schema, references followed; itself where it has
    /// none.
    fn alternatives(&self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.follow(schema);
        let words = ["anyOf", "oneOf"];
        let lists = words
            .iter()
            .filter_map(|word| schema.get(*word)?.as_array());
        let inner: Vec<&Value> = lists
            .flatten()
            .flat_map(|one| self.alternatives(one))
            .collect();
        if inner.is_empty() {
            vec![schema]
        } else {
            inner
        }
    }

    fn mapping(&mut self, schema: &'a Value, path: &str) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, property) in properties.iter().filter(|(name, _)| *name != "$schema") {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            self.key(property, path);
        }
    }

    fn key(&mut self, property: &'a Value, path: String) {
        let meaning = property.get("description").and_then(Value::as_str);
        let meaning = meaning.unwrap_or_else(|| panic!("`{path}` has no description"));
        let alternatives = self.alternatives(property);
        self.rows.push(Row {
            path: path.clone(),
            kind: self.kinds(&alternatives),
            meaning: meaning.replace('\n', " ").replace('|', "\\|"),
        });
        for alternative in alternatives {
            self.mapping(alternative, &path);
            if let Some(items) = alternative.get("items") {
                for item in self.alternatives(items) {
                    self.mapping(item, &format!("{path}[]"));
                }
            }
        }
    }

    fn kinds(&self, alternatives: &[&'a Value]) -> String {
        let mut kinds: Vec<String> = Vec::new();
        for alternative in alternatives {
            // A reference may stand anywhere, which the head of the page says.
            let is_reference = alternative.get("pattern").and_then(Value::as_str) == Some("\\$\\{");
            for kind in self.kind(alternative) {
                if !is_reference && !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
        }
        kinds.join(", ")
    }

    fn kind(&self, schema: &'a Value) -> Vec<String> {
        let word = |value: &Value| {
            format!(
                "`{}`",
                value.as_str().map_or(value.to_string(), ToOwned::to_owned)
            )
        };
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.iter().map(word).collect();
        }
        if let Some(constant) = schema.get("const") {
            return vec![word(constant)];
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let pattern = schema.get("pattern").and_then(Value::as_str);
        let has = |name: &str| types.contains(&name);
        let kind = if pattern.is_some_and(|pattern| pattern.contains("ms|")) {
            "duration"
        } else if pattern.is_some_and(|pattern| pattern.contains("KiB")) {
            "size"
        } else if has("array") {
            return self.list(schema);
        } else if has("object") {
            "mapping"
        } else if pattern.is_some_and(|pattern| pattern.starts_with("^(true")) {
            "true or false"
        } else if has("integer") && pattern.is_some() || types == ["number", "string"] {
            "number"
        } else {
            "text"
        };
        vec![kind.to_owned()]
    }

    fn list(&self, schema: &'a Value) -> Vec<String> {
        let items = schema.get("items").map(|items| self.alternatives(items));
        let kinds = items.map(|items| self.kinds(&items)).unwrap_or_default();
        vec![format!("list of {kinds}")]
    }
}

fn page() -> String {
    let (service, process) = (schema::service(), schema::process());
    let mut text = HEAD.to_owned();
    text.push_str("\n## Service file\n\n| key | type | meaning |\n|---|---|---|\n");
    for Row {
        path,
        kind,
        meaning,
    } in Pages::of(&service)
    {
        let _ = writeln!(text, "| `{path}` | {kind} | {meaning} |");
    }
    let variables: BTreeMap<String, String> = overlay::paths()
        .into_iter()
        .map(|(name, path)| (path.join("."), name))
        .collect();
    text.push_str(
        "\n## Process settings\n\n| key | type | meaning | variable |\n|---|---|---|---|\n",
    );
    for Row {
        path,
        kind,
        meaning,
    } in Pages::of(&process)
    {
        let variable = variables.get(&path).map(|name| format!("`{name}`"));
        let variable = variable.unwrap_or_default();
        let _ = writeln!(text, "| `{path}` | {kind} | {meaning} | {variable} |");
    }
    text
}

#[test]
fn the_committed_page_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let text = page();
    let environment = super::Environment::capture();
    if environment.value(UPDATE).is_some() {
        std::fs::write(&path, &text).expect("the page");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/reference.md is not what the code says; run the tests once with {UPDATE}=1"
    );
}

#[test]
fn every_key_of_the_hand_written_tables_exists() {
    let page = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let mut prefix = "";
    let mut count = 0;
    for line in text.lines() {
        match line {
            "## Service file" => prefix = "",
            "### `auth`" => prefix = "auth.",
            "### `database`" => prefix = "database.",
            line if line.starts_with("## Process settings") => prefix = "",
            _ => {}
        }
        let cell = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split(" |").next());
        for key in cell.into_iter().flat_map(|cell| cell.split(", ")) {
            let key = key.trim_matches('`');
            assert!(
                page.contains(&format!("| `{prefix}{key}` |")),
                "docs/configuration.md: no key `{prefix}{key}`"
            );
            count += 1;
        }
    }
    assert!(count > 40, "{count} keys");
}

/// The keys that a table's code names within braces, below `base`, with what is
/// written as their default: `{a: 1, b{c | d}, e: x|y}`.
fn inside(code: &str, base: &str) -> Vec<(String, Option<String>)> {
    struct Level {
        prefix: String,
        last: String,
        valued: bool,
        expects: bool,
    }
    let level = |prefix: &str| Level {
        prefix: prefix.to_owned(),
        last: prefix.to_owned(),
        valued: false,
        expects: false,
    };
    let mut found = Vec::new();
    let mut levels = vec![level(base)];
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let Some(top) = levels.last_mut() else { break };
        let word = rest
            .find(|byte: char| !byte.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let mut taken = first.len_utf8();
        match first {
            '{' => {
                let mut below = level(&top.last);
                below.expects = true;
                levels.push(below);
            }
            '}' => drop(levels.pop()),
            ',' => top.expects = true,
            '|' => top.expects = !top.valued,
            '[' => taken = rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if word > 0 && top.expects => {
                top.last = format!("{}.{}", top.prefix, &rest[..word]);
                (top.expects, top.valued) = (false, rest[word..].starts_with(':'));
                taken = word;
                let behind = rest[word..].strip_prefix(": ");
                let default = behind.filter(|behind| !behind.starts_with(['{', '[']));
                let default = default.map(|behind| match behind.strip_prefix('"') {
                    Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                    None => behind.split([',', '}']).next().unwrap_or_default(),
                });
                if let Some(default) = default {
                    // The quotes and the colon, too.
                    let quotes = if rest[word + 2..].starts_with('"') {
                        2
                    } else {
                        0
                    };
                    taken = word + 2 + default.len() + quotes;
                }
                // Words to choose from are no default.
                let default = default.filter(|text| !text.contains('|'));
                found.push((top.last.clone(), default.map(|text| text.trim().to_owned())));
            }
            _ if word > 0 => taken = word,
            _ => {}
        }
        rest = &rest[taken..];
    }
    found
}

/// Not keys, or said in other words there.
const ELSEWHERE: [&str; 4] = ["else", "claim", "scope", "connectTimeout"];

#[test]
fn keys_and_defaults_within_the_tables_are_those_of_the_code() {
    let (service, process) = (schema::service(), schema::process());
    let rows = |root| -> BTreeMap<String, String> {
        let rows = Pages::of(root).into_iter();
        rows.map(|row| (row.path, row.meaning)).collect()
    };
    let (service, process) = (rows(&service), rows(&process));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let (mut known, mut prefix) = (&service, "");
    let mut counts = (0, 0);
    for line in text.lines() {
        match line {
            "### `auth`" => prefix = "auth.",
            "### `database`" => prefix = "database.",
            line if line.starts_with("## Process settings") => (known, prefix) = (&process, ""),
            line if line.starts_with("## Environment") => break,
            _ => {}
        }
        let line = line.replace("\\|", "|");
        let mut codes = line.split('`').skip(1).step_by(2);
        let Some(key) = line.strip_prefix("| `").and_then(|_| codes.next()) else {
            continue;
        };
        let key = format!("{prefix}{key}");
        for code in codes.filter(|code| code.contains('{') && !code.starts_with("{name}")) {
            for (path, default) in inside(code, &key) {
                let name = path.rsplit('.').next().unwrap_or_default();
                if ELSEWHERE.contains(&name) {
                    continue;
                }
                let of_list = path.replacen(&key, &format!("{key}[]"), 1);
                let meaning = known.get(&path).or_else(|| known.get(&of_list));
                let meaning = meaning.unwrap_or_else(|| panic!("no key `{path}`: {line}"));
                counts.0 += 1;
                if let Some(default) = default.filter(|default| !default.is_empty()) {
                    assert!(meaning.contains(&default), "{path}: {default}? {meaning}");
                    counts.1 += 1;
                }
            }
        }
    }
    assert!(
        counts.0 > 100 && counts.1 > 45,
        "{counts:?} keys and defaults"
    );
}
