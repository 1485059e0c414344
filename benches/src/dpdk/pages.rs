//! Huge pages for a run: as many as it needs are there while it lasts, and the numbers are what they were before when it ends.
//!
//! The kernel has one pool for everybody. Whoever else takes pages meanwhile (each AF_XDP engine and generator asks for some) must not
//! take ours, so the kernel is also allowed to make as many more (`nr_overcommit_hugepages`). And whoever else changes the numbers
//! must find its change there, so ours is a difference: added at the beginning, taken off at the end.
//!
//! ```text
//!   /run/volley/huge-pages/PID   what this run has added; locked while it lives
//! ```
//!
//! A run that was killed leaves its note behind, unlocked: the next one takes off what that says.

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Reserved pages; dropped, they are given back.
#[derive(Debug)]
pub struct HugePages {
    pool: Pool,
    share: Share,
    note: PathBuf,
    _alive: Flock<File>,
}

/// What a run has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// How many pages the kernel kept before.
    before: u64,
    reserved: u64,
    overcommit: u64,
}

impl HugePages {
    /// Sees to it that `wanted` pages of 2 MiB are free, and stay to be had.
    pub fn reserve(wanted: u64) -> Result<HugePages> {
        Pool::of_this_machine().reserve(wanted, std::process::id())
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let given_back = self.pool.alone().and_then(|_alone| {
            self.pool.change(|now| now.saturating_sub(self.share.reserved), self.share.overcommit)?;
            Ok(fs::remove_file(&self.note)?)
        });
        if let Err(error) = given_back {
            eprintln!(
                "volley-bench: {} huge pages more than before are reserved: {error:#}",
                self.share.reserved
            );
        }
    }
}

/// The kernel's pool, and the notes of who has added to it.
#[derive(Clone, Debug)]
struct Pool {
    /// How many pages of 2 MiB the kernel shall keep.
    reserved: PathBuf,
    /// How many it does keep: the same file, which says less when there is not enough memory.
    kept: PathBuf,
    /// How many more it may make when somebody asks.
    overcommit: PathBuf,
    /// How many of those it keeps nobody uses.
    free: PathBuf,
    /// Written to, the kernel makes large pieces of free memory.
    compact: PathBuf,
    notes: PathBuf,
}

impl Pool {
    fn of_this_machine() -> Pool {
        let sizes = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
        Pool {
            // Not the file beside the others, which counts pages that were made for somebody as well.
            reserved: "/proc/sys/vm/nr_hugepages".into(),
            kept: "/proc/sys/vm/nr_hugepages".into(),
            overcommit: sizes.join("nr_overcommit_hugepages"),
            free: sizes.join("free_hugepages"),
            compact: "/proc/sys/vm/compact_memory".into(),
            notes: "/run/volley/huge-pages".into(),
        }
    }

    fn reserve(self, wanted: u64, process: u32) -> Result<HugePages> {
        let alone = self.alone()?;
        let others = self.sweep()?;
        let (before, free) = (read(&self.reserved)?, read(&self.free)?);
        // What another run has reserved may still be free: it is not for us.
        let reserved = if others { wanted } else { wanted.saturating_sub(free) };
        let share = Share { before, reserved, overcommit: wanted };
        let note = self.notes.join(process.to_string());
        let mut alive = lock(File::create(&note).with_context(|| note.display().to_string())?)?;
        alive.write_all(share.to_text().as_bytes())?;
        // From here on, dropping gives back.
        let pages = HugePages { share, note, _alive: alive, pool: self };
        let missing = pages.pool.add(before + reserved, wanted);
        // Before anything is given back, which waits for it.
        drop(alone);
        let missing = missing?;
        ensure!(
            missing == 0,
            "{wanted} huge pages of 2 MiB are needed, and the kernel found {}: memory is in use or in pieces; \
             reserve them at boot (hugepages={wanted}), or end what uses memory",
            wanted.saturating_sub(missing)
        );
        Ok(pages)
    }

    /// Has the kernel keep `reserved` pages, and lets it make `overcommit` more. Says how many it did not find. (Not how many are
    /// free: others may have taken some by now, and have left ours to be made.)
    fn add(&self, reserved: u64, overcommit: u64) -> Result<u64> {
        write(&self.overcommit, read(&self.overcommit)? + overcommit)?;
        self.change(|_| reserved, 0)?;
        let missing = || Ok(reserved.saturating_sub(read(&self.kept)?));
        if missing()? > 0 && self.compact.exists() {
            // Memory in pieces, as after a build: the kernel puts it together, and is asked once more.
            write(&self.compact, 1)?;
            self.change(|_| reserved, 0)?;
        }
        missing()
    }

    /// Waits until no other run changes anything; it is so until what it gives is dropped.
    fn alone(&self) -> Result<Flock<File>> {
        fs::create_dir_all(&self.notes).with_context(|| self.notes.display().to_string())?;
        lock(File::open(&self.notes)?)
    }

