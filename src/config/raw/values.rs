//! Values that several keys share: durations, sizes, secrets, short forms.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::config::source::BY_SHAPE;
use crate::secret::Secret;

/// `300ms`, `5s`, `30m`, `24h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawDuration(pub(crate) Duration);

/// Longest duration accepted, so that sums of them never overflow a clock.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

const DURATION_FORM: &str = "a duration such as 300ms, 5s, 30m or 24h";
const SIZE_FORM: &str = "a size such as 512, 64KiB or 10MiB";

/// Parses a duration: a whole number and a unit, nothing else.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(factor)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// Parses a size in bytes: a whole number and perhaps a binary unit.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// Bytes; `None` = `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawSize(pub(crate) Option<u64>);

/// A text that is never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawSecret(pub(crate) Secret);

/// One text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OneOrMany(pub(crate) Vec<String>);

/// A key with short forms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Short<T> {
    /// `false` or `off`.
    Off,
    /// `true` or `on`.
    On,
    /// A text or number; empty for a reference whose value is not known.
    Text(String),
    Full(T),
}

struct TextVisitor<T> {
    form: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T: Default> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.form)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("expected {}", self.form)))
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(
            BY_SHAPE,
            TextVisitor {
                form: DURATION_FORM,
                parse: |text| parse_duration(text).map(Self),
            },
        )
    }
}

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(
            BY_SHAPE,
            TextVisitor {
                form: SIZE_FORM,
                parse: |text| {
                    if text == "unlimited" {
                        return Some(Self(None));
                    }
                    parse_size(text).map(|bytes| Self(Some(bytes)))
                },
            },
        )
    }
}

impl<'de> Deserialize<'de> for RawSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

struct ManyVisitor;

impl<'de> Visitor<'de> for ManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![value.to_string()]))
    }

    fn visit_unit<E: Error>(self) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![String::new()]))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<OneOrMany, D::Error> {
        Vec::deserialize(deserializer).map(OneOrMany)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(BY_SHAPE, ManyVisitor)
    }
}

struct ShortVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ShortVisitor<T> {
    type Value = Short<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a mapping")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Short<T>, E> {
        Ok(if value { Short::On } else { Short::Off })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Short<T>, E> {
        Ok(match text {
            "off" | "false" => Short::Off,
            "on" | "true" => Short::On,
            _ => Short::Text(text.to_owned()),
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Short<T>, E> {
        Ok(Short::Text(String::new()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Short<T>, D::Error> {
        T::deserialize(deserializer).map(Short::Full)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(BY_SHAPE, ShortVisitor(PhantomData))
    }
}

macro_rules! inline_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

inline_schema!(RawDuration, "Duration", {
    "type": ["string", "integer"],
    "pattern": "^(0|[0-9]+(ms|s|m|h|d))$|\\$\\{",
    "maximum": 0
});
inline_schema!(RawSize, "Size", {
    "type": ["string", "integer"],
    "pattern": "^([0-9]+(B|KiB|MiB|GiB)?|unlimited)$|\\$\\{",
    "minimum": 0
});
inline_schema!(RawSecret, "Secret", { "type": ["string", "integer", "number"] });
inline_schema!(OneOrMany, "OneOrMany", {
    "anyOf": [
        { "type": ["string", "integer", "number", "boolean"] },
        { "type": "array", "items": { "type": ["string", "integer", "number", "boolean"] } }
    ]
});

impl<T: JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Short{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [{ "type": ["string", "integer", "boolean"] }, full]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        for (text, millis) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("300ms", Some(300)),
            ("5s", Some(5_000)),
            ("30m", Some(1_800_000)),
            ("24h", Some(86_400_000)),
            ("7d", Some(604_800_000)),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("1h30m", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("", None),
        ] {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        }
        for (text, bytes) in [
            ("512", Some(512)),
            ("64KiB", Some(65_536)),
            ("10MiB", Some(10_485_760)),
            ("1GiB", Some(1 << 30)),
            ("64KB", None),
            ("64 KiB", None),
            ("18446744073709551615GiB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
