//! One log line, built by hand: JSON or text. Every value is escaped, so that
//! nothing a client sends can end a line or begin another.

use std::time::{Duration, SystemTime};

use crate::model::rfc3339;

/// Bytes of one value; the rest is cut off. A path or an error chain longer
/// than this tells nobody more.
const VALUE_BYTES: usize = 4096;

/// Bytes of one line; fields that would begin beyond it are left out.
const LINE_BYTES: usize = 16 * 1024;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    Text,
    Json,
}

/// A line being written.
#[derive(Debug)]
pub(super) struct Line {
    bytes: Vec<u8>,
    format: LineFormat,
}

impl Line {
    /// Time and level, in this order.
    pub(super) fn begin(format: LineFormat, now: SystemTime, level: tracing::Level) -> Self {
        let mut bytes = Vec::with_capacity(512);
        match format {
            LineFormat::Json => {
                bytes.extend_from_slice(b"{\"timestamp\":\"");
                bytes.extend_from_slice(&rfc3339(now));
                bytes.extend_from_slice(b"\",\"level\":\"");
                bytes.extend_from_slice(level.as_str().as_bytes());
                bytes.push(b'"');
            }
            LineFormat::Text => {
                bytes.extend_from_slice(&rfc3339(now));
                bytes.push(b' ');
                bytes.extend_from_slice(level.as_str().as_bytes());
            }
        }
        Self { bytes, format }
    }

    /// The sentence of the line.
    pub(super) fn message(&mut self, message: &str) {
        match self.format {
            LineFormat::Json => self.text("message", message),
            LineFormat::Text => {
                self.bytes.push(b' ');
                escape(&mut self.bytes, shorten(message), Quotes::Keep);
            }
        }
    }

    /// A field. `name` is a word of the program.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !self.name(name) {
            return;
        }
        let value = shorten(value);
        let bare = self.format == LineFormat::Text
            && !value.is_empty()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='));
        if bare {
            self.bytes.extend_from_slice(value.as_bytes());
        } else {
            self.bytes.push(b'"');
            escape(&mut self.bytes, value, Quotes::Escape);
            self.bytes.push(b'"');
        }
    }

    /// A field that is left out when empty.
    pub(super) fn text_if_any(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(super) fn number(&mut self, name: &str, value: impl itoa::Integer) {
        if self.name(name) {
            let mut buffer = itoa::Buffer::new();
            self.bytes
                .extend_from_slice(buffer.format(value).as_bytes());
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        if self.name(name) {
            let word: &[u8] = if value { b"true" } else { b"false" };
            self.bytes.extend_from_slice(word);
        }
    }

    /// A number that is no integer; JSON has no infinities.
    pub(super) fn float(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.raw(name, &value.to_string());
        } else {
            self.text(name, &value.to_string());
        }
    }

    /// Milliseconds with three decimals: `12.345`.
    pub(super) fn milliseconds(&mut self, name: &str, value: Duration) {
        if !self.name(name) {
            return;
        }
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let mut buffer = itoa::Buffer::new();
        self.bytes
            .extend_from_slice(buffer.format(micros / 1000).as_bytes());
        let rest = micros % 1000;
        let digit = |value: u64| b'0' + (value % 10) as u8;
        self.bytes
            .extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    /// The line with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.format == LineFormat::Json {
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
        self.bytes
    }

    fn raw(&mut self, name: &str, value: &str) {
        if self.name(name) {
            self.bytes.extend_from_slice(value.as_bytes());
        }
    }

    /// Begins a field; `false` when the line is full.
    fn name(&mut self, name: &str) -> bool {
        if self.bytes.len() > LINE_BYTES {
            return false;
        }
        match self.format {
            LineFormat::Json => {
                self.bytes.extend_from_slice(b",\"");
                escape(&mut self.bytes, name, Quotes::Escape);
                self.bytes.extend_from_slice(b"\":");
            }
            LineFormat::Text => {
                self.bytes.push(b' ');
                escape(&mut self.bytes, name, Quotes::Keep);
                self.bytes.push(b'=');
            }
        }
        true
    }
}

/// At most [`VALUE_BYTES`] bytes of a text, whole characters.
fn shorten(value: &str) -> &str {
    let end = (0..=VALUE_BYTES.min(value.len()))
        .rev()
        .find(|end| value.is_char_boundary(*end));
    value.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Escape,
    Keep,
}

/// JSON string escapes (RFC 8259 §7) for quotes, backslashes and everything a
/// terminal or a line reader could take for a command: C0 and C1 controls, DEL,
/// line and paragraph separators, and the bidirectional overrides.
fn escape(bytes: &mut Vec<u8>, text: &str, quotes: Quotes) {
    for character in text.chars() {
        match character {
            '"' | '\\' if quotes == Quotes::Escape => {
                bytes.push(b'\\');
                bytes.push(character as u8);
            }
            '\n' => bytes.extend_from_slice(b"\\n"),
            '\r' => bytes.extend_from_slice(b"\\r"),
            '\t' => bytes.extend_from_slice(b"\\t"),
            ' '..='~' => bytes.push(character as u8),
            _ if is_unsafe(character) => {
                let code = u32::from(character);
                bytes.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    let digit = char::from_digit((code >> shift) & 0xf, 16).unwrap_or('0');
                    bytes.push(digit as u8);
                }
            }
            _ => {
                let mut buffer = [0; 4];
                bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
}

/// All of them lie in the basic plane, so four digits are enough.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn line(format: LineFormat, value: &str) -> String {
        let mut line = Line::begin(format, UNIX_EPOCH, tracing::Level::INFO);
        line.message("done");
        line.text("path", value);
        line.number("status", 200_u16);
        line.milliseconds("total_ms", Duration::from_micros(12_045));
        line.flag("reused", true);
        line.float("rate", 0.5);
        String::from_utf8(line.finish()).expect("text")
    }

    #[test]
    fn both_formats() {
        assert_eq!(
            line(LineFormat::Json, "/a\"b"),
            "{\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"level\":\"INFO\",\"message\":\"done\",\
             \"path\":\"/a\\\"b\",\"status\":200,\"total_ms\":12.045,\"reused\":true,\"rate\":0.5}\n"
        );
        assert_eq!(
            line(LineFormat::Text, "/a b"),
            "1970-01-01T00:00:00.000Z INFO done path=\"/a b\" status=200 total_ms=12.045 \
             reused=true rate=0.5\n"
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let value = "ä".repeat(VALUE_BYTES);
        let text = line(LineFormat::Json, &value);
        let json: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(json["path"].as_str().map(str::len), Some(VALUE_BYTES));
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line(value in "\\PC*|[\\x00-\\x1f\\x7f-\\x9f\"\\\\=]{0,20}|.*") {
            for format in [LineFormat::Json, LineFormat::Text] {
                let text = line(format, &value);
                prop_assert_eq!(text.matches('\n').count(), 1);
                prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
            }
            let text = line(LineFormat::Json, &value);
            let json: serde_json::Value = serde_json::from_str(&text).expect("json");
            prop_assert_eq!(json["path"].as_str(), Some(shorten(&value)));
        }
    }
}
