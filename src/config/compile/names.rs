//! Names with a grammar: headers, methods, identifiers, paths, times.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::{PathGlob, Segment};

/// Whether a text may be the name of a role, schema or database without
/// surprises.
pub(in crate::config) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A header name in lower case.
pub(super) fn header_name(text: &str) -> Option<Arc<str>> {
    http::HeaderName::from_bytes(text.as_bytes())
        .ok()
        .map(|name| Arc::from(name.as_str()))
}

/// Whether a header carries a credential, in any spelling an app server may
/// fold to it.
pub(super) fn is_credential_header(name: &str) -> bool {
    matches!(
        fold(name).as_str(),
        "authorization" | "x-api-key" | "cookie"
    )
}

/// Lower case, everything but letters and digits as `-`.
fn fold(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            'a'..='z' | '0'..='9' => character,
            'A'..='Z' => character.to_ascii_lowercase(),
            _ => '-',
        })
        .collect()
}

/// Headers that configuration may never set toward the app: framing,
/// connection and identity are ours (SPEC §2.2).
pub(super) fn is_reserved_header(name: &str) -> bool {
    let folded = fold(name);
    matches!(
        folded.as_str(),
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "x-auth-strategy"
            | "x-auth-subject"
            | "x-auth-failed-open"
            | "x-service-name"
            | "x-service-call"
    ) || folded.starts_with("x-outrigger-")
}

/// An exact path as `/health` answers to.
pub(super) fn is_exact_path(text: &str) -> bool {
    text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// Parses a path pattern.
///
/// # Errors
/// What is wrong.
pub(super) fn parse_glob(text: &str) -> Result<PathGlob, &'static str> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("must begin with /");
    };
    if text
        .bytes()
        .any(|byte| !byte.is_ascii_graphic() || b"?#;\\%".contains(&byte))
    {
        return Err("must be a plain path: no spaces, `?`, `#`, `;`, `\\` or `%`");
    }
    let mut segments = Vec::new();
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        segments.push(match part {
            "**" if is_last => Segment::Rest,
            "**" => return Err("`**` may only stand at the end"),
            "*" => Segment::One,
            "." | ".." => return Err("must not hold `.` or `..` segments"),
            "" if !is_last => return Err("must not hold empty segments"),
            _ if part.contains('*') => return Err("`*` stands for a whole segment"),
            // A trailing slash, and `/` itself, hold an empty last segment.
            _ => Segment::Literal(Arc::from(part)),
        });
    }
    Ok(PathGlob {
        text: Arc::from(text),
        segments,
    })
}

/// Parses an RFC 3339 time, or a date as midnight UTC.
pub(super) fn parse_time(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let at = |index: usize| text.as_bytes().get(index).copied();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if at(4)? != b'-' || at(7)? != b'-' {
        return None;
    }
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
    {
        return None;
    }
    let mut seconds = days_since_epoch(year, month, day) * 86_400;
    if text.len() > 10 {
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let marks = matches!(at(10)?, b'T' | b't' | b' ') && at(13)? == b':' && at(16)? == b':';
        if !marks || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        seconds += hour * 3600 + minute * 60 + second;
        seconds -= offset(text.get(19..)?)?;
    }
    let seconds = u64::try_from(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Seconds east of UTC at the end of a time; fractions are dropped.
fn offset(text: &str) -> Option<i64> {
    let text = match text.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|character: char| character.is_ascii_digit()),
        None => text,
    };
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let years = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 });
    let months = (1..month).map(|month| days_in(year, month));
    years.sum::<i64>() + months.sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let seconds = |text| {
            parse_time(text).map(|time| {
                time.duration_since(SystemTime::UNIX_EPOCH)
                    .expect("after the epoch")
                    .as_secs()
            })
        };
        assert_eq!(seconds("1970-01-01"), Some(0));
        assert_eq!(seconds("2026-11-22T15:30:00Z"), Some(1_795_361_400));
        assert_eq!(seconds("2026-11-22T16:30:00.25+01:00"), Some(1_795_361_400));
        assert_eq!(seconds("2024-02-29"), Some(1_709_164_800));
        for bad in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "2026-11-22T15:30:00",
            "2026-11-22T25:00:00Z",
            "2026-11-22T15:30:00+1:00",
            "2026-11-22Z",
            "é026-11-22",
            "1969-12-31",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn globs() {
        for good in ["/", "/a", "/a/*/c", "/x/**", "/**", "/a/"] {
            assert!(parse_glob(good).is_ok(), "{good}");
        }
        for bad in [
            "", "a", "//", "/a//b", "/**/b", "/a*", "/a/../b", "/a%20b", "/a;b", "/a?b", "/a b",
        ] {
            assert!(parse_glob(bad).is_err(), "{bad}");
        }
    }
}
