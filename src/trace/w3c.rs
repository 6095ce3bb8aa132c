//! `traceparent` (W3C Trace Context, TP-1 and TP-2).

use http::{HeaderMap, HeaderName};

use crate::model::{FieldLines, LineStart, hex};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const START: LineStart = LineStart::new("traceparent: ");

/// Bit 0 of the flags (§3.2.2.5.1).
const SAMPLED: u8 = 0x01;
/// Bit 1 of the flags (Level 2, §3.2.2.5.2): the trace id is random.
const RANDOM: u8 = 0x02;
/// Bytes of version 00.
const LENGTH: usize = 55;

/// What a valid header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace_id: [u8; 16],
    pub(super) parent_id: [u8; 8],
    pub(super) sampled: bool,
    pub(super) random: bool,
}

/// The header of a request; `None` unless there is exactly one and it is valid.
pub(super) fn read(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value.as_bytes()),
        _ => None,
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; of a higher version the first 55 bytes,
/// followed by nothing or by `-…` (§4.3).
fn parse(value: &[u8]) -> Option<TraceParent> {
    let value = value.trim_ascii();
    let (fixed, rest) = value.split_at_checked(LENGTH)?;
    let version = hex::read::<1>(fixed.get(0..2)?)?;
    match version {
        [0xff] => return None,
        [0x00] if !rest.is_empty() => return None,
        _ if !rest.is_empty() && !rest.starts_with(b"-") => return None,
        _ => {}
    }
    let dashes = [2, 35, 52];
    if dashes.iter().any(|at| fixed.get(*at) != Some(&b'-')) {
        return None;
    }
    let [flags] = hex::read::<1>(fixed.get(53..55)?)?;
    Some(TraceParent {
        trace_id: hex::read_id(fixed.get(3..35)?)?,
        parent_id: hex::read_id(fixed.get(36..52)?)?,
        sampled: flags & SAMPLED != 0,
        // Only version 00 is known to have this bit.
        random: version == [0x00] && flags & RANDOM != 0,
    })
}

impl TraceParent {
    /// Writes it as a version 00 header.
    pub(super) fn write(&self, ours: &mut FieldLines) {
        let flags = (u8::from(self.sampled) * SAMPLED) | (u8::from(self.random) * RANDOM);
        ours.line(START)
            .text("00-")
            .hex(&self.trace_id)
            .text("-")
            .hex(&self.parent_id)
            .text("-")
            .hex(&[flags])
            .end();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_cases_of_the_specification() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (value, expected) in [
            (GOOD.to_owned(), true),
            (format!(" {GOOD}\t"), true),
            (format!("00-{ids}-00"), true),
            (format!("cc-{ids}-01"), true),
            (format!("cc-{ids}-01-what-the-future-will-be-like"), true),
            (format!("cc-{ids}-01.what"), false),
            (format!("ff-{ids}-01"), false),
            (format!("00-{ids}-01-more"), false),
            (format!("00-{ids}-0"), false),
            (format!("00-{ids}-0x"), false),
            (format!("00-{ids}-0A"), false),
            (format!("0-{ids}-01"), false),
            (format!("00-{}-01", ids.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (
                format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)),
                false,
            ),
            (GOOD.replace('-', "_"), false),
            (String::new(), false),
        ] {
            assert_eq!(parse(value.as_bytes()).is_some(), expected, "{value}");
        }
    }

    #[test]
    fn flags_are_told_apart() {
        let with = |flags| parse(GOOD.replace("-01", flags).as_bytes()).expect("valid");
        assert!(!with("-00").sampled);
        assert!(!with("-02").sampled && with("-02").random);
        assert!(with("-ff").sampled);
        let future = parse(
            GOOD.replace("00-4", "01-4")
                .replace("-01", "-03")
                .as_bytes(),
        );
        assert!(future.is_some_and(|parent| parent.sampled && !parent.random));
    }

    #[test]
    fn two_headers_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(read(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(read(&headers).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            parse(&bytes);
        }

        #[test]
        fn near_misses_do_not_panic(at in 0..55_usize, byte in any::<u8>()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
            trace_id in any::<[u8; 16]>(),
            parent_id in any::<[u8; 8]>(),
            sampled: bool,
            random: bool,
        ) {
            prop_assume!(trace_id != [0; 16] && parent_id != [0; 8]);
            let parent = TraceParent { trace_id, parent_id, sampled, random };
            let mut ours = FieldLines::default();
            parent.write(&mut ours);
            let header = ours.get(&TRACEPARENT).unwrap_or_default();
            prop_assert_eq!(header.len(), LENGTH);
            prop_assert_eq!(parse(header), Some(parent));
        }
    }
}
