//! The fields of an answer from upstream on their way to the client.
//!
//! Between two HTTP/1 connections they stay what they are, bytes: making a map
//! of them and writing that again takes as long as all the rest of an answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use smallvec::SmallVec;

use super::FramingError;
use super::fields::{Spans, for_each_field};

/// Fields as they came, in a head that was parsed, and those that are ours.
#[derive(Debug)]
pub struct Relayed {
    head: Bytes,
    spans: Spans,
    set: SmallVec<[(HeaderName, HeaderValue); 4]>,
}

/// A body whose answer's fields may lie beside those of its response.
pub trait Answer: Body {
    /// Takes them; a field of the response has precedence over one of them.
    fn take_relayed(&mut self) -> Option<Box<Relayed>>;
}

impl Relayed {
    /// All fields of `head`.
    pub fn new(head: Bytes, spans: Spans) -> Box<Self> {
        Box::new(Self {
            head,
            spans,
            set: SmallVec::new(),
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

    /// Sets a field of ours; those that came with this name count no more.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match self.set.iter_mut().find(|(other, _)| *other == name) {
            Some((_, other)) => *other = value,
            None => self.set.push((name, value)),
        }
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
        let is = |one: &HeaderName, name: &[u8]| one.as_str().as_bytes().eq_ignore_ascii_case(name);
        for (name, value) in &self.set {
            if !headers.contains_key(name) {
                take(name.as_str().as_bytes(), value.as_bytes(), None);
            }
        }
        for span in &self.spans {
            let (name, value) = span.of(&self.head);
            let ours = self.set.iter().any(|(one, _)| is(one, name))
                || headers.keys().any(|one| is(one, name));
            if !ours {
                take(name, value, span.line(&self.head));
            }
        }
    }

    /// As a map.
    pub fn into_map(self) -> HeaderMap {
        // Room for one that is added on the way.
        let mut map = HeaderMap::with_capacity(self.spans.len() + self.set.len() + 1);
        let took = for_each_field(&self.head, &self.spans, |name, value| {
            map.append(name, value);
            Ok::<_, FramingError>(())
        });
        debug_assert!(took.is_ok(), "they were parsed");
        for (name, value) in self.set {
            map.insert(name, value);
        }
        map
    }

    /// Adds to `headers` what they do not have. Of the memory the head was read
    /// into nothing is held: values of an HTTP/2 answer can stay in the
    /// connection's table for long.
    pub(in crate::net) fn join(mut self, headers: &mut HeaderMap) {
        self.head = Bytes::copy_from_slice(&self.head);
        let mut map = self.into_map();
        let ours = std::mem::take(headers);
        for name in ours.keys() {
            map.remove(name);
        }
        map.extend(ours);
        *headers = map;
    }
}
