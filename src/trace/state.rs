//! `tracestate` (W3C Trace Context §3.3, TS-1 and TS-2).

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::house::{is_service_id, parse_depth};
use crate::model::{FieldLines, LineStart};

pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const START: LineStart = LineStart::new("tracestate: ");

/// Members of a list, ours included (§3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// Bytes of a list that a span keeps: twice what everybody has to pass on
/// (§3.3.1.5).
const COPIED_BYTES: usize = 1024;
/// Key of our member.
const OWN_KEY: &[u8] = b"outrigger";
/// Our member, up to the depth.
const OWN_MEMBER: &str = "outrigger=d:";

/// A valid list as it came, and what our member in it says. At most 32 members
/// of at most 513 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TraceState {
    lines: SmallVec<[HeaderValue; 1]>,
    /// There is a member of ours, good or bad.
    has_own: bool,
    pub(super) depth: Option<u16>,
    pub(super) parent_service: Option<HeaderValue>,
}

/// The list of a request. A bad one counts for nothing.
pub(super) fn read(headers: &HeaderMap) -> TraceState {
    let mut state = TraceState::default();
    let mut count = 0;
    for line in headers.get_all(TRACESTATE) {
        for member in members(line) {
            count += 1;
            let Some((key, value)) = parse_member(member) else {
                return TraceState::default();
            };
            if count > MAX_MEMBERS {
                return TraceState::default();
            }
            if key == OWN_KEY && !state.has_own {
                state.has_own = true;
                state.read_own(value);
            }
        }
        state.lines.push(line.clone());
    }
    if count == 0 {
        return TraceState::default();
    }
    state
}

/// Members between commas, without white space around them; empty ones are
/// allowed and mean nothing.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes()
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Optional white space is space and tab.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn parse_member(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, rest) = member.split_at_checked(equals)?;
    let value = rest.get(1..)?;
    (is_key(key) && is_value(value)).then_some((key, value))
}

/// `simple-key`, or `tenant@system` (§3.3.1.3.1); a simple key may begin with a
/// digit, as Level 2 allows.
fn is_key(key: &[u8]) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_more = |byte: &u8| is_first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/');
    let is_part = |part: &[u8], limit: usize| {
        part.len() <= limit && part.first().is_some_and(is_first) && part.iter().all(is_more)
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => is_part(key, 256),
        Some(at) => {
            let (tenant, system) = key.split_at(at);
            let system = system.get(1..).unwrap_or_default();
            is_part(tenant, 241)
                && is_part(system, 14)
                && system.first().is_some_and(u8::is_ascii_lowercase)
        }
    }
}

/// 1 to 256 visible characters or spaces, no comma or equals sign, no space at
/// the end (§3.3.1.3.2).
fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.last() != Some(&b' ')
        && value
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'='))
}

impl TraceState {
    /// The list as it came, copied, so that it does not keep a whole request in
    /// memory; `None` where there is none or it is longer than [`COPIED_BYTES`].
    pub(super) fn copy(&self) -> Option<Box<str>> {
        let length: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        if length == 0 || length > COPIED_BYTES {
            return None;
        }
        let mut text = String::with_capacity(length);
        for line in &self.lines {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(line.to_str().ok()?);
        }
        Some(text.into_boxed_str())
    }

    /// `d:<depth>;p:<parent>`, in any order; unknown parts mean nothing.
    fn read_own(&mut self, value: &[u8]) {
        for part in value.split(|byte| *byte == b';') {
            match part {
                [b'd', b':', depth @ ..] => self.depth = parse_depth(depth),
                [b'p', b':', parent @ ..] if is_service_id(parent) => {
                    self.parent_service = HeaderValue::from_bytes(parent).ok();
                }
                _ => {}
            }
        }
    }

    /// Writes the header to send on, if there is one; see [`TraceState::header`].
    pub(super) fn write(&self, own: Option<(u16, Option<&HeaderValue>)>, ours: &mut FieldLines) {
        // Where the trace began here, as it often does.
        if let (Some((depth, parent)), true) = (own, self.lines.is_empty()) {
            let line = ours.line(START).text(OWN_MEMBER);
            let line = line.number(u64::from(depth));
            return match parent {
                Some(parent) => line.text(";p:").value(parent).end(),
                None => line.end(),
            };
        }
        if let Some(header) = self.header(own) {
            ours.push(&TRACESTATE, &header);
        }
    }

    /// The header to send on. Sampled: our member first, others in their order,
    /// 32 at most. Not sampled: without our member, whose content would be out
    /// of date.
    fn header(&self, own: Option<(u16, Option<&HeaderValue>)>) -> Option<HeaderValue> {
        if let (None, false, [line]) = (own, self.has_own, self.lines.as_slice()) {
            return Some(line.clone());
        }
        let mut text =
            Vec::with_capacity(64 + self.lines.iter().map(HeaderValue::len).sum::<usize>());
        let mut left = MAX_MEMBERS;
        if let Some((depth, parent)) = own {
            text.extend_from_slice(OWN_MEMBER.as_bytes());
            text.extend_from_slice(itoa::Buffer::new().format(depth).as_bytes());
            if let Some(parent) = parent {
                text.extend_from_slice(b";p:");
                text.extend_from_slice(parent.as_bytes());
            }
            left -= 1;
        }
        let others = self
            .lines
            .iter()
            .flat_map(members)
            .filter(|member| !is_own(member));
        for member in others.take(left) {
            if !text.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(member);
        }
        if text.is_empty() {
            return None;
        }
        HeaderValue::from_bytes(&text).ok()
    }
}

