//! What members last reported of themselves, in the rows of `users`.

use super::RepositoryError;
use super::columns::finite;
use super::statement::{BulkStatement, ColumnKind, SqlConnection, SqlValue};
use crate::commit::{ConnectionQuality, MemberReport};

/// In a transaction that the caller has begun.
pub(super) async fn store<'r>(
    connection: &mut impl SqlConnection,
    reports: impl Iterator<Item = &'r MemberReport>,
) -> Result<(), RepositoryError> {
    use ColumnKind::{Bool, Real, Text, Time};
    const REPORTS: BulkStatement<6> = BulkStatement {
        head: "UPDATE users SET position = said.column3, is_playing = said.column4, connection_quality = said.column5, \
               last_heartbeat = said.column6 FROM (",
        columns: [Text, Text, Real, Bool, Text, Time],
        tail: ") AS said WHERE users.room_id = said.column1 AND users.user_id = said.column2 AND users.left_at IS NULL \
               AND users.created_at <= said.column6 \
               AND (users.last_heartbeat IS NULL OR users.last_heartbeat < said.column6)",
    };
    let rows: Vec<_> = reports
        .map(|report| {
            [
                report.room.as_str().into(),
                report.user.as_str().into(),
                report.position.map(|position| SqlValue::Real(finite(position))).into(),
                report.playing.map(SqlValue::Bool).into(),
                report.quality.map(ConnectionQuality::name).into(),
                report.at.into(),
            ]
        })
        .collect();
    connection.bulk(&REPORTS, &rows).await
}