    /// Gives back what killed runs have not. True when another run lives.
    fn sweep(&self) -> Result<bool> {
        let mut others = false;
        for note in fs::read_dir(&self.notes)? {
            let path = note?.path();
            let Ok(mut file) = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock) else {
                others = true;
                continue;
            };
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            if let Some(Share { before, reserved, overcommit }) = Share::of_text(&text) {
                // It may have been killed before it added anything.
                self.change(|now| now.saturating_sub(reserved).max(before.min(now)), overcommit)?;
            }
            fs::remove_file(&path)?;
        }
        Ok(others)
    }

    /// Sets the number of pages kept, and takes `overcommit` off that of pages to be made.
    fn change(&self, reserved: impl FnOnce(u64) -> u64, overcommit: u64) -> Result<()> {
        let (now, may) = (read(&self.reserved)?, read(&self.overcommit)?);
        let wished = reserved(now);
        if wished != now {
            write(&self.reserved, wished)?;
        }
        if overcommit > 0 {
            write(&self.overcommit, may.saturating_sub(overcommit))?;
        }
        Ok(())
    }
}

impl Share {
    fn to_text(self) -> String {
        format!("{} {} {}\n", self.before, self.reserved, self.overcommit)
    }

    /// `None` when its writer was killed before it had written it.
    fn of_text(text: &str) -> Option<Share> {
        let numbers: Vec<u64> =
            text.strip_suffix('\n')?.split(' ').map_while(|word| word.parse().ok()).collect();
        let [before, reserved, overcommit] = numbers[..] else { return None };
        Some(Share { before, reserved, overcommit })
    }
}

fn lock(file: File) -> Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn read(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{}: this kernel has no huge pages of 2 MiB", path.display()))?;
    text.trim().parse().with_context(|| format!("{} says {text:?}", path.display()))
}

fn write(path: &Path, pages: u64) -> Result<()> {
    fs::write(path, pages.to_string())
        .with_context(|| format!("huge pages cannot be reserved in {}: run as root", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of files, in which as many pages are free as it says.
    fn pool(directory: &Path, [reserved, overcommit, free]: [u64; 3]) -> Pool {
        let file = |name: &str, pages: u64| {
            let path = directory.join(name);
            fs::write(&path, pages.to_string()).unwrap();
            path
        };
        Pool {
            reserved: file("reserved", reserved),
            kept: directory.join("reserved"),
            overcommit: file("overcommit", overcommit),
            free: file("free", free),
            compact: directory.join("compact"),
            notes: directory.join("notes"),
        }
    }

    fn numbers(pool: &Pool) -> [u64; 2] {
        [&pool.reserved, &pool.overcommit].map(|path| read(path).unwrap())
    }

    #[test]
    fn runs_beside_each_other_leave_the_numbers_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(directory.path(), [10, 2, 300]);
        let first = pool.clone().reserve(256, 1).unwrap();
        assert_eq!(numbers(&pool), [10, 258], "enough are free");
        let second = pool.clone().reserve(100, 2).unwrap();
        assert_eq!(numbers(&pool), [110, 358], "those that are free may be the first one's");
        // Somebody else's change stays.
        write(&pool.reserved, 120).unwrap();
        drop(first);
        assert_eq!(numbers(&pool), [120, 102]);
        drop(second);
        assert_eq!(numbers(&pool), [20, 2]);
        assert_eq!(fs::read_dir(&pool.notes).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_has_added_is_taken_off_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(directory.path(), [266, 256, 300]);
        fs::create_dir(&pool.notes).unwrap();
        let note = |name: &str, text: &str| fs::write(pool.notes.join(name), text).unwrap();
        note("11", "10 256 256\n");
        note("12", "10 2");
        drop(pool.clone().reserve(300, 1).unwrap());
        assert_eq!((numbers(&pool), fs::read_dir(&pool.notes).unwrap().count()), ([10, 0], 0));
        // Killed before it had added anything.
        note("13", "10 256 0\n");
        drop(pool.clone().reserve(300, 1).unwrap());
        assert_eq!(numbers(&pool), [10, 0]);
    }

    #[test]
    fn too_few_are_said_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(directory.path(), [0, 0, 3]);
        let short = Pool { kept: directory.path().join("kept"), ..pool.clone() };
        write(&short.kept, 200).unwrap();
        let text = short.reserve(256, 1).unwrap_err().to_string();
        assert!(text.contains("256 huge pages") && text.contains("found 203"), "{text}");
        assert_eq!(numbers(&pool), [0, 0]);
    }

    #[test]
    fn pages_that_others_take_meanwhile_are_not_missed() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(directory.path(), [0, 0, 0]);
        let pages = pool.clone().reserve(256, 1).unwrap();
        assert_eq!(numbers(&pool), [256, 256], "as many are kept, and may be made, though none is free");
        drop(pages);
    }
}
