//! Values in text format, and what they are in JSON.

use std::borrow::Cow;

use tokio_postgres::types::{Kind, Type};

/// How the text of a column becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonForm {
    /// As a string.
    Text,
    Boolean,
    /// int2, int4, oid: fits a double exactly.
    Integer,
    /// float4, float8: NaN and the infinities are strings.
    Float,
    /// json, jsonb: is JSON already.
    Json,
    /// Elements of this type, with `,` between them.
    Array(ElementForm),
}

/// The form of an array's elements; arrays of arrays are arrays of more
/// dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementForm {
    Text,
    Boolean,
    Integer,
    Float,
    Json,
}

impl JsonForm {
    /// The form of a type by its object identifier; types that are not built in
    /// are text.
    pub fn of(oid: u32) -> Self {
        match scalar(oid) {
            Some(form) => form.into(),
            None => match Type::from_oid(oid).as_ref().map(Type::kind) {
                // Elements of boxes are separated by `;`.
                Some(Kind::Array(element)) if *element != Type::BOX => {
                    Self::Array(scalar(element.oid()).unwrap_or(ElementForm::Text))
                }
                _ => Self::Text,
            },
        }
    }

    /// Appends the JSON of a value.
    pub fn write(self, text: &str, output: &mut Vec<u8>) {
        match self {
            Self::Text => write_string(text, output),
            Self::Boolean => ElementForm::Boolean.write(text, output),
            Self::Integer => ElementForm::Integer.write(text, output),
            Self::Float => ElementForm::Float.write(text, output),
            Self::Json => ElementForm::Json.write(text, output),
            Self::Array(element) => {
                let before = output.len();
                if write_array(text, element, output).is_none() {
                    // Not the text of an array after all.
                    output.truncate(before);
                    write_string(text, output);
                }
            }
        }
    }
}

impl From<ElementForm> for JsonForm {
    fn from(form: ElementForm) -> Self {
        match form {
            ElementForm::Text => Self::Text,
            ElementForm::Boolean => Self::Boolean,
            ElementForm::Integer => Self::Integer,
            ElementForm::Float => Self::Float,
            ElementForm::Json => Self::Json,
        }
    }
}

impl ElementForm {
    fn write(self, text: &str, output: &mut Vec<u8>) {
        match self {
            Self::Boolean if text == "t" => output.extend_from_slice(b"true"),
            Self::Boolean if text == "f" => output.extend_from_slice(b"false"),
            Self::Integer if is_json_number(text) => output.extend_from_slice(text.as_bytes()),
            Self::Float if is_json_number(text) => output.extend_from_slice(text.as_bytes()),
            Self::Json => output.extend_from_slice(text.as_bytes()),
            Self::Text | Self::Boolean | Self::Integer | Self::Float => {
                write_string(text, output);
            }
        }
    }
}

/// Types whose values are more than strings in JSON. int8 and numeric do not fit
/// a double.
fn scalar(oid: u32) -> Option<ElementForm> {
    const OID: u32 = 26;
    match oid {
        16 => Some(ElementForm::Boolean),
        21 | 23 | OID => Some(ElementForm::Integer),
        700 | 701 => Some(ElementForm::Float),
        114 | 3802 => Some(ElementForm::Json),
        20 | 25 | 1042 | 1043 | 1082 | 1114 | 1184 | 1700 | 2950 => Some(ElementForm::Text),
        _ => None,
    }
}

