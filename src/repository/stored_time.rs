//! Moments of room time as the databases hold them.
//!
//! PostgreSQL has `timestamptz`. SQLite has no type for time, so it gets the text that its own date functions read,
//! `2026-11-30 17:00:00.123456`, in UTC: it sorts like the moment. Both hold whole microseconds.
//!
//! Range: the years 1 to 9999, because drivers of reporting tools can't represent more. A moment outside is stored as
//! the nearest one inside, and a warning tells of it (at most one in 30 s): only a clock that is wrong by centuries
//! makes one.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};
use time::{Date, Month, OffsetDateTime, Time};

use crate::domain::RoomTime;
use crate::telemetry::Seldom;

/// 0001-01-01T00:00:00Z, µs since the Unix epoch.
const FIRST: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
const LAST: i64 = 253_402_300_799_999_999;
/// 2000-01-01T00:00:00Z: PostgreSQL counts from here.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));

/// A moment within the range of both databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredTime(RoomTime);

/// A stored text that is no `YYYY-MM-DD HH:MM:SS.ffffff`.
#[derive(Debug, thiserror::Error)]
#[error("not a moment as this server writes it")]
struct NotATime;

impl StoredTime {
    pub(super) fn of(at: RoomTime) -> Self {
        static OUTSIDE: Seldom = Seldom::new();
        let micros = at.as_micros().clamp(FIRST, LAST);
        if micros != at.as_micros() && OUTSIDE.is_due() {
            let micros_since_1970 = at.as_micros();
            tracing::warn!(
                micros_since_1970,
                "a time outside the years 1 to 9999 is stored as the nearest within them"
            );
        }
        Self(RoomTime::from_micros(micros))
    }

    pub(super) fn room_time(self) -> RoomTime {
        self.0
    }

    fn text(self) -> String {
        let nanos = i128::from(self.0.as_micros()) * 1000;
        // The range is within that of `time`.
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, micro) = at.to_hms_micro();
        format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}", u8::from(month))
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
        let byte = |from: usize, to: usize| u8::try_from(number(from, to)?).ok();
        let month = Month::try_from(byte(5, 7)?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(number(0, 4)?).ok()?, month, byte(8, 10)?).ok()?;
        let time = Time::from_hms_micro(byte(11, 13)?, byte(14, 16)?, byte(17, 19)?, number(20, 26)?).ok()?;
        let at = OffsetDateTime::new_utc(date, time);
        let micros = i64::try_from(at.unix_timestamp_nanos() / 1000).ok()?;
        let read = Self(RoomTime::from_micros(micros));
        (read.text() == text).then_some(read)
    }
}

impl Type<Postgres> for StoredTime {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }

    fn compatible(found: &PgTypeInfo) -> bool {
        found.oid() == TIMESTAMPTZ.oid()
    }
}

impl PgHasArrayType for StoredTime {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for StoredTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&(self.0.as_micros() - POSTGRES_EPOCH), buffer)
    }
}

impl Decode<'_, Postgres> for StoredTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self(RoomTime::from_micros(micros.saturating_add(POSTGRES_EPOCH))))
    }
}

impl Type<Sqlite> for StoredTime {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for StoredTime {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.text(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for StoredTime {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self::parse(<&str as Decode<Sqlite>>::decode(value)?).ok_or(NotATime)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_from_its_text_to_the_microsecond() {
        for micros in [FIRST, -1, 0, 1, 1_795_000_000_123_456, LAST] {
            let stored = StoredTime::of(RoomTime::from_micros(micros));
            assert_eq!(StoredTime::parse(&stored.text()), Some(stored), "{}", stored.text());
        }
        assert_eq!(StoredTime::of(RoomTime::from_micros(-1)).text(), "1969-12-31 23:59:59.999999");
        for text in
            ["", "noon", "2026-11-30", "2026-11-30 17:00:00.1", "2026-11-31 17:00:00.000000", "1795000000000000"]
        {
            assert_eq!(StoredTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_outside_the_range_is_the_nearest_inside() {
        assert_eq!(StoredTime::of(RoomTime::from_micros(i64::MIN)).text(), "0001-01-01 00:00:00.000000");
        assert_eq!(StoredTime::of(RoomTime::from_micros(i64::MAX)).text(), "9999-12-31 23:59:59.999999");
    }
}
