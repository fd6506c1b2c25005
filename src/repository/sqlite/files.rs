//! The files of a data directory: whose they are, who may read them, and which process has them.
//!
//! They hold hashes of PINs and tokens, so they are the server's own (0600). A directory that others may write to is not safe: a
//! file in it may be a link that somebody else put there. Hence the lock file is opened without following links (`O_NOFOLLOW`), and
//! nothing is written into one that is no plain file of its own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE: u32 = 0o600;

/// Makes the directory, ours alone, if it isn't there. One that exists keeps its rights.
pub(super) fn create_private(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o022 != 0 {
        let mode = format!("{:o}", mode & 0o7777);
        tracing::warn!(dir = %dir.display(), mode, "others may write into DATA_DIR: chmod 700");
    }
    Ok(())
}

/// Makes the database's file if it isn't there, so that it never is anybody else's to read; takes the rights of others away from
/// those that are. SQLite gives the files beside it (WAL, shared memory) the rights of the database.
pub(super) fn make_private(database: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(database) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
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

/// One server a data directory: an advisory lock that the operating system gives back when its holder dies. Held as long as
/// the repository is open. The file stays behind, empty of meaning: only the lock counts.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Unlocked, not only closed: the lock is the open file description's, and a child process that another thread is
    /// about to start has a copy of it until its exec.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody holds it; the text it left, if any.
    Held(String),
    /// The file can't be opened or locked.
    Io(io::Error),
}

impl DirLock {
    /// Takes the lock, or says at once who has it.
    pub(super) fn take(path: &Path) -> Result<Self, Refused> {
        let mut file = open(path).map_err(Refused::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: the holder may be writing it this moment.
                let _ = file.take(100).read_to_string(&mut holder);
                return Err(Refused::Held(holder.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(Refused::Io(error)),
        }
        // For the message of the next one who tries; on a full disk the lock holds without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
    let wrong = |what| io::Error::other(format!("it is {what}, and would be emptied: remove it"));
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(wrong("a symbolic link")),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(wrong("no plain file"));
    }
    if metadata.nlink() > 1 {
        return Err(wrong("a second name of another file"));
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
