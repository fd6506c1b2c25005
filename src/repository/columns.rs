//! Conversions between domain values and columns, the same for both databases.

use std::borrow::Cow;

use super::RepositoryError;
use crate::domain::{Head, RoomId, ShortId};

/// Columns are signed: saturates. An epoch of `i64::MAX` ms lies in the year 292,277,026.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn head(epoch: i64, seq: i64) -> Result<Head, RepositoryError> {
    match (u64::try_from(epoch), u64::try_from(seq)) {
        (Ok(epoch), Ok(seq)) => Ok(Head { epoch, seq }),
        _ => Err(RepositoryError::Corrupt { what: "head" }),
    }
}

pub(super) fn room_id(text: &str) -> Result<RoomId, RepositoryError> {
    RoomId::parse(text).map_err(|_invalid| RepositoryError::Corrupt { what: "roomId" })
}

pub(super) fn short_id(text: &str) -> Result<ShortId, RepositoryError> {
    ShortId::parse(text).ok_or(RepositoryError::Corrupt { what: "short id" })
}

/// A position is a client's number: SQLite would store NaN as NULL, which the column refuses.
pub(super) fn finite(position: f64) -> f64 {
    if position.is_finite() { position } else { 0.0 }
}

/// The text without U+0000, the one character that PostgreSQL's text can't hold.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into() } else { text.into() }
}

/// Turns the error for a column of another type into [`RepositoryError::Corrupt`].
pub(super) fn corrupt(what: &'static str) -> impl Fn(sqlx::Error) -> RepositoryError {
    move |error| match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => RepositoryError::Corrupt { what },
        error => RepositoryError::Query(error),
    }
}
