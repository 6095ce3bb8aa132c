//! B3, single and multiple headers (openzipkin/b3-propagation).

use http::{HeaderMap, HeaderName};

use crate::model::{FieldLines, LineStart, hex};

pub(super) const SINGLE: HeaderName = HeaderName::from_static("b3");
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const PARENT_START: LineStart = LineStart::new("x-b3-parentspanid: ");

/// What B3 can say about sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Drop,
    Sample,
    /// Sample, and tell everybody downstream to.
    Debug,
}

/// What B3 headers say: a decision may come without ids, and ids without a
/// decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct B3 {
    pub(super) ids: Option<([u8; 16], [u8; 8])>,
    pub(super) decision: Option<Decision>,
}

/// The single header if there is one, else the multiple ones; what is invalid
/// counts for nothing.
pub(super) fn read(headers: &HeaderMap) -> B3 {
    if headers.contains_key(SINGLE) {
        return only(headers, &SINGLE).and_then(single).unwrap_or_default();
    }
    let decision = match only(headers, &FLAGS) {
        Some(b"1") => Some(Decision::Debug),
        _ => match only(headers, &SAMPLED) {
            // Early implementations sent words.
            Some(b"1" | b"true") => Some(Decision::Sample),
            Some(b"0" | b"false") => Some(Decision::Drop),
            _ => None,
        },
    };
    let trace_id = only(headers, &TRACE_ID).and_then(trace_id);
    let span_id = only(headers, &SPAN_ID).and_then(hex::read_id);
    B3 {
        ids: trace_id.zip(span_id),
        decision,
    }
}

/// A field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes().trim_ascii()),
        _ => None,
    }
}

/// `{trace}-{span}[-{state}[-{parent}]]`, or `{state}` alone.
fn single(value: &[u8]) -> Option<B3> {
    let mut parts = value.split(|byte| *byte == b'-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        return Some(B3 {
            ids: None,
            decision: Some(state(first)?),
        });
    };
    let decision = match parts.next() {
        Some(part) => Some(state(part)?),
        None => None,
    };
    if let Some(parent) = parts.next() {
        hex::read::<8>(parent)?;
    }
    if parts.next().is_some() {
        return None;
    }
    Some(B3 {
        ids: Some((trace_id(first)?, hex::read_id(span)?)),
        decision,
    })
}

const fn state(part: &[u8]) -> Option<Decision> {
    match part {
        b"0" => Some(Decision::Drop),
        b"1" => Some(Decision::Sample),
        b"d" => Some(Decision::Debug),
        _ => None,
    }
}

/// 32 digits, or 16 that are the lower half.
fn trace_id(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() == 32 {
        return hex::read_id(text);
    }
    let low: [u8; 8] = hex::read_id(text)?;
    Some(u128::from(u64::from_be_bytes(low)).to_be_bytes())
}

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) sampled: bool,
    pub(super) debug: bool,
}

impl Outgoing {
    pub(super) fn write_single(&self, ours: &mut FieldLines) {
        let state = match (self.sampled, self.debug) {
            (true, true) => "-d",
            (true, false) => "-1",
            (false, _) => "-0",
        };
        let line = ours
            .line(LineStart::new("b3: "))
            .hex(&self.trace_id)
            .text("-");
        let line = line.hex(&self.span_id).text(state);
        match &self.parent {
            Some(parent) => line.text("-").hex(parent).end(),
            None => line.end(),
        }
    }

