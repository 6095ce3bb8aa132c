//! The reader of YAML and JSON: bytes in, nodes out.
//!
//! One pass over the parser's events gives text as written, positions, and the
//! refusal of everything a file of ours never needs (anchors, tags, several
//! documents, duplicate keys, deep nesting) before any of it costs memory. A
//! reader that builds values would expand aliases before it could be asked.

use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::node::{Entry, Mark, Node, Place, Provenance, Scalar, Value};
use crate::config::problem::Problem;
use crate::config::tree::MAX_FILE_BYTES;

/// Deepest nesting of lists and mappings (SPEC §1.1).
const MAX_DEPTH: usize = 32;

/// Nodes of one file at most: a MiB of `[,,,,` must not become 100 MiB of nodes.
const MAX_NODES: usize = 100_000;

/// Reads a file's bytes; `shown` is its path as printed.
///
/// # Errors
/// The first thing that is wrong with the text.
pub(crate) fn read(bytes: &[u8], shown: &Arc<Path>) -> Result<Node, Box<Problem>> {
    let whole = Place::File {
        file: Arc::clone(shown),
        mark: Mark::default(),
    };
    let refuse = |message: String| Box::new(Problem::error(whole.origin(""), message));
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refuse("is larger than 1 MiB".to_owned()));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = 1 + bytes
                .get(..error.valid_up_to())
                .unwrap_or_default()
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            return Err(refuse(format!("is not UTF-8 text (line {line})")));
        }
    };
    if text.trim().is_empty() {
        let mut problem = refuse("is empty".to_owned());
        problem.hint =
            Some("write `{}` for a service that needs nothing but the defaults".to_owned());
        return Err(problem);
    }
    // Tabs between the tokens of JSON are white space there, but indentation in
    // YAML; inside JSON strings a raw tab is not allowed anyway.
    let spaced;
    let is_json = shown
        .extension()
        .is_some_and(|extension| extension == "json");
    let text = if is_json && text.contains('\t') {
        spaced = text.replace('\t', " ");
        &spaced
    } else {
        text
    };
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        file: Arc::clone(shown),
        nodes: 0,
    };
    reader.document()
}

/// The parser's events and where they are read for.
struct Reader<'input> {
    parser: Parser<'input, StrInput<'input>>,
    file: Arc<Path>,
    nodes: usize,
}

impl<'input> Reader<'input> {
    fn document(&mut self) -> Result<Node, Box<Problem>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.hinted(
                        span,
                        "a second document begins here",
                        "one file holds one service",
                    ));
                }
                Event::DocumentStart(_) => {}
                Event::StreamEnd => break,
                other => root = Some(self.node(other, span, 0)?),
            }
        }
        let place = self.place(Mark { line: 1, column: 1 });
        match root {
            Some(node) if matches!(node.value, Value::Map(_)) => Ok(Node { place, ..node }),
            Some(_) => Err(Box::new(Problem::error(
                place.origin(""),
                "holds no keys at its top level",
            ))),
            None => Err(Box::new(Problem::error(place.origin(""), "is empty"))),
        }
    }

    fn node(
        &mut self,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<Node, Box<Problem>> {
        if depth > MAX_DEPTH {
            return Err(self.refuse(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.refuse(span, format!("more than {MAX_NODES} values")));
        }
        let (anchor, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            Event::Alias(_) => (1, false),
            _ => (0, false),
        };
        if anchor != 0 {
            return Err(self.hinted(
                span,
                "anchors and aliases are not supported",
                "write the value out",
            ));
        }
        if tagged {
            return Err(self.refuse(span, "tags (`!…`) are not supported"));
        }
        let place = self.place(mark(span));
        let value = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(self.refuse(span, "unexpected end")),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Box<Problem>> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Box<Problem>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let key_node = self.node(event, span, depth + 1)?;
            let Value::Scalar(Scalar { text: key, .. }) = key_node.value else {
                return Err(self.refuse(span, "a key must be a text"));
            };
            if key == "<<" {
                return Err(self.refuse(span, "merge keys (`<<`) are not supported"));
            }
            if !seen.insert(key.clone()) {
                return Err(self.refuse(span, format!("`{}` is there twice", shorten(&key))));
            }
            let (event, value_span) = self.next()?;
            let mut node = self.node(event, value_span, depth + 1)?;
            node.place = key_node.place;
            entries.push(Entry { key, node });
        }
    }

    fn next(&mut self) -> Result<(Event<'input>, Span), Box<Problem>> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let mark = Mark {
                    line: narrow(error.marker().line()),
                    column: narrow(error.marker().col() + 1),
                };
                Err(Box::new(Problem::error(
                    self.place(mark).origin(""),
                    format!("cannot be read: {}", error.info()),
                )))
            }
            None => Err(Box::new(Problem::error(
                self.place(Mark::default()).origin(""),
                "cannot be read: it ends too early",
            ))),
        }
    }

    fn refuse(&self, span: Span, message: impl Into<String>) -> Box<Problem> {
        Box::new(Problem::error(self.place(mark(span)).origin(""), message))
    }

    fn hinted(&self, span: Span, message: &str, hint: &str) -> Box<Problem> {
        let mut problem = self.refuse(span, message);
        problem.hint = Some(hint.to_owned());
        problem
    }

    fn place(&self, mark: Mark) -> Place {
        Place::File {
            file: Arc::clone(&self.file),
            mark,
        }
    }
}

