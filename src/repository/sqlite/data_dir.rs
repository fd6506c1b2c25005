//! The files of a data directory: their owner, their rights, and the process that has them.
//!
//! They hold hashes of PINs and tokens, so only the server's user may read them (0600). Another user who may write into
//! the directory could put a link there; hence the lock file is opened without following links (`O_NOFOLLOW`), and
//! nothing is written into one that isn't a plain file with a single name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE: u32 = 0o600;

/// Why a data directory is of no use. Each text follows `DATA_DIR=<directory>: `.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("it is a file; name a directory")]
    IsFile,
    #[error("a part of its path is a file")]
    PathHasFile,
    #[error("its path holds a NUL character")]
    PathHasNul,
    #[error("the server's user may not make it: make it and chown it, or name another")]
    ForbiddenToMake,
    #[error("the server's user may not write into it: chown it, or name another")]
    ForbiddenToWrite,
    #[error("its file system is read-only")]
    ReadOnly,
    #[error("it can't be made: {0}")]
    NotMade(#[source] io::Error),
    #[error("{file} can't be opened: {source}")]
    NotOpened { file: &'static str, source: io::Error },
    #[error("{file} is {what}, and would be emptied: remove it")]
    OddFile { file: &'static str, what: &'static str },
}

impl DataDirError {
    fn of_file(file: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            ErrorKind::PermissionDenied => Self::ForbiddenToWrite,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::NotOpened { file, source },
        }
    }
}

/// Makes the directory with mode 0700 if it isn't there. One that exists keeps its rights.
pub(super) fn create_private(dir: &Path) -> Result<(), DataDirError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => DataDirError::IsFile,
        ErrorKind::NotADirectory => DataDirError::PathHasFile,
        ErrorKind::InvalidInput => DataDirError::PathHasNul,
        ErrorKind::PermissionDenied => DataDirError::ForbiddenToMake,
        ErrorKind::ReadOnlyFilesystem => DataDirError::ReadOnly,
        _ => DataDirError::NotMade(error),
    })?;
    let mode = std::fs::metadata(dir).map_err(DataDirError::NotMade)?.permissions().mode();
    if mode & 0o022 != 0 {
        let mode = format!("{:o}", mode & 0o7777);
        tracing::warn!(dir = %dir.display(), mode, "others may write into DATA_DIR: chmod 700");
    }
    Ok(())
}

/// Makes the database's file with mode 0600 if it isn't there; takes the rights of others away from files that are.
/// SQLite gives the files beside it (WAL, shared memory) the rights of the database.
pub(super) fn make_private(database: &Path) -> Result<(), DataDirError> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(database) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(DataDirError::of_file("tandem.db")(error)),
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        let path = Path::new(&path);
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            continue;
        }
        let taken = std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE));
        let (file, was) = (path.display(), format!("{mode:o}"));
        match taken {
            Ok(()) => tracing::warn!(%file, was, "others could read it, hashes of PINs included: now 600"),
            Err(error) => tracing::warn!(%file, was, %error, "others can read it, hashes of PINs included: chmod 600"),
        }
    }
    Ok(())
}

/// An advisory lock (`flock`): one server a data directory. The operating system releases it when its holder dies. The
/// file stays behind: its content is a hint for messages, only the lock counts.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Unlocks explicitly: the lock belongs to the open file description, and a child process that another thread is
    /// about to start has a copy of it until its exec.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// The lock was not taken.
#[derive(Debug)]
pub(super) enum LockRefusal {
    /// Another process has it; what that one left in the file.
    Held(String),
    Unusable(DataDirError),
}

impl DirLock {
    /// Takes the lock, or returns at once.
    pub(super) fn take(path: &Path) -> Result<Self, LockRefusal> {
        let failed = DataDirError::of_file(LOCK_FILE);
        let mut file = open(path).map_err(LockRefusal::Unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Its holder may be writing at this moment: the message then has no process id.
                let _ = file.take(100).read_to_string(&mut holder);
                return Err(LockRefusal::Held(holder.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(LockRefusal::Unusable(failed(error))),
        }
        // On a full disk the lock holds without its hint.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

/// The name of the lock file.
pub(super) const LOCK_FILE: &str = "tandem.lock";

fn open(path: &Path) -> Result<File, DataDirError> {
    let failed = DataDirError::of_file(LOCK_FILE);
    let odd = |what| DataDirError::OddFile { file: LOCK_FILE, what };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(odd("a symbolic link")),
        opened => opened.map_err(&failed)?,
    };
    let metadata = file.metadata().map_err(&failed)?;
    if !metadata.is_file() {
        return Err(odd("no plain file"));
    }
    if metadata.nlink() > 1 {
        return Err(odd("a second name of another file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::DirLock;

    #[test]
    fn a_lock_given_back_is_free_although_a_child_process_about_to_start_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tandem.lock");
        let lock = DirLock::take(&path).unwrap();
        let _copy_of_a_child = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(DirLock::take(&path).is_ok());
    }
}