    pub(super) fn write_multi(&self, ours: &mut FieldLines) {
        ours.line(LineStart::new("x-b3-traceid: "))
            .hex(&self.trace_id)
            .end();
        ours.line(LineStart::new("x-b3-spanid: "))
            .hex(&self.span_id)
            .end();
        if let Some(parent) = &self.parent {
            ours.line(PARENT_START).hex(parent).end();
        }
        // Debug implies sampled, which is then not sent.
        if self.sampled && self.debug {
            ours.line(LineStart::new("x-b3-flags: ")).text("1").end();
        } else {
            let sampled = if self.sampled { "1" } else { "0" };
            ours.line(LineStart::new("x-b3-sampled: "))
                .text(sampled)
                .end();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn of(pairs: &[(&'static str, &str)]) -> B3 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        read(&headers)
    }

    #[test]
    fn single_in_all_its_forms() {
        let ids = hex::read_id(TRACE.as_bytes()).zip(hex::read_id(SPAN.as_bytes()));
        assert!(ids.is_some());
        for (value, ids, decision) in [
            (format!("{TRACE}-{SPAN}"), ids, None),
            (format!("{TRACE}-{SPAN}-1"), ids, Some(Decision::Sample)),
            (format!("{TRACE}-{SPAN}-0"), ids, Some(Decision::Drop)),
            (
                format!("{TRACE}-{SPAN}-d-05e3ac9a4f6e3b90"),
                ids,
                Some(Decision::Debug),
            ),
            ("0".to_owned(), None, Some(Decision::Drop)),
            ("d".to_owned(), None, Some(Decision::Debug)),
            (format!("{TRACE}-{SPAN}-2"), None, None),
            (format!("{TRACE}-{SPAN}-1-short"), None, None),
            (format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-x"), None, None),
            (format!("{}-{SPAN}-1", TRACE.to_uppercase()), None, None),
            (TRACE.to_owned(), None, None),
            (String::new(), None, None),
        ] {
            assert_eq!(of(&[("b3", &value)]), B3 { ids, decision }, "{value}");
        }
    }

    #[test]
    fn short_ids_are_the_lower_half() {
        let (trace_id, _) = of(&[("b3", &format!("{SPAN}-{SPAN}"))]).ids.expect("valid");
        assert_eq!(trace_id[..8], [0; 8]);
        assert_eq!(
            hex::read::<8>(SPAN.as_bytes()),
            trace_id[8..].try_into().ok()
        );
    }

    #[test]
    fn multiple_headers() {
        let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        let with = |more: &[(&'static str, &str)]| of(&[&ids[..], more].concat());
        assert!(with(&[]).ids.is_some() && with(&[]).decision.is_none());
        assert_eq!(
            with(&[("x-b3-sampled", "1")]).decision,
            Some(Decision::Sample)
        );
        assert_eq!(
            with(&[("x-b3-sampled", "false")]).decision,
            Some(Decision::Drop)
        );
        let debug = with(&[("x-b3-flags", "1"), ("x-b3-sampled", "0")]);
        assert_eq!(debug.decision, Some(Decision::Debug));
        assert_eq!(with(&[("x-b3-spanid", SPAN)]).ids, None, "twice");
        assert_eq!(of(&[("x-b3-sampled", "0")]).decision, Some(Decision::Drop));
        // The single header wins, even when it is invalid.
        assert_eq!(with(&[("b3", "x")]), B3::default());
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            single(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
            trace_id in any::<[u8; 16]>(),
            span_id in any::<[u8; 8]>(),
            parent in any::<Option<[u8; 8]>>(),
            sampled: bool,
            debug: bool,
        ) {
            prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
            let outgoing = Outgoing { trace_id, span_id, parent, sampled, debug };
            let decision = Some(match (sampled, debug) {
                (true, true) => Decision::Debug,
                (true, false) => Decision::Sample,
                (false, _) => Decision::Drop,
            });
            let expected = B3 { ids: Some((trace_id, span_id)), decision };
            let (mut one, mut many) = (HeaderMap::new(), HeaderMap::new());
            let (mut single, mut multi) = (FieldLines::default(), FieldLines::default());
            outgoing.write_single(&mut single);
            outgoing.write_multi(&mut multi);
            single.insert_into(&mut one);
            multi.insert_into(&mut many);
            prop_assert_eq!(read(&one), expected);
            prop_assert_eq!(read(&many), expected);
        }
    }
}
