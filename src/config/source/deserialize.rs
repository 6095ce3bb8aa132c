//! A serde deserializer over nodes: errors know key and place, numbers may be
//! quoted, `x-…` keys are skipped, unknown keys are all collected.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::fault::{Fault, Word};
use super::node::{Entry, Node, Provenance, Scalar, Value, join};
use crate::config::problem::Problem;
use crate::config::suggest;

/// Marks a newtype that wants to see the shape of its node first: a text, a
/// truth value, a unit (a reference whose value is not known), or a list or
/// mapping (as a newtype).
pub(crate) const BY_SHAPE: &str = "outrigger::by_shape";

/// Reads a tree into a type.
///
/// # Errors
/// The first value that does not fit, and every unknown key met on the way.
pub(crate) fn deserialize<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Vec<Problem>> {
    let unknown = RefCell::new(Vec::new());
    let read = T::deserialize(&NodeDeserializer {
        node,
        key: String::new(),
        unknown: &unknown,
    });
    let mut faults = unknown.into_inner();
    match read {
        Ok(value) if faults.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(fault) => faults.push(fault),
    }
    Err(faults
        .into_iter()
        .map(|fault| {
            let place = fault.place.unwrap_or_else(|| node.place.clone());
            let mut problem = Problem::error(place.origin(&fault.key), fault.message);
            problem.hint = fault.hint;
            problem
        })
        .collect())
}

struct NodeDeserializer<'de, 'c> {
    node: &'de Node,
    key: String,
    unknown: &'c RefCell<Vec<Fault>>,
}

impl<'de> NodeDeserializer<'de, '_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            key: self.key.clone(),
            place: Some(self.node.place.clone()),
            message: message.into(),
            hint: None,
        }
    }

    /// Places an error that a visitor made without knowing where it was.
    #[cold]
    fn locate(&self, mut fault: Fault) -> Fault {
        if fault.place.is_none() {
            fault.place = Some(self.node.place.clone());
            fault.key.clone_from(&self.key);
        }
        fault
    }

    #[cold]
    fn expected(&self, what: &str) -> Fault {
        let found = match &self.node.value {
            Value::Null => {
                let mut fault = self.fault("has no value");
                fault.hint = Some("give it one, or take the key out".to_owned());
                return fault;
            }
            Value::Scalar(_) => return self.fault(format!("expected {what}")),
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        self.fault(format!("expected {what}, found {found}"))
    }

    fn scalar(&self, what: &str) -> Result<&'de Scalar, Fault> {
        match &self.node.value {
            Value::Scalar(scalar) => Ok(scalar),
            _ => Err(self.expected(what)),
        }
    }

    fn number<T: std::str::FromStr + Default>(&self, what: &str) -> Result<T, Fault> {
        let scalar = self.scalar(what)?;
        if scalar.provenance == Provenance::Unknown {
            return Ok(T::default());
        }
        scalar.text.trim().parse().map_err(|_| self.expected(what))
    }

    fn entries<V: Visitor<'de>>(
        &self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Fault> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a mapping"));
        };
        let access = Entries {
            parent: self,
            entries: entries.iter(),
            value: None,
            fields,
        };
        visitor
            .visit_map(access)
            .map_err(|fault| self.locate(fault))
    }
}

/// A number type, what to call it, and the visitor's method.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $what:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number: $type = self.number($what)?;
            visitor.$visit(number).map_err(|fault| self.locate(fault))
        })*
    };
}

impl<'de> de::Deserializer<'de> for &NodeDeserializer<'de, '_> {
    type Error = Fault;

