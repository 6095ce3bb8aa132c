//! The fields of an answer from upstream on their way to the client.
//!
//! Between two HTTP/1 connections they stay what they are, bytes: making a map
//! of them and writing that again takes as long as all the rest of an answer.

use super::FramingError;
use super::fields::{Spans, for_each_field};
use crate::model::{FieldLines, Marks};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Body;

/// Fields as they came, in a head that was parsed, and those that are ours.
#[derive(Debug)]
pub struct Relayed {
    head: Bytes,
    spans: Spans,
    set: FieldLines,
}

/// A body whose answer's fields may lie beside those of its response.
pub trait Answer: Body {
    /// Takes them; a field of the response has precedence over one of them.
    fn take_relayed(&mut self) -> Option<Box<Relayed>>;
}

impl Relayed {
    /// All fields of `head`, which shares memory with nothing large: values of
    /// an HTTP/2 answer stay in its connection's table for long.
    pub fn new(head: Bytes, spans: Spans) -> Box<Self> {
        Box::new(Self {
            head,
            spans,
            set: FieldLines::default(),
        })
    }

    /// Keeps the fields that came which `keeps` wants, by name and value.
    ///
    /// # Errors
    /// Those of `keeps`, with some fields left out.
    pub fn retain<E>(
        &mut self,
        mut keeps: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut outcome = Ok(());
        let head = &self.head;
        self.spans.retain(|span| {
            let (name, value) = span.of(head);
            match keeps(name, value) {
                Ok(keeps) => keeps,
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        outcome
    }

    /// The fields of ours; those that came with a name among them count no more.
    pub fn ours(&mut self) -> &mut FieldLines {
        &mut self.set
    }

    /// Memory for the fields of ours, before there are any.
    pub fn lend(&mut self, memory: Vec<u8>) {
        debug_assert!(self.set.is_empty(), "there are some already");
        self.set = FieldLines::reusing(memory);
    }

    /// The values that came with this name.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.came()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    fn came(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| span.of(&self.head))
    }

    /// Every field to be sent but those that `headers` has too: name, value,
    /// and the line of both where there is one.
    pub(super) fn for_each(
        &self,
        headers: &HeaderMap,
        mut take: impl FnMut(&[u8], &[u8], Option<&[u8]>),
    ) {
        let has = |name: &[u8]| {
            let is = |one: &HeaderName| one.as_str().as_bytes().eq_ignore_ascii_case(name);
            headers.keys().any(is)
        };
        for (name, value) in self.set.iter() {
            if !has(name) {
                take(name, value, None);
            }
        }
        self.for_each_that_came(|name, value, line| {
            if !has(name) {
                take(name, value, line);
            }
        });
    }

    /// The lines of ours, unless one may have one of these names.
    pub(super) fn lines_without(&self, names: Marks) -> Option<&[u8]> {
        (!self.set.may_have(names)).then(|| self.set.as_bytes())
    }

    /// Every field that came but those that are ours.
    pub(super) fn for_each_that_came(&self, mut take: impl FnMut(&[u8], &[u8], Option<&[u8]>)) {
        for span in &self.spans {
            let (name, value) = span.of(&self.head);
            if !self.set.has_spelled(name) {
                take(name, value, span.line(&self.head));
            }
        }
    }

    /// As a map.
    pub fn into_map(self) -> HeaderMap {
        // With room for more than six the allocator's short way is lost.
        let room = self.spans.len() + self.set.iter().count();
        let mut map = HeaderMap::with_capacity(room);
        let took = for_each_field(&self.head, &self.spans, |name, value| {
            map.append(name, value);
            Ok::<_, FramingError>(())
        });
        debug_assert!(took.is_ok(), "they were parsed");
        self.set.insert_into(&mut map);
        map
    }

    /// Adds to `headers` what they do not have.
    pub(in crate::net) fn join(self, headers: &mut HeaderMap) {
        let mut map = self.into_map();
        let ours = std::mem::take(headers);
        for name in ours.keys() {
            map.remove(name);
        }
        map.extend(ours);
        *headers = map;
    }
}
