//! A lock file with the pid of its holder. The kernel releases it with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How often a lock that another process holds is tried again. Writers hold theirs for milliseconds.
const RETRY: Duration = Duration::from_millis(2);

/// A held lock. Dropping it releases it and removes the file.
#[derive(Debug)]
pub(crate) struct PidLock {
    file: Flock<File>,
    path: PathBuf,
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another holder is alive; its pid unless it is just writing it.
    Held { pid: Option<u32> },
    /// The file cannot be used.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> LockError {
        LockError::Io(error)
    }
}

impl PidLock {
    /// Takes the lock at once or not at all.
    pub(crate) fn try_take(path: &Path) -> Result<PidLock, LockError> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(LockError::Held { pid: read_pid(&mut file) });
                }
                Err((_, errno)) => return Err(LockError::Io(errno.into())),
            };
            // The previous holder may have removed the file between our open and our lock: then what is locked
            // here is not what the next process will find.
            if !std::fs::metadata(path)
                .is_ok_and(|named| named.ino() == file.metadata().map_or(0, |m| m.ino()))
            {
                continue;
            }
            file.set_len(0)?;
            file.rewind()?;
            writeln!(*file, "{}", std::process::id())?;
            return Ok(PidLock { file, path: path.to_owned() });
        }
    }

    /// Takes the lock, waiting for up to `patience`.
    pub(crate) fn take(path: &Path, patience: Duration) -> Result<PidLock, LockError> {
        let begin = Instant::now();
        loop {
            match PidLock::try_take(path) {
                Err(LockError::Held { .. }) if begin.elapsed() < patience => std::thread::sleep(RETRY),
                outcome => return outcome,
            }
        }
    }

    /// The pid of the live holder of a lock, 0 when it cannot be told; `None` when nobody holds it.
    pub(crate) fn holder(path: &Path) -> Option<u32> {
        let file = OpenOptions::new().read(true).open(path).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((mut file, Errno::EWOULDBLOCK)) => Some(read_pid(&mut file).unwrap_or(0)),
            _ => None,
        }
    }
}

impl Drop for PidLock {
    fn drop(&mut self) {
        // Removed while still held, see try_take. A read-only file system leaves the file; it is then stale.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.flush();
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("volley-lock-{}-{name}", std::process::id()))
    }

    #[test]
    fn one_holder_at_a_time_named_by_pid() {
        let path = path("one");
        let lock = PidLock::try_take(&path).unwrap();
        assert_eq!(PidLock::holder(&path), Some(std::process::id()));
        match PidLock::take(&path, Duration::from_millis(10)) {
            Err(LockError::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert!(!path.exists());
        assert_eq!(PidLock::holder(&path), None);
    }

    #[test]
    fn what_a_killed_process_left_is_nobodys() {
        let path = path("stale");
        std::fs::write(&path, "4194999\n").unwrap();
        assert_eq!(PidLock::holder(&path), None);
        let _lock = PidLock::try_take(&path).unwrap();
        assert_eq!(PidLock::holder(&path), Some(std::process::id()));
    }
}
