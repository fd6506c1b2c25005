//! One partition of the history for each month of epochs, made before it is needed.
//!
//! Nothing depends on it: an event without a month's partition goes to the default one, where it is as unique and as
//! findable. (That partition can't be made any more while such events are there; they go when they are pruned.)

use std::collections::BTreeSet;

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use time::{Date, Month, OffsetDateTime};

use crate::domain::RoomTime;
use crate::repository::RepositoryError;

/// The server's advisory lock for making and dropping partitions.
pub(super) const LOCK: i64 = 0x7461_6e64_656d_0001;
/// A backup reads every table and lets nobody attach one to them; appends don't wait longer than this for it to end.
const PATIENCE_MS: u32 = 500;

/// Months tried already by this process.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    tried: Mutex<BTreeSet<Months>>,
}

impl Partitions {
    /// The months of these epochs that were not tried before.
    pub(super) fn missing(&self, epochs: impl Iterator<Item = u64>) -> BTreeSet<Months> {
        let tried = self.tried.lock();
        epochs.filter_map(Months::of_epoch).filter(|month| !tried.contains(month)).collect()
    }

    /// Makes partitions.
    pub(super) async fn make(
        &self,
        connection: &mut PgConnection,
        months: BTreeSet<Months>,
    ) -> Result<(), RepositoryError> {
        for month in months {
            self.attempt(connection, month).await?;
        }
        Ok(())
    }

    /// Makes those of this month and the next, by the server's clock, whether tried or not.
    pub(super) async fn ahead(&self, connection: &mut PgConnection) -> Result<(), RepositoryError> {
        const NOW: &str = "SELECT CAST(extract(epoch FROM now()) * 1000 AS BIGINT)";
        let now: i64 = sqlx::query(NOW).fetch_one(&mut *connection).await?.try_get(0)?;
        let Some(month) = u64::try_from(now).ok().and_then(Months::of_epoch) else { return Ok(()) };
        for month in [month, month.next()] {
            self.attempt(connection, month).await?;
        }
        Ok(())
    }

    /// It is about to be dropped: to be made again when it is needed again.
    pub(super) fn forget(&self, month: Months) {
        self.tried.lock().remove(&month);
    }

    async fn attempt(&self, connection: &mut PgConnection, month: Months) -> Result<(), RepositoryError> {
        match create(connection, month).await {
            Ok(()) => {}
            // Somebody holds the table, or the right is missing, or the default partition has events of that month.
            Err(sqlx::Error::Database(error)) => {
                tracing::warn!(table = month.table(), %error, "no partition of its own; its events go to room_events_default");
            }
            Err(error) => return Err(error.into()),
        }
        self.tried.lock().insert(month);
        Ok(())
    }
}

async fn create(connection: &mut PgConnection, month: Months) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    let patience = format!("SET LOCAL lock_timeout = {PATIENCE_MS}");
    sqlx::query(AssertSqlSafe(patience)).execute(&mut *tx).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    let table = month.table();
    let there = sqlx::query("SELECT 1 WHERE to_regclass($1) IS NOT NULL").bind(&table).fetch_optional(&mut *tx).await?;
    if there.is_none() {
        let (from, to) = month.epochs();
        // Not CREATE … PARTITION OF, which lets nobody read or write the history meanwhile.
        for sql in [
            format!("CREATE TABLE {table} (LIKE room_events INCLUDING ALL)"),
            format!("ALTER TABLE room_events ATTACH PARTITION {table} FOR VALUES FROM ({from}) TO ({to})"),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        }
    }
    tx.commit().await
}

/// The partitions that are there, the oldest first.
pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<Months>, RepositoryError> {
    const SQL: &str = "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
                       WHERE inhparent = 'room_events'::regclass";
    let rows = sqlx::query(SQL).fetch_all(connection).await?;
    let names = rows.iter().map(|row| row.try_get::<&str, _>(0));
    let mut months = names.filter_map(|name| name.map(Months::of_table).transpose()).collect::<Result<Vec<_>, _>>()?;
    months.sort_unstable();
    Ok(months)
}

/// A calendar month (UTC), counted from the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Months(i32);

impl Months {
    /// Epochs outside are no epochs that a clock made: they are welcome in the default partition.
    const FIRST: Self = Self(2020 * 12);
    const LAST: Self = Self(2099 * 12 + 11);

    fn of_epoch(millis: u64) -> Option<Self> {
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(millis / 1000).ok()?).ok()?;
        let month = Self(at.year() * 12 + i32::from(u8::from(at.month())) - 1);
        (Self::FIRST..=Self::LAST).contains(&month).then_some(month)
    }

    fn of_table(name: &str) -> Option<Self> {
        let (year, month) = name.strip_prefix("room_events_")?.split_once('_')?;
        let month = Self(year.parse::<i32>().ok()? * 12 + month.parse::<i32>().ok()? - 1);
        (month.table() == name).then_some(month)
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(super) fn table(self) -> String {
        format!("room_events_{:04}_{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }

    /// From, and up to but without, ms.
    fn epochs(self) -> (i64, i64) {
        (self.begin(), self.next().begin())
    }

    /// Whether all its epochs began before.
    pub(super) fn is_before(self, time: RoomTime) -> bool {
        self.next().begin() <= time.as_millis()
    }

    fn begin(self) -> i64 {
        let month = u8::try_from(self.0.rem_euclid(12) + 1).ok().and_then(|month| Month::try_from(month).ok());
        let date = month.and_then(|month| Date::from_calendar_date(self.0.div_euclid(12), month, 1).ok());
        date.map_or(i64::MAX, |date| date.midnight().assume_utc().unix_timestamp() * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_each_other_without_a_gap() {
        let december = Months::of_epoch(1_798_761_599_999).unwrap();
        let january = Months::of_epoch(1_798_761_600_000).unwrap();
        assert_eq!((december.table(), january.table()), ("room_events_2026_12".into(), "room_events_2027_01".into()));
        assert_eq!(december.epochs().1, january.epochs().0);
        assert_eq!(december.epochs().1, 1_798_761_600_000);
        assert_eq!(Months::of_table(&december.table()), Some(december));
    }

    #[test]
    fn what_no_clock_made_has_no_month() {
        for epoch in [0, 1, 1_577_836_799_999, 4_102_444_800_000, u64::MAX] {
            assert_eq!(Months::of_epoch(epoch), None, "{epoch}");
        }
        for name in ["room_events_default", "room_events_2026_13", "room_events_2026_1", "rooms"] {
            assert_eq!(Months::of_table(name), None, "{name}");
        }
    }
}
