//! The fields of a head or a trailer section (RFC 9112 §5).

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::FramingError;

/// Where a field's name and value lie within the head they were parsed from,
/// by offset and length.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

/// The fields of one head.
pub type Spans = SmallVec<[Span; 10]>;

impl Span {
    /// The name and the value.
    pub fn of(self, head: &[u8]) -> (&[u8], &[u8]) {
        let part = |part| head.get(range(part)).unwrap_or_default();
        (part(self.name), part(self.value))
    }

    /// The line from the name to the value; `None` for an empty value, whose
    /// place may be anywhere. Between the two are a colon and white space.
    pub(super) fn line(self, head: &[u8]) -> Option<&[u8]> {
        let (start, end) = (range(self.name).start, range(self.value).end);
        (self.value.1 > 0).then(|| head.get(start..end)).flatten()
    }
}

fn range((start, length): (u32, u32)) -> Range<usize> {
    let start = start as usize;
    start..start + length as usize
}

/// Where the parsed fields lie, so that values can share the head's memory. A
/// head is far smaller than 4 GiB.
pub fn spans_of(buffer: &[u8], fields: &[httparse::Header<'_>]) -> Spans {
    fields.iter().map(|field| span_of(buffer, field)).collect()
}

/// The same of those fields that `keeps` wants, by name and value.
///
/// # Errors
/// Those of `keeps`.
pub fn spans_where<E>(
    buffer: &[u8],
    fields: &[httparse::Header<'_>],
    mut keeps: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
) -> Result<Spans, E> {
    let mut spans = Spans::new();
    for field in fields {
        if keeps(field.name.as_bytes(), field.value)? {
            spans.push(span_of(buffer, field));
        }
    }
    Ok(spans)
}

fn span_of(buffer: &[u8], field: &httparse::Header<'_>) -> Span {
    // An empty value's pointer may lie anywhere, and is never followed.
    let start = |bytes: &[u8]| (bytes.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    let part = |bytes: &[u8]| (start(bytes) as u32, bytes.len() as u32);
    Span {
        name: part(field.name.as_bytes()),
        value: part(field.value),
    }
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
    for span in spans {
        let (name, value) = span.of(head);
        let name = match usual_name(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| FramingError::Field)?,
        };
        // An empty value's pointer may lie anywhere.
        let value = match value.is_empty() {
            true => Bytes::new(),
            false => head.slice(range(span.value)),
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| FramingError::Field)?;
        take(name, value)?;
    }
    Ok(())
}

/// Names that `http` does not know, and would allocate each time.
fn usual_name(name: &[u8]) -> Option<HeaderName> {
    macro_rules! names {
        ($($length:literal: $($name:literal),+;)+) => {
            match name.len() {
                $($length => {
                    $(if is_named(name, $name.as_bytes().first_chunk::<$length>()?) {
                        const NAME: HeaderName = HeaderName::from_static($name);
                        return Some(NAME);
                    })+
                    None
                })+
                _ => None,
            }
        };
    }
    names! {
        9: "x-api-key", "x-real-ip", "sec-ch-ua";
        10: "tracestate", "x-trace-id";
        11: "traceparent";
        12: "x-request-id";
        13: "x-trace-depth";
        14: "sec-fetch-mode", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user";
        15: "x-forwarded-for";
        16: "x-forwarded-host", "x-requested-with", "sec-ch-ua-mobile", "x-forwarded-port";
        17: "x-forwarded-proto";
        18: "sec-ch-ua-platform";
        19: "x-parent-service-id";
    }
}

/// Whether a field name is this one, in letters of any size. `known` has letters,
/// digits and hyphens only, in small letters; so has a name that was parsed,
/// apart from bytes that cannot become one of those by the bit that is set.
pub fn is_named<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    // All at once where a comparison would stop at the first byte that differs.
    let differs = |differs, (one, other): (&u8, &u8)| differs | ((one | 0x20) ^ other);
    name.iter().zip(known).fold(0, differs) == 0
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

/// Appends a field line.
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The tokens of a comma-separated list.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_what_they_would_be_made() {
        let names = "x-api-key x-real-ip sec-ch-ua tracestate x-trace-id traceparent \
            x-request-id x-trace-depth sec-fetch-mode sec-fetch-site sec-fetch-dest \
            sec-fetch-user x-forwarded-for x-forwarded-host x-requested-with sec-ch-ua-mobile \
            x-forwarded-port x-forwarded-proto sec-ch-ua-platform x-parent-service-id";
        for name in names.split_whitespace() {
            for spelled in [name.to_owned(), name.to_uppercase()] {
                let made = HeaderName::from_bytes(spelled.as_bytes()).expect("a name");
                assert_eq!(usual_name(spelled.as_bytes()), Some(made));
            }
        }
        for name in ["x-api-kez", "x_api_key", "host", "connection", ""] {
            assert_eq!(usual_name(name.as_bytes()), None, "{name}");
        }
    }
}
