//! Header fields as the lines HTTP/1 sends.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hex;

/// Fields of ours on their way into a head, each name once at most. They are
/// written once, as bytes: a map of them would be hashed, counted, and taken
/// apart again. Names are in small letters, lines end in CRLF.
///
/// No byte gets in that could end a line: all that is taken is a name, a value,
/// digits, or text of the program itself.
#[derive(Clone, Default)]
pub struct FieldLines {
    bytes: Vec<u8>,
    /// The bits of all names; see [`mark`].
    marks: u64,
    /// Names of values that are secrets. Hardly ever any.
    sensitive: Option<Box<[HeaderName]>>,
}

impl FieldLines {
    /// Room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// No fields yet, in memory that was used before.
    pub fn reusing(mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self {
            bytes: memory,
            ..Self::default()
        }
    }

    /// The memory, to be used again.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All lines, without a blank one behind them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a field that is not there yet.
    pub fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        debug_assert!(!self.has(name), "{name} is there already");
        self.append(name.as_str().as_bytes(), value.as_bytes());
        if value.is_sensitive() {
            self.hide(std::slice::from_ref(name));
        }
    }

    /// Begins a field that is not there yet.
    #[inline]
    pub fn line(&mut self, start: LineStart) -> Line<'_> {
        debug_assert!(
            !self.has_spelled(start.name()),
            "{start:?} is there already"
        );
        self.marks |= start.mark;
        self.bytes.extend_from_slice(start.text.as_bytes());
        Line(&mut self.bytes)
    }

    /// Sets a field: in the place of one of this name, else as the last.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.put(name.as_str().as_bytes(), value.as_bytes());
        if value.is_sensitive() {
            self.hide(std::slice::from_ref(name));
        }
    }

    /// Sets every field of `others`.
    pub fn set_all(&mut self, others: &Self) {
        if self.marks & others.marks == 0 {
            self.bytes.extend_from_slice(&others.bytes);
            self.marks |= others.marks;
        } else {
            for (name, value) in others.iter() {
                self.put(name, value);
            }
        }
        if let Some(names) = &others.sensitive {
            self.hide(names);
        }
    }

    fn append(&mut self, name: &[u8], value: &[u8]) {
        self.marks |= mark(name);
        let bytes = &mut self.bytes;
        bytes.reserve(name.len() + value.len() + b": \r\n".len());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }

    /// As what is no secret.
    fn put(&mut self, name: &[u8], value: &[u8]) {
        let Some((start, end)) = self.place(name) else {
            return self.append(name, value);
        };
        self.bytes.splice(start..end, value.iter().copied());
        if let Some(names) = self.sensitive.take() {
            let is_other = |other: &HeaderName| other.as_str().as_bytes() != name;
            self.sensitive = Some(names.into_iter().filter(is_other).collect());
        }
    }

    /// The values of these names are secrets.
    fn hide(&mut self, names: &[HeaderName]) {
        let known = self.sensitive.take().unwrap_or_default();
        self.sensitive = Some(known.into_iter().chain(names.iter().cloned()).collect());
    }

    /// Whether there is a field of this name.
    #[inline]
    pub fn has(&self, name: &HeaderName) -> bool {
        self.has_spelled(name.as_str().as_bytes())
    }

    /// The same for a name in letters of any size.
    #[inline]
    pub fn has_spelled(&self, name: &[u8]) -> bool {
        // Which hardly any name gets past that is not there.
        self.marks & mark(name) != 0 && self.place(name).is_some()
    }

    /// Whether there may be a field of one of these names, told at once.
    #[inline]
    pub fn may_have(&self, names: Marks) -> bool {
        self.marks & names.0 != 0
    }

    /// The value of a field.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        let (start, end) = self.place(name.as_str().as_bytes())?;
        self.bytes.get(start..end)
    }

    /// Name and value of every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans().map(|(name, (start, end))| {
            let value = self.bytes.get(start..end).unwrap_or_default();
            (name, value)
        })
    }

    /// Sets all of them in a map.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.iter().filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name).ok()?;
            let mut value = HeaderValue::from_bytes(value).ok()?;
            let secrets = self.sensitive.as_deref().unwrap_or_default();
            value.set_sensitive(secrets.contains(&name));
            Some((name, value))
        })
    }

    /// Where the value of this name is.
    fn place(&self, name: &[u8]) -> Option<(usize, usize)> {
        if self.marks & mark(name) == 0 {
            return None;
        }
        self.spans()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn spans(&self) -> impl Iterator<Item = (&[u8], (usize, usize))> {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let rest = self.bytes.get(begin..)?;
            // Neither name nor value can hold what ends it.
            let line = rest
                .split_at_checked(rest.iter().position(|byte| *byte == b'\r')?)?
                .0;
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (start, end) = (begin + colon + 2, begin + line.len());
            begin = end + 2;
            Some((line.get(..colon)?, (start, end)))
        })
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for FieldLines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.spans().map(|(name, _)| String::from_utf8_lossy(name));
        formatter.debug_list().entries(names).finish()
    }
}

