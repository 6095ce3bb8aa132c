//! Moments as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in UTC as RFC 3339 with milliseconds, always 24 ASCII bytes:
/// `2026-11-22T16:05:14.123Z`. Moments before 1970 or after 9999 are shown as
/// the nearest one in between.
pub fn rfc3339(time: SystemTime) -> [u8; 24] {
    const LAST_SECOND: u64 = 253_402_300_799;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(LAST_SECOND);
    let (year, month, day) = date_of(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (end, width, mut value) in [
        (4, 4, year),
        (7, 2, month),
        (10, 2, day),
        (13, 2, seconds / 3600 % 24),
        (16, 2, seconds / 60 % 60),
        (19, 2, seconds % 60),
        (23, 3, u64::from(since.subsec_millis())),
    ] {
        for digit in text.iter_mut().take(end).rev().take(width) {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

/// [`rfc3339`] as a string.
pub fn rfc3339_string(time: SystemTime) -> String {
    rfc3339(time).iter().copied().map(char::from).collect()
}

/// Year, month and day of a day counted from 1970-01-01, by eras of 400 years
/// that begin on 1 March (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
const fn date_of(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_250, "2023-11-14T22:13:20.250Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(rfc3339_string(time), expected);
        }
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339_string(before), "1970-01-01T00:00:00.000Z");
    }
}
