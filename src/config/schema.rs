//! JSON Schemas of both files, from the types that read them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::raw::{RawProcess, RawService};

/// Schema of a service file.
pub fn service() -> Value {
    generate::<RawService>()
}

/// Schema of the process settings.
pub fn process() -> Value {
    generate::<RawProcess>()
}

/// A schema as it is printed and committed.
pub fn text(schema: &Value) -> String {
    let mut text = serde_json::to_string_pretty(schema).expect("a value can always be written");
    text.push('\n');
    text
}

fn generate<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    adapt(&mut schema);
    schema
}

/// Says what the reader accepts beyond the types: references and quoted
/// numbers, `x-…` keys; and takes back what it does not: null.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(adapt),
        Value::Object(object) => {
            for (key, child) in object.iter_mut() {
                // Names of properties are no keywords.
                if matches!(key.as_str(), "properties" | "$defs") {
                    if let Value::Object(children) = child {
                        children.values_mut().for_each(adapt);
                    }
                } else {
                    adapt(child);
                }
            }
            object.remove("default");
            object.remove("format");
            without_null(object);
            with_references(object);
            with_extensions(object);
        }
        _ => {}
    }
}

/// A key without a value is an error.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|word| word != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
        alternatives.retain(|alternative| alternative != &json!({"type": "null"}));
        if let [only] = alternatives.as_slice()
            && let Value::Object(only) = only.clone()
        {
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// Wherever a number, truth value or word stands, a reference may stand.
fn with_references(object: &mut Map<String, Value>) {
    let words = object.remove("enum");
    let choice = object.remove("oneOf");
    if let Some(alternative) = words
        .map(|words| json!({ "enum": words }))
        .or_else(|| choice.map(|choice| json!({ "oneOf": choice })))
    {
        object.remove("type");
        let mut alternatives = vec![
            alternative,
            json!({ "type": "string", "pattern": "\\$\\{" }),
        ];
        if alternatives
            .first()
            .is_some_and(|words| words.to_string().contains("\"off\""))
        {
            alternatives.push(json!({ "const": false }));
        }
        object.insert("anyOf".to_owned(), Value::Array(alternatives));
        return;
    }
    let pattern = match object.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => "^[0-9.]+$|\\$\\{",
        Some("boolean") => "^(true|false|on|off)$|\\$\\{",
        Some("string") if !object.contains_key("const") && !object.contains_key("pattern") => {
            // YAML reads `1.10` as a number; our reader keeps it as written.
            object.insert("type".to_owned(), json!(["string", "number", "boolean"]));
            return;
        }
        _ => return,
    };
    let word = object.remove("type");
    object.insert("type".to_owned(), json!([word, "string"]));
    object.insert("pattern".to_owned(), json!(pattern));
}

/// `$schema` and `x-…` keys are allowed in every mapping of ours.
fn with_extensions(object: &mut Map<String, Value>) {
    if object.get("additionalProperties") != Some(&Value::Bool(false)) {
        return;
    }
    object.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.insert("$schema".to_owned(), json!({ "type": "string" }));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::source::{Node, Value as Content, read};

    /// Set to write the committed schemas anew.
    const UPDATE: &str = "OUTRIGGER_TEST_UPDATE_SCHEMAS";

    fn committed(name: &str, schema: &Value) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config/schema")
            .join(name);
        let text = text(schema);
        let environment = crate::config::Environment::capture();
        if environment.value(UPDATE).is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            std::fs::write(&path, &text).expect("schema");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is not what the code says; run the tests once with {UPDATE}=1",
            path.display()
        );
    }

    #[test]
    fn committed_schemas_are_those_of_the_code() {
        committed("service.schema.json", &service());
        committed("process.schema.json", &process());
    }

    /// A node as an editor's parser would see it (YAML 1.2 core schema).
    fn as_json(node: &Node) -> Value {
        match &node.value {
            Content::Null => Value::Null,
            Content::List(items) => items.iter().map(as_json).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), as_json(&entry.node)))
                .collect(),
            Content::Scalar(scalar) if scalar.plain => serde_json::from_str(&scalar.text)
                .ok()
                .filter(|value: &Value| value.is_number() || value.is_boolean())
                .unwrap_or_else(|| Value::String(scalar.text.clone())),
            Content::Scalar(scalar) => Value::String(scalar.text.clone()),
        }
    }

    fn assert_valid(schema: &Value, text: &str) {
        let node = read(text.as_bytes(), &Path::new("x.yaml").into()).expect("readable");
        let validator = jsonschema::validator_for(schema).expect("a schema");
        let instance = as_json(&node);
        let errors: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(errors.is_empty(), "{text}\n{errors:#?}");
    }

    #[test]
    fn examples_fit_the_schema() {
        let schema = service();
        for text in crate::config::examples::SERVICES {
            assert_valid(&schema, text);
        }
        assert_valid(&process(), crate::config::examples::PROCESS);
    }

    #[test]
    fn mistakes_do_not_fit() {
        let validator = jsonschema::validator_for(&service()).expect("a schema");
        for bad in [
            json!({ "prot": 1 }),
            json!({ "port": 0 }),
            json!({ "port": null }),
            json!({ "auth": { "strategy": "jvt" } }),
            json!({ "limits": { "idleTimeout": "5" } }),
        ] {
            assert!(!validator.is_valid(&bad), "{bad}");
        }
        for good in [
            json!({ "x-note": { "any": 1 }, "$schema": "x" }),
            json!({ "port": "3001" }),
            json!({ "port": "${env:PORT}" }),
            json!({ "auth": "jwt" }),
            json!({ "upstream": 8080 }),
            json!({ "healthCheck": false }),
        ] {
            assert!(validator.is_valid(&good), "{good}");
        }
    }
}