impl PartialEq for FieldLines {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.sensitive == other.sensitive
    }
}

/// The beginning of a line that is often written.
#[derive(Debug, Clone, Copy)]
pub struct LineStart {
    text: &'static str,
    mark: u64,
}

impl LineStart {
    /// Of a name in small letters, colon and space.
    pub const fn new(text: &'static str) -> Self {
        let (name, end) = text.as_bytes().split_at(text.len() - 2);
        assert!(matches!(end, b": "), "a name, colon and space");
        Self {
            text,
            mark: mark(name),
        }
    }

    fn name(self) -> &'static [u8] {
        self.text.as_bytes().strip_suffix(b": ").unwrap_or_default()
    }
}

/// Chosen so that the names that we set, and those that clients send most, have
/// marks of their own.
const SPREAD: u64 = 0x41fa_318b_2385_9dd1;

/// A bit for a name, whatever the size of its letters: of its last eight bytes.
#[inline]
const fn mark(name: &[u8]) -> u64 {
    // Makes letters small, and no two names the same that may stand in a head.
    const SMALL: u64 = 0x2020_2020_2020_2020;
    let end = match (name.last_chunk::<8>(), name) {
        (Some(end), _) => u64::from_le_bytes(*end),
        (None, [first, .., last]) => {
            u64::from_le_bytes([*first, *last, name.len() as u8 | 0x20, 0, 0, 0, 0, 0])
        }
        (None, [one]) => *one as u64,
        (None, []) => 0,
    };
    1 << ((end | SMALL).wrapping_mul(SPREAD) >> 58)
}

/// Several names, to be looked for at once.
#[derive(Debug, Clone, Copy)]
pub struct Marks(u64);

impl Marks {
    /// Of these and of `more`.
    pub const fn and(self, more: &str) -> Self {
        Self(self.0 | mark(more.as_bytes()))
    }

    /// Of no name.
    pub const NONE: Self = Self(0);
}

/// A line being written.
#[must_use = "a line has to be ended"]
pub struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    /// Appends a value.
    #[inline]
    pub fn value(self, value: &HeaderValue) -> Self {
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// Appends text that has no control characters.
    #[inline]
    pub fn text(self, text: &'static str) -> Self {
        debug_assert!(!text.bytes().any(|byte| byte.is_ascii_control()));
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends up to sixteen bytes in lower-case hex.
    #[inline]
    pub fn hex<const N: usize>(self, bytes: &[u8; N]) -> Self {
        const { assert!(N <= 16, "an id at most") };
        let mut all = [0; 16];
        for (place, byte) in all.iter_mut().zip(bytes) {
            *place = *byte;
        }
        let digits = hex::digits(&all);
        self.0
            .extend_from_slice(digits.get(..2 * N).unwrap_or_default());
        self
    }

    /// Appends digits that were made by [`hex::digits`].
    #[inline]
    pub(super) fn digits(self, digits: &[u8; 32]) -> Self {
        self.0.extend_from_slice(digits);
        self
    }

    /// Appends a decimal number.
    #[inline]
    pub fn number(self, number: u64) -> Self {
        self.0
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self
    }

    /// Ends the line.
    #[inline]
    pub fn end(self) {
        self.0.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
