//! Request targets in plain form, and how path patterns fit them.
//!
//! Rules decide about segments after percent-decoding, because that is what
//! most apps route by. A target whose meaning depends on who decodes it (PATH-1)
//! is refused before any rule is asked, so rules see one reading only.

use crate::model::{PathGlob, Segment};

/// How well a pattern fits a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not at all.
    No,
    /// Only for a reader that ignores ASCII case, needless percent-encoding or a
    /// trailing slash. Enough for a stricter rule, never for an exemption.
    Spelling,
    /// As written.
    Exact,
}

/// PATH-1: whether the target has one reading. False for `%00 %2f %5c \`,
/// encoded or literal dot segments, `//`, `;` and invalid percent-encoding.
pub(super) fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\\' | b';' => return false,
            b'/' if tail.first() == Some(&b'/') => return false,
            b'%' => match tail {
                [high, low, ..] => match hex_pair(*high, *low) {
                    None | Some(0 | b'/' | b'\\') => return false,
                    Some(_) => {}
                },
                _ => return false,
            },
            _ => {}
        }
    }
    path.split('/')
        .all(|segment| !is_dot_segment(segment.as_bytes()))
}

/// `.` or `..` in any spelling.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut dots = 0;
    let mut rest = segment;
    while let Some(((byte, _), tail)) = next_octet(rest) {
        if byte != b'.' {
            return false;
        }
        dots += 1;
        rest = tail;
    }
    dots == 1 || dots == 2
}

/// The next octet of a segment, whether it was percent-encoded, and the rest. An
/// invalid escape is read as it stands; [`is_plain`] has refused it before.
fn next_octet(segment: &[u8]) -> Option<((u8, bool), &[u8])> {
    match segment {
        [b'%', high, low, rest @ ..] => match hex_pair(*high, *low) {
            Some(byte) => Some(((byte, true), rest)),
            None => Some(((b'%', false), segment.get(1..)?)),
        },
        [byte, rest @ ..] => Some(((*byte, false), rest)),
        [] => None,
    }
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Characters that may stand literally in a path segment (RFC 3986 §3.3 pchar):
/// encoding one of them is a needless spelling.
fn may_stand_literally(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// A [`PathGlob`] ready to be compared.
#[derive(Debug)]
pub(super) struct Glob {
    parts: Box<[Part]>,
    /// Written with a slash at the end.
    trailing: bool,
}

#[derive(Debug)]
enum Part {
    /// Percent-decoded.
    Literal(Box<[u8]>),
    One,
    Rest,
}

impl Glob {
    pub(super) fn new(glob: &PathGlob) -> Self {
        let mut parts: Vec<Part> = glob
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Part::Literal(decode(text.as_bytes())),
                Segment::One => Part::One,
                Segment::Rest => Part::Rest,
            })
            .collect();
        let trailing = matches!(parts.last(), Some(Part::Literal(text)) if text.is_empty());
        if trailing {
            parts.pop();
        }
        Self {
            parts: parts.into(),
            trailing,
        }
    }

    /// How well this pattern fits a target that [`is_plain`].
    pub(super) fn fit(&self, path: &str) -> Fit {
        // `*` of OPTIONS and the like: the whole server, never an exemption.
        let (mut rest, mut fit) = match path.strip_prefix('/') {
            Some(rest) => (Some(rest), Fit::Exact),
            None => (None, Fit::Spelling),
        };
        for part in &self.parts {
            if matches!(part, Part::Rest) {
                return fit;
            }
            let Some(text) = rest.filter(|text| !text.is_empty()) else {
                return Fit::No;
            };
            let (segment, tail) = match text.split_once('/') {
                Some((segment, tail)) => (segment, Some(tail)),
                None => (text, None),
            };
            rest = tail;
            if let Part::Literal(literal) = part {
                fit = fit.min(fit_segment(segment.as_bytes(), literal));
                if fit == Fit::No {
                    return Fit::No;
                }
            }
        }
        match rest {
            // Everything is used up; `/` itself has no other spelling.
            None if self.trailing && !self.parts.is_empty() => fit.min(Fit::Spelling),
            None => fit,
            Some("") if self.trailing || self.parts.is_empty() => fit,
            Some("") => fit.min(Fit::Spelling),
            Some(_) => Fit::No,
        }
    }
}

fn decode(text: &[u8]) -> Box<[u8]> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(((byte, _), tail)) = next_octet(rest) {
        decoded.push(byte);
        rest = tail;
    }
    decoded.into()
}