/// Digits with a sign, point or exponent, as PostgreSQL writes numbers; NaN and
/// Infinity are none.
fn is_json_number(text: &str) -> bool {
    text.ends_with(|last: char| last.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'))
}

/// Appends a JSON string (RFC 8259 §7).
pub fn write_string(text: &str, output: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    output.push(b'"');
    let mut rest = text.as_bytes();
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    while let Some(at) = rest.iter().position(special) {
        let (plain, from) = rest.split_at(at);
        output.extend_from_slice(plain);
        let Some((byte, after)) = from.split_first() else {
            break;
        };
        match byte {
            b'"' => output.extend_from_slice(b"\\\""),
            b'\\' => output.extend_from_slice(b"\\\\"),
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\t' => output.extend_from_slice(b"\\t"),
            other => {
                output.extend_from_slice(b"\\u00");
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                output.push(digit(other >> 4));
                output.push(digit(other & 15));
            }
        }
        rest = after;
    }
    output.extend_from_slice(rest);
    output.push(b'"');
}

/// The text of an array (PostgreSQL manual, 8.15.6) as nested JSON arrays;
/// `None` when it is none.
fn write_array(text: &str, element: ElementForm, output: &mut Vec<u8>) -> Option<()> {
    // Bounds that do not begin at 1: `[0:2]={…}`.
    let text = match text.strip_prefix('[') {
        Some(_) => text.split_once('=')?.1,
        None => text,
    };
    let mut rest = text;
    let mut depth = 0_u32;
    loop {
        if let Some(inside) = rest.strip_prefix('{') {
            output.push(b'[');
            depth += 1;
            rest = inside;
            if let Some(after) = rest.strip_prefix('}') {
                output.push(b']');
                depth -= 1;
                rest = after;
            } else {
                continue;
            }
        } else {
            let (value, after) = array_element(rest)?;
            match value {
                Some(value) => element.write(&value, output),
                None => output.extend_from_slice(b"null"),
            }
            rest = after;
        }
        while let Some(after) = rest.strip_prefix('}') {
            output.push(b']');
            depth = depth.checked_sub(1)?;
            rest = after;
        }
        if depth == 0 {
            return rest.is_empty().then_some(());
        }
        rest = rest.strip_prefix(',')?;
        output.push(b',');
    }
}

/// One element and what follows it; `None` inside = NULL.
fn array_element(text: &str) -> Option<(Option<Cow<'_, str>>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '}'])?;
        let (value, rest) = text.split_at(end);
        let value = (value != "NULL").then_some(Cow::Borrowed(value));
        return Some((value, rest));
    };
    let end = quoted.find(['"', '\\'])?;
    let (plain, rest) = quoted.split_at(end);
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((Some(Cow::Borrowed(plain)), rest));
    }
    let mut value = plain.to_owned();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((Some(Cow::Owned(value)), rest.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(oid: u32, text: &str) -> String {
        let mut output = Vec::new();
        JsonForm::of(oid).write(text, &mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn scalars() {
        for (oid, text, expected) in [
            (16, "t", "true"),
            (16, "f", "false"),
            (23, "-7", "-7"),
            (20, "9007199254740993", "\"9007199254740993\""),
            (1700, "1.10", "\"1.10\""),
            (701, "1e+20", "1e+20"),
            (701, "-0.5", "-0.5"),
            (701, "NaN", "\"NaN\""),
            (701, "-Infinity", "\"-Infinity\""),
            (114, "{\"a\": [1]}", "{\"a\": [1]}"),
            (25, "a\"\\\n\u{1}ä", "\"a\\\"\\\\\\n\\u0001ä\""),
            (999_999, "{x}", "\"{x}\""),
        ] {
            assert_eq!(json(oid, text), expected);
        }
    }

    #[test]
    fn arrays_nest() {
        for (oid, text, expected) in [
            (1007, "{}", "[]"),
            (1007, "{1,NULL,-3}", "[1,null,-3]"),
            (1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (1007, "[0:1]={5,6}", "[5,6]"),
            (
                1009,
                "{a,\"b,}\",\"NULL\",\"q\\\"\\\\\",NULL}",
                "[\"a\",\"b,}\",\"NULL\",\"q\\\"\\\\\",null]",
            ),
            (1000, "{t,f}", "[true,false]"),
            (1022, "{1.5,NaN}", "[1.5,\"NaN\"]"),
            (199, "{\"{\\\"a\\\": 1}\"}", "[{\"a\": 1}]"),
            (1016, "{1}", "[\"1\"]"),
            (1007, "{1", "\"{1\""),
            (1007, "{1}}", "\"{1}}\""),
        ] {
            assert_eq!(json(oid, text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_json(text in any::<String>(), oid in proptest::sample::select(vec![25_u32, 1009, 1007, 16, 23, 701])) {
            let written = json(oid, &text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok() || oid == 23 || oid == 701 || oid == 1007, "{written}");
        }

        #[test]
        fn strings_come_back(text in any::<String>()) {
            let back: String = serde_json::from_str(&json(25, &text)).expect("json");
            prop_assert_eq!(back, text);
        }
    }
}
