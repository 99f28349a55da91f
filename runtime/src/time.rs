//! Wall-clock time: as RFC 3339 in UTC for the log and for `created` in a container's state, and as containerd's messages have it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protobuf::{MessageField, well_known_types::timestamp::Timestamp};

/// A clock before 1970 reads as 1970.
pub fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let timestamp = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Default::default()
    };
    Some(timestamp).into()
}

/// `2026-11-22T14:57:28.123456789Z`. A clock before 1970 reads as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

/// Year, month and day of a day counted from 1970-01-01. The year is taken to begin in March, so that the leap
/// day is its last and month lengths follow one linear formula; 719 468 days lie between 0000-03-01 and 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
