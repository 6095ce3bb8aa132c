//! JSON to statements.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::Refusal;
use super::words;
use crate::model::Kind;
use crate::pg::backend::{Parameter, Statement};

/// Most queries of a batch.
const MAX_QUERIES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBody<'a> {
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Vec<&'a RawValue>,
    array_mode: Option<bool>,
    #[serde(borrow)]
    queries: Option<Vec<RawQuery<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawQuery<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Vec<&'a RawValue>,
    array_mode: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawBegin {
    isolation: Option<String>,
    read_only: bool,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Every value as a string, as the server sent it.
    pub(super) raw_text: bool,
    /// Rows as arrays instead of objects.
    pub(super) arrays: bool,
}

/// One query of a request.
pub(super) struct Query<'a> {
    sql: Cow<'a, str>,
    parameters: Vec<Parameter<'a>>,
    pub(super) shape: Shape,
}

impl Query<'_> {
    pub(super) fn statement(&self) -> Statement<'_> {
        let parameters = self.parameters.iter();
        Statement {
            sql: &self.sql,
            parameters: parameters
                .map(|parameter| parameter.as_deref().map(Cow::Borrowed))
                .collect(),
        }
    }

    /// Of the statement, without comments.
    pub(super) fn first_word(&self) -> &str {
        words::first(&self.sql)
    }

    /// Whether the statement would end a transaction that others rely on.
    pub(super) fn ends_transaction(&self) -> bool {
        words::end_transaction(&self.sql)
    }
}

/// What a request asks for.
pub(super) enum Asked<'a> {
    One(Query<'a>),
    /// One transaction.
    Batch(Vec<Query<'a>>, Begin),
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Begin {
    isolation: Option<&'static str>,
    read_only: bool,
    deferrable: bool,
}

impl Begin {
    /// The statement, of fixed words.
    pub(super) fn sql(&self) -> String {
        let mut sql = "BEGIN".to_owned();
        if let Some(level) = self.isolation {
            sql.push_str(" ISOLATION LEVEL ");
            sql.push_str(level);
        }
        if self.read_only {
            sql.push_str(" READ ONLY");
        }
        if self.deferrable {
            sql.push_str(" DEFERRABLE");
        }
        sql
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Of the body of `…/tx`: empty, or `{isolation?, readOnly?}`.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let raw: RawBegin = serde_json::from_slice(body).map_err(|_| Kind::BadRequest)?;
        Ok(Self {
            isolation: raw.isolation.as_deref().map(level).transpose()?,
            read_only: raw.read_only,
            deferrable: false,
        })
    }

    fn of_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        let written = headers.get("neon-batch-isolation-level");
        let written = written.map(|value| value.to_str().unwrap_or("?"));
        Ok(Self {
            isolation: written.map(level).transpose()?,
            read_only: is_true(headers, "neon-batch-read-only"),
            deferrable: is_true(headers, "neon-batch-deferrable"),
        })
    }
}

/// `RepeatableRead`, `repeatable read`, `REPEATABLE_READ`.
fn level(written: &str) -> Result<&'static str, Refusal> {
    let letters = written.chars().filter(char::is_ascii_alphabetic);
    let word: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    match word.as_str() {
        "readuncommitted" => Ok("READ UNCOMMITTED"),
        "readcommitted" => Ok("READ COMMITTED"),
        "repeatableread" => Ok("REPEATABLE READ"),
        "serializable" => Ok("SERIALIZABLE"),
        _ => Err(Refusal::Statement {
            code: "22023",
            message: "the isolation level is none of ReadUncommitted, ReadCommitted, \
                      RepeatableRead, Serializable"
                .to_owned(),
        }),
    }
}

fn is_true(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value == "true")
}

