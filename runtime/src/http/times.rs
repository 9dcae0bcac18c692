//! Times in requests and answers, as in RFC 3339.
use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::reply::HttpError;
use rollcall_store::Moment;

/// Reads a parameter of a query.
pub(super) fn moment(name: &str, text: &str) -> Result<Moment, HttpError> {
    // A plus that is not encoded means a space in a query.
    let parsed = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).ok();
    let micros = parsed.and_then(|time| i64::try_from(time.unix_timestamp_nanos() / 1000).ok());
    // There are no sessions before 1970.
    let moment = micros.map(|micros| Moment(micros.max(0)));
    moment.ok_or_else(|| HttpError::bad(format!("{name} must be a time like 2026-09-01T08:00:00Z")))
}

/// Returns the time in UTC with milliseconds.
pub(super) fn shown(moment: Moment) -> String {
    rfc3339(
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    )
}

/// Returns the time that long ago, by this machine's clock.
pub(super) fn ago(age: Duration) -> String {
    rfc3339(OffsetDateTime::from(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn rfc3339(time: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_any_zone_and_their_plus_may_be_a_space() {
        for text in ["2026-09-01T12:00:00Z", "2026-09-01T15:00:00+03:00", "2026-09-01T15:00:00 03:00"] {
            assert_eq!(moment("from", text), Ok(Moment(1_788_264_000_000_000)), "{text}");
        }
        assert_eq!(moment("from", "0001-01-01T00:00:00Z"), Ok(Moment(0)));
        for text in ["yesterday", "2026-09-01", "", "1788264000"] {
            assert!(moment("to", text).is_err_and(|why| why.detail.contains("to must be a time")), "{text}");
        }
    }

    #[test]
    fn moments_are_shown_with_milliseconds() {
        assert_eq!(shown(Moment(1_788_264_000_123_999)), "2026-09-01T12:00:00.123Z");
    }
}
