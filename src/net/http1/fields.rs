//! The fields of a head or a trailer section (RFC 9112 §5).

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::FramingError;

/// Offsets of names and values within the buffer they were parsed from.
pub type Spans = smallvec::SmallVec<[(Range<usize>, Range<usize>); 12]>;

/// Where the parsed fields lie, so that values can share the head's memory.
pub fn spans_of(buffer: &[u8], fields: &[httparse::Header<'_>]) -> Spans {
    let start = buffer.as_ptr() as usize;
    let span = |bytes: &[u8]| {
        let offset = (bytes.as_ptr() as usize).saturating_sub(start);
        offset..offset + bytes.len()
    };
    fields
        .iter()
        .map(|field| (span(field.name.as_bytes()), span(field.value)))
        .collect()
}

/// Hands over each field of a head or a trailer section.
///
/// # Errors
/// [`FramingError::Field`] for what is no field, and those of `take`.
pub fn for_each_field<E: From<FramingError>>(
    head: &Bytes,
    spans: &Spans,
    mut take: impl FnMut(HeaderName, HeaderValue) -> Result<(), E>,
) -> Result<(), E> {
    for (name, value) in spans {
        let name = head.get(name.clone()).ok_or(FramingError::Field)?;
        let name = HeaderName::from_bytes(name).map_err(|_| FramingError::Field)?;
        // An empty value's pointer may lie anywhere.
        let value = if value.is_empty() {
            Bytes::new()
        } else {
            head.slice(value.clone())
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| FramingError::Field)?;
        take(name, value)?;
    }
    Ok(())
}

/// `1*DIGIT` without sign or white space, as `Content-Length` is (RFC 9110
/// §8.6); `None` for anything else and for what is too large.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The tokens of a comma-separated list.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