fn is_own(member: &[u8]) -> bool {
    member
        .strip_prefix(OWN_KEY)
        .is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[&str]) -> TraceState {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACESTATE, HeaderValue::from_str(line).expect("a value"));
        }
        read(&headers)
    }

    /// What goes on, unsampled.
    fn passed(lines: &[&str]) -> Option<String> {
        let header = of(lines).header(None)?;
        Some(header.to_str().expect("visible").to_owned())
    }

    #[test]
    fn the_cases_of_the_specification() {
        let list = |count: usize| {
            (0..count)
                .map(|n| format!("k{n}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        for good in [
            "foo=1,bar=2",
            "foo=1 \t , \t bar=2, \t baz=3",
            "foo=1,",
            "foo=1,foo=2",
            "0digit=1",
            "fw529a3039@dt=FfAA0",
            &format!("{}=1", "z".repeat(256)),
            &format!("{}@{}=1", "t".repeat(241), "v".repeat(14)),
            &format!("foo={}", "~".repeat(256)),
            "foo=  1",
            &list(32),
        ] {
            assert_eq!(passed(&[good]).as_deref(), Some(good));
        }
        for bad in [
            "foo",
            "foo=",
            "=1",
            "foo =1",
            "FOO=1",
            "foo.bar=1",
            "foo@=1,bar=2",
            "@foo=1",
            "foo@@bar=1",
            "foo@bar@baz=1",
            "foo@1bar=1",
            &format!("{}=1", "z".repeat(257)),
            &format!("{}@v=1", "t".repeat(242)),
            &format!("t@{}=1", "v".repeat(15)),
            &format!("foo={}", "~".repeat(257)),
            "foo=bar=baz",
            "foo=1,bar",
            &list(33),
            "",
            ",",
        ] {
            assert_eq!(passed(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(passed(&["foo=1", "bar=2"]).as_deref(), Some("foo=1,bar=2"));
        assert_eq!(
            passed(&["foo=1", "", "bar=2"]).as_deref(),
            Some("foo=1,bar=2")
        );
        assert_eq!(passed(&["foo=1", "BAR=2"]), None);
    }

    #[test]
    fn our_member_is_read_replaced_and_first() {
        let state = of(&["foo=1,outrigger=d:3;x:y;p:shop/users,bar=2"]);
        assert_eq!(state.depth, Some(3));
        let parent = state.parent_service.clone().expect("there is one");
        assert_eq!(parent, "shop/users");
        let header = state.header(Some((4, Some(&parent)))).expect("a header");
        assert_eq!(header, "outrigger=d:4;p:shop/users,foo=1,bar=2");
        assert_eq!(state.header(None).expect("a header"), "foo=1,bar=2");
        assert_eq!(of(&["outrigger=d:3"]).header(None), None);
        assert_eq!(
            TraceState::default()
                .header(Some((0, None)))
                .expect("a header"),
            "outrigger=d:0"
        );
        // Whatever else claims to be ours goes.
        let twice = of(&["outrigger=d:1,outrigger=d:2,a=b"]);
        assert_eq!(
            (twice.depth, twice.header(None).expect("a header")),
            (Some(1), HeaderValue::from_static("a=b"))
        );
    }

    #[test]
    fn what_is_written_is_the_header() {
        let parent = HeaderValue::from_static("shop/users");
        for lines in [
            &[][..],
            &["foo=1"],
            &["foo=1,outrigger=d:3"],
            &["outrigger=d:3"],
        ] {
            for own in [None, Some((0, None)), Some((70, Some(&parent)))] {
                let state = of(lines);
                let mut ours = FieldLines::default();
                state.write(own, &mut ours);
                let header = state.header(own);
                let header = header.as_ref().map(HeaderValue::as_bytes);
                assert_eq!(ours.get(&TRACESTATE), header, "{lines:?} {own:?}");
            }
        }
    }

    #[test]
    fn ours_makes_the_last_of_32_give_way() {
        let list = (0..32)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",");
        let header = of(&[&list]).header(Some((1, None))).expect("a header");
        let text = header.to_str().expect("visible");
        assert_eq!(text.split(',').count(), 32);
        assert!(text.starts_with("outrigger=d:1,k0=v,") && text.ends_with("k30=v"));
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic_and_what_goes_on_is_valid(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                headers.append(TRACESTATE, line);
            }
            let state = read(&headers);
            for own in [None, Some((7, None))] {
                if let Some(header) = state.header(own) {
                    let again = read(&HeaderMap::from_iter([(TRACESTATE, header.clone())]));
                    prop_assert_eq!(again.header(own), Some(header));
                }
            }
        }

        #[test]
        fn lists_of_members_pass(
            list in proptest::collection::vec("[a-z0-9][a-z0-9_*/-]{0,5}=[!-+.-<>-~]{1,5}", 1..40),
        ) {
            let text = list.join(",");
            let expected = (list.len() <= 32 && !list.iter().any(|member| member.starts_with("outrigger="))).then_some(text.clone());
            prop_assert_eq!(passed(&[&text]), expected);
        }
    }
}
