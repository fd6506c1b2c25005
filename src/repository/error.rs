//! What a repository answers when it can't do what it was asked.

use std::path::Path;
use std::time::Duration;

use super::sqlite::DataDirError;

/// Each text is one line that an operator can act on; `place` is the file, or the database and host without
/// credentials.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("can't open the database {place}: {source}")]
    Open { place: String, source: sqlx::Error },
    #[error("DATA_DIR={dir}: {problem}")]
    DataDir { dir: String, problem: DataDirError },
    /// SQLITE_CORRUPT, SQLITE_NOTADB.
    #[error(
        "the database {place} is damaged ({source}): restore a backup of it, or move it away with its -wal and -shm \
         and start with an empty one"
    )]
    Damaged { place: String, source: sqlx::Error },
    /// SQLITE_FULL, SQLITE_IOERR: nothing of the batch was stored, and nothing that was stored is lost.
    #[error("the disk takes no more of {place}: {source}")]
    Full { place: String, source: sqlx::Error },
    #[error(
        "the database {place} is in use by another tandem (process {holder}): stop that one, or set another DATA_DIR"
    )]
    InUse { place: String, holder: String },
    /// It is down, out of reach, or overloaded.
    #[error("the database {place} did not answer within {after:?}")]
    Silent { place: String, after: Duration },
    #[error("the database {place} has schema version {found}, which this tandem does not know: run the newer one")]
    Newer { place: String, found: i64 },
    #[error("can't migrate the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("database: {0}")]
    Query(#[from] sqlx::Error),
    /// Every short id that was drawn was taken.
    #[error("no short id is free")]
    ShortIds,
    /// A stored value is not what this version writes.
    #[error("the database holds a {what} that can't be read")]
    Corrupt { what: &'static str },
}

impl RepositoryError {
    /// The directory in one line, whatever characters its name has.
    pub(super) fn data_dir(dir: &Path, problem: DataDirError) -> Self {
        let plain = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
        Self::DataDir { dir: dir.to_string_lossy().chars().map(plain).collect(), problem }
    }
}
