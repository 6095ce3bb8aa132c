//! A tree of nodes, each with the place it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::model::Origin;

/// A position in a file, both 1-based, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    File { file: Arc<Path>, mark: Mark },
    Environment(Arc<str>),
    Flag(&'static str),
}

impl Place {
    /// As the origin of a problem with `key`.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        match self {
            Self::File { file, mark } => Origin {
                file: file.to_path_buf(),
                line: mark.line,
                column: mark.column,
                key: key.to_owned(),
            },
            Self::Environment(name) => Origin {
                key: name.to_string(),
                ..Origin::default()
            },
            Self::Flag(name) => Origin {
                key: (*name).to_owned(),
                ..Origin::default()
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, mark } => {
                write!(
                    formatter,
                    "{}:{}:{}",
                    file.display(),
                    mark.line,
                    mark.column
                )
            }
            Self::Environment(name) => write!(formatter, "env {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// A value with its place; of a mapping's value the place is that of its key.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Clone)]
pub(crate) enum Value {
    /// A key without a value.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) node: Node,
}

/// Text as written: whether it is a number is for the reader of it to say.
#[derive(Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Unquoted.
    pub(crate) plain: bool,
    pub(crate) provenance: Provenance,
}

/// Whether a scalar's text may be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// Stands in the file as it is.
    Written,
    /// Holds a resolved reference: never printed.
    Resolved,
    /// A reference that counts as present without being read; the text is empty.
    Unknown,
}

impl Scalar {
    /// Text nobody quoted.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            plain: true,
            provenance: Provenance::Written,
        }
    }
}

impl Node {
    /// A scalar at a place.
    pub(crate) fn scalar(place: Place, text: impl Into<String>) -> Self {
        Self {
            place,
            value: Value::Scalar(Scalar::plain(text)),
        }
    }

    /// An empty mapping at a place.
    pub(crate) fn map(place: Place) -> Self {
        Self {
            place,
            value: Value::Map(Vec::new()),
        }
    }

    /// The value of a key of this mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text, if this is a scalar whose text is known.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if scalar.provenance != Provenance::Unknown => Some(&scalar.text),
            _ => None,
        }
    }

    /// Sets the value at a path of keys, making mappings on the way and
    /// replacing what is no mapping.
    pub(crate) fn set(&mut self, path: &[&str], node: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else {
            return;
        };
        let index = match entries.iter().position(|entry| entry.key == *first) {
            Some(index) => index,
            None => {
                entries.push(Entry {
                    key: (*first).to_owned(),
                    node: Node::map(node.place.clone()),
                });
                entries.len() - 1
            }
        };
        if let Some(entry) = entries.get_mut(index) {
            if rest.is_empty() {
                entry.node = node;
            } else {
                entry.node.set(rest, node);
            }
        }
    }
}

/// Where every key of a tree stands: what is left of a tree once it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    root: Place,
    by_key: BTreeMap<String, (Place, Provenance)>,
}

impl Places {
    /// The places of a tree.
    pub(crate) fn of(node: &Node) -> Self {
        let mut by_key = BTreeMap::new();
        collect(node, String::new(), &mut by_key);
        Self {
            root: node.place.clone(),
            by_key,
        }
    }

    /// The place of exactly this key.
    pub(crate) fn exact(&self, key: &str) -> Option<&Place> {
        self.by_key.get(key).map(|(place, _)| place)
    }

    /// The place of the key or of the nearest key above it.
    pub(crate) fn nearest(&self, key: &str) -> &Place {
        let mut key = key;
        loop {
            if let Some((place, _)) = self.by_key.get(key) {
                return place;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = key.get(..end).unwrap_or_default(),
                None => return &self.root,
            }
        }
    }

    /// Whether the value at the key or below holds a resolved reference.
    pub(crate) fn is_resolved(&self, key: &str) -> bool {
        self.by_key
            .range(key.to_owned()..)
            .take_while(|(other, _)| other.starts_with(key))
            .filter(|(other, _)| {
                let rest = other.get(key.len()..).unwrap_or_default();
                rest.is_empty() || rest.starts_with(['.', '['])
            })
            .any(|(_, (_, provenance))| *provenance != Provenance::Written)
    }

    /// Whether the value at the key is a reference that nobody read.
    pub(crate) fn is_unknown(&self, key: &str) -> bool {
        matches!(self.by_key.get(key), Some((_, Provenance::Unknown)))
    }

    /// Whether the key is written as a mapping with keys of its own.
    pub(crate) fn has_below(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.by_key
            .range(prefix.clone()..)
            .next()
            .is_some_and(|(other, _)| other.starts_with(&prefix))
    }

    /// Whether the key is written anywhere.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }
}

fn collect(node: &Node, key: String, into: &mut BTreeMap<String, (Place, Provenance)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                collect(&entry.node, join(&key, &entry.key), into);
            }
        }
        Value::List(nodes) => {
            for (index, item) in nodes.iter().enumerate() {
                collect(item, format!("{key}[{index}]"), into);
            }
        }
        Value::Null | Value::Scalar(_) => {}
    }
    let provenance = match &node.value {
        Value::Scalar(scalar) => scalar.provenance,
        _ => Provenance::Written,
    };
    if !key.is_empty() {
        into.insert(key, (node.place.clone(), provenance));
    }
}

/// `parent.key`, or `key` at the top.
pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}