/// YAML 1.2 core: these plain words are no value.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar {
        text: text.to_owned(),
        plain,
        provenance: Provenance::Written,
    })
}

/// The parser counts columns from 0.
fn mark(span: Span) -> Mark {
    Mark {
        line: narrow(span.start.line()),
        column: narrow(span.start.col() + 1),
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A key for a message.
fn shorten(key: &str) -> String {
    key.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether two readers understood the same: keys, shapes, and texts.
    fn agrees(own: &Node, other: &serde_yaml::Value) -> bool {
        use serde_yaml::Value as Yaml;
        match (&own.value, other) {
            (Value::Null, Yaml::Null) => true,
            (Value::List(own), Yaml::Sequence(other)) => {
                own.len() == other.len() && own.iter().zip(other).all(|(a, b)| agrees(a, b))
            }
            (Value::Map(own), Yaml::Mapping(other)) => {
                own.len() == other.len()
                    && own.iter().zip(other).all(|(entry, (key, value))| {
                        // Keys are texts for us, whatever they look like.
                        key.as_str().is_none_or(|key| key == entry.key)
                            && agrees(&entry.node, value)
                    })
            }
            (Value::Scalar(own), Yaml::String(other)) => own.text == *other,
            // Numbers and truth values are read by whoever wants them.
            (Value::Scalar(own), Yaml::Bool(_) | Yaml::Number(_)) => own.plain,
            _ => false,
        }
    }

    fn assert_agreement(text: &str) -> Result<(), TestCaseError> {
        let own = read(text.as_bytes(), &Path::new("x.yaml").into());
        let other = serde_yaml::from_str::<serde_yaml::Value>(text);
        if let (Ok(own), Ok(other)) = (&own, &other) {
            prop_assert!(agrees(own, other), "{text:?}\n{other:?}");
        }
        Ok(())
    }

    #[test]
    fn examples_mean_what_another_reader_says() {
        for text in crate::config::examples::SERVICES {
            assert!(
                serde_yaml::from_str::<serde_yaml::Value>(text).is_ok(),
                "{text}"
            );
            assert_agreement(text).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(3000)
        })]

        #[test]
        fn what_both_readers_accept_means_the_same(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "a: ", "b:\n", "  c: ", "  - ", "- ", "x", "'y z'", "\"\\n\"", "1.10", "true",
                    "~", "{", "}", "[", "]", ", ", "\n", "|\n", "  text\n", ">-\n", "# no\n", "? ",
                    ": ", "d: {e: f}\n", "\\/",
                ]),
                1..14,
            ),
        ) {
            // Without a last line end readers differ about block scalars.
            assert_agreement(&(parts.concat() + "\n"))?;
        }
    }
}