fn fit_segment(segment: &[u8], literal: &[u8]) -> Fit {
    let mut fit = Fit::Exact;
    let mut rest = segment;
    for expected in literal {
        let Some(((byte, encoded), tail)) = next_octet(rest) else {
            return Fit::No;
        };
        rest = tail;
        if byte != *expected {
            if !byte.eq_ignore_ascii_case(expected) {
                return Fit::No;
            }
            fit = Fit::Spelling;
        }
        if encoded && may_stand_literally(byte) {
            fit = Fit::Spelling;
        }
    }
    if rest.is_empty() { fit } else { Fit::No }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::auth) fn glob(text: &str) -> PathGlob {
        let segments = text
            .trim_start_matches('/')
            .split('/')
            .map(|segment| match segment {
                "*" => Segment::One,
                "**" => Segment::Rest,
                literal => Segment::Literal(Arc::from(literal)),
            })
            .collect();
        PathGlob {
            text: Arc::from(text),
            segments,
        }
    }

    fn fit(pattern: &str, path: &str) -> Fit {
        assert!(is_plain(path), "{path}");
        Glob::new(&glob(pattern)).fit(path)
    }

    #[test]
    fn targets_with_two_readings_are_refused() {
        for bad in [
            "/a%00",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e",
            "/a/%2e./b",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/a;b",
            "/;",
            "/a%",
            "/a%4",
            "/a%4g",
            "/%zz",
            "/a%%20",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
        for good in [
            "/",
            "/a",
            "/a/",
            "/a%20b",
            "/...",
            "/.a",
            "/a.",
            "/a..b",
            "/%C3%BC",
            "/%25",
            "/a:b@c",
            "*",
            "/.well-known/x",
            "/a%3bb",
        ] {
            assert!(is_plain(good), "{good}");
        }
    }

    #[test]
    fn patterns_fit_segments() {
        for (pattern, path, expected) in [
            ("/", "/", Fit::Exact),
            ("/", "/a", Fit::No),
            ("/a", "/a", Fit::Exact),
            ("/a", "/a/", Fit::Spelling),
            ("/a/", "/a/", Fit::Exact),
            ("/a/", "/a", Fit::Spelling),
            ("/a", "/A", Fit::Spelling),
            ("/a", "/%61", Fit::Spelling),
            ("/a", "/%41", Fit::Spelling),
            ("/a", "/b", Fit::No),
            ("/a", "/ab", Fit::No),
            ("/a", "/a/b", Fit::No),
            ("/ab", "/a", Fit::No),
            ("/a b", "/a%20b", Fit::Exact),
            ("/a%20b", "/a%20b", Fit::Exact),
            ("/ü", "/%C3%BC", Fit::Exact),
            ("/ü", "/%c3%bc", Fit::Exact),
            ("/a/*", "/a/x", Fit::Exact),
            ("/a/*", "/a", Fit::No),
            ("/a/*", "/a/", Fit::No),
            ("/a/*", "/a/x/", Fit::Spelling),
            ("/a/*", "/a/x/y", Fit::No),
            ("/a/*/c", "/a/x/c", Fit::Exact),
            ("/a/*/c", "/a/x/C", Fit::Spelling),
            ("/a/**", "/a", Fit::Exact),
            ("/a/**", "/a/", Fit::Exact),
            ("/a/**", "/a/b/c", Fit::Exact),
            ("/a/**", "/A/b/c", Fit::Spelling),
            ("/a/**", "/ab", Fit::No),
            ("/**", "/", Fit::Exact),
            ("/**", "/x/y", Fit::Exact),
            ("/**", "*", Fit::Spelling),
            ("/a/**", "*", Fit::No),
        ] {
            assert_eq!(fit(pattern, path), expected, "{pattern} {path}");
        }
    }

    /// A random spelling of `/secret/area` that a case-blind, decoding app reads
    /// as the same path.
    fn spelling() -> impl Strategy<Value = String> {
        proptest::collection::vec(0_u8..4, "secret/area".len()).prop_map(|choices| {
            let mut text = String::from("/");
            for (letter, choice) in "secret/area".chars().zip(choices) {
                match (letter, choice) {
                    ('/', _) | (_, 0) => text.push(letter),
                    (_, 1) => text.push(letter.to_ascii_uppercase()),
                    (_, 2) => text.push_str(&format!("%{:02x}", letter as u32)),
                    (_, _) => {
                        text.push_str(&format!("%{:02X}", letter.to_ascii_uppercase() as u32));
                    }
                }
            }
            text
        })
    }

    proptest! {
        #[test]
        fn no_spelling_escapes_a_pattern(path in spelling()) {
            for pattern in ["/secret/area", "/secret/**", "/secret/*", "/*/area", "/**"] {
                prop_assert!(fit(pattern, &path) >= Fit::Spelling, "{} {}", pattern, path);
            }
            if path != "/secret/area" {
                prop_assert_eq!(fit("/secret/area", &path), Fit::Spelling);
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(path in ".*") {
            let plain = is_plain(&path);
            let _fit = Glob::new(&glob("/a/*/**")).fit(&path);
            if path.contains("..") && path.split('/').any(|segment| segment == "..") {
                prop_assert!(!plain);
            }
        }
    }
}