/// Reads a request of `…/sql`. With `batches`, several queries are one
/// transaction; else they are refused.
pub(super) fn read<'a>(
    body: &'a [u8],
    headers: &HeaderMap,
    batches: bool,
) -> Result<Asked<'a>, Refusal> {
    let raw: RawBody<'a> = serde_json::from_slice(body).map_err(|_| Kind::BadRequest)?;
    let shape = |own: Option<bool>| Shape {
        raw_text: is_true(headers, "neon-raw-text-output"),
        arrays: own.unwrap_or_else(|| is_true(headers, "neon-array-mode")),
    };
    let query = |sql, parameters: Vec<&'a RawValue>, own| {
        let parameters: Result<_, Refusal> = parameters.into_iter().map(parameter).collect();
        Ok::<_, Refusal>(Query {
            sql,
            parameters: parameters?,
            shape: shape(own),
        })
    };
    match (raw.query, raw.queries) {
        (Some(sql), None) => Ok(Asked::One(query(sql, raw.params, raw.array_mode)?)),
        (None, Some(list)) if batches && list.len() <= MAX_QUERIES => {
            let own = raw.array_mode;
            let read = list
                .into_iter()
                .map(|one| query(one.query, one.params, one.array_mode.or(own)));
            let queries = read.collect::<Result<Vec<_>, _>>()?;
            Ok(Asked::Batch(queries, Begin::of_headers(headers)?))
        }
        (None, Some(_)) if batches => Err(Refusal::Statement {
            code: "54000",
            message: format!("a batch has at most {MAX_QUERIES} queries"),
        }),
        _ => Err(Kind::BadRequest.into()),
    }
}

/// A JSON value as the text of a parameter: strings as they are, numbers and
/// booleans as written, arrays as PostgreSQL writes arrays, objects as JSON.
fn parameter(raw: &RawValue) -> Result<Parameter<'_>, Refusal> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let read: Cow<'_, str> = read_string(text)?;
            Ok(Some(read))
        }
        Some(b'[') => {
            let list: Vec<Value> = serde_json::from_str(text).map_err(|_| Kind::BadRequest)?;
            let mut literal = String::new();
            write_array(&list, &mut literal);
            Ok(Some(literal.into()))
        }
        _ => Ok(Some(text.into())),
    }
}

fn read_string(text: &str) -> Result<Cow<'_, str>, Refusal> {
    // Without an escape the string is what stands between the quotes.
    let inside = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inside.filter(|inside| !inside.contains('\\')) {
        Some(plain) => Ok(Cow::Borrowed(plain)),
        None => serde_json::from_str::<String>(text)
            .map(Cow::Owned)
            .map_err(|_| Kind::BadRequest.into()),
    }
}

/// As node-postgres writes arrays (PostgreSQL manual, 8.15.6).
fn write_array(list: &[Value], output: &mut String) {
    output.push('{');
    for (index, value) in list.iter().enumerate() {
        if index > 0 {
            output.push(',');
        }
        match value {
            Value::Null => output.push_str("NULL"),
            Value::Bool(value) => output.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => output.push_str(&number.to_string()),
            Value::String(text) => write_element(text, output),
            Value::Array(inner) => write_array(inner, output),
            Value::Object(_) => write_element(&value.to_string(), output),
        }
    }
    output.push('}');
}

fn write_element(text: &str, output: &mut String) {
    output.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            output.push('\\');
        }
        output.push(character);
    }
    output.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(json: &str) -> Vec<Option<String>> {
        let body = format!("{{\"query\":\"q\",\"params\":{json}}}");
        let asked = read(body.as_bytes(), &HeaderMap::new(), true);
        match asked.unwrap_or_else(|refusal| panic!("{json}: {refusal:?}")) {
            Asked::One(query) => {
                let own = |one: Parameter<'_>| one.map(Cow::into_owned);
                query.parameters.into_iter().map(own).collect()
            }
            Asked::Batch(..) => panic!("a batch"),
        }
    }

    #[test]
    fn values_become_text() {
        let texts = parameters(
            "[null, \"a\\\"b\", \"plain\", 12345678901234567890, 1.50, true, {\"a\": 1}, \
             [1, null, [\"x\\\"y\"], {\"b\":2}]]",
        );
        let expected = [
            None,
            Some("a\"b"),
            Some("plain"),
            Some("12345678901234567890"),
            Some("1.50"),
            Some("true"),
            Some("{\"a\": 1}"),
            Some("{1,NULL,{\"x\\\"y\"},\"{\\\"b\\\":2}\"}"),
        ];
        let expected: Vec<Option<String>> =
            expected.iter().map(|one| one.map(str::to_owned)).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn levels_are_names() {
        assert_eq!(level("RepeatableRead").ok(), Some("REPEATABLE READ"));
        assert_eq!(level("read committed").ok(), Some("READ COMMITTED"));
        assert!(level("serializable; drop").is_err());
        let begin = Begin {
            isolation: Some("SERIALIZABLE"),
            read_only: true,
            deferrable: true,
        };
        assert_eq!(
            begin.sql(),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
        );
    }
}