    numbers! {
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 1 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => Err(self.expected("a value")),
            Value::Scalar(Scalar {
                provenance: Provenance::Unknown,
                ..
            }) => visitor.visit_unit(),
            Value::Scalar(Scalar { text, plain, .. }) => match (plain, text.as_str()) {
                (true, "true") => visitor.visit_bool(true),
                (true, "false") => visitor.visit_bool(false),
                _ => visitor.visit_borrowed_str(text),
            }
            .map_err(|fault| self.locate(fault)),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.entries(visitor, None),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let scalar = self.scalar("true or false")?;
        match scalar.text.as_str() {
            "true" | "on" => visitor.visit_bool(true),
            "false" | "off" => visitor.visit_bool(false),
            _ if scalar.provenance == Provenance::Unknown => visitor.visit_bool(false),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let scalar = self.scalar("a text")?;
        visitor
            .visit_borrowed_str(&scalar.text)
            .map_err(|fault| self.locate(fault))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != BY_SHAPE {
            return visitor.visit_newtype_struct(self);
        }
        match &self.node.value {
            Value::Map(_) | Value::List(_) => visitor.visit_newtype_struct(self),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::List(items) = &self.node.value else {
            return Err(self.expected("a list"));
        };
        let access = Items {
            parent: self,
            items: items.iter().enumerate(),
        };
        visitor
            .visit_seq(access)
            .map_err(|fault| self.locate(fault))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.entries(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.entries(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let scalar = self.scalar("a word")?;
        let mut word = scalar.text.as_str();
        if word == "false" && variants.contains(&"off") {
            word = "off";
        }
        if scalar.provenance == Provenance::Unknown {
            word = variants.first().copied().unwrap_or_default();
        }
        let Some(word) = variants.iter().find(|variant| **variant == word) else {
            let list = variants.join(", ");
            let mut fault = match scalar.provenance {
                Provenance::Written => {
                    let shown: String = word.chars().take(60).collect();
                    self.fault(format!("`{shown}` is not one of {list}"))
                }
                _ => self.fault(format!("the reference's value is not one of {list}")),
            };
            if scalar.provenance == Provenance::Written {
                fault.hint = suggest::closest(word, variants.iter().copied())
                    .map(|found| format!("did you mean `{found}`?"));
            }
            return Err(fault);
        };
        visitor.visit_enum(Word(word))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier
    }
}

/// The entries of a mapping; with known fields, others are set aside.
struct Entries<'de, 'p> {
    parent: &'p NodeDeserializer<'de, 'p>,
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
    fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        for entry in self.entries.by_ref() {
            if let Some(fields) = self.fields
                && !fields.contains(&entry.key.as_str())
            {
                if entry.key != "$schema" && !entry.key.starts_with("x-") {
                    let fault = unknown_key(self.parent, entry, fields);
                    self.parent.unknown.borrow_mut().push(fault);
                }
                continue;
            }
            self.value = Some(entry);
            return seed
                .deserialize(de::value::BorrowedStrDeserializer::new(&entry.key))
                .map(Some);
        }
        Ok(None)
    }

    /// Once for each type: inlined, it would be there again for each key.
    #[inline(never)]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let child = self.child()?;
        seed.deserialize(&child)
            .map_err(|fault| child.locate(fault))
    }
}

impl<'de, 'p> Entries<'de, 'p> {
    /// Of the key that was given last.
    #[inline(never)]
    fn child(&mut self) -> Result<NodeDeserializer<'de, 'p>, Fault> {
        let entry = self
            .value
            .take()
            .ok_or_else(|| self.parent.fault("has no value"))?;
        Ok(NodeDeserializer {
            node: &entry.node,
            key: join(&self.parent.key, &entry.key),
            unknown: self.parent.unknown,
        })
    }
}

#[cold]
fn unknown_key(
    parent: &NodeDeserializer<'_, '_>,
    entry: &Entry,
    fields: &'static [&'static str],
) -> Fault {
    let shown: String = entry.key.chars().take(60).collect();
    Fault {
        key: parent.key.clone(),
        place: Some(entry.node.place.clone()),
        message: format!("unknown key `{shown}`"),
        hint: suggest::hint(&entry.key, fields.iter().copied()),
    }
}

struct Items<'de, 'p> {
    parent: &'p NodeDeserializer<'de, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let child = NodeDeserializer {
            node,
            key: format!("{}[{index}]", self.parent.key),
            unknown: self.parent.unknown,
        };
        seed.deserialize(&child)
            .map(Some)
            .map_err(|fault| child.locate(fault))
    }
}
