//! What a machine has but once, for tests that change it: one at a time, in whichever process.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;

/// A test's turn, until it is dropped; the kernel ends it with the process.
#[derive(Debug)]
pub struct Turn {
    _locked: Flock<File>,
}

/// Waits until no other test changes `what`: a word, as in "huge-pages".
///
/// # Panics
/// When the directory for temporary files cannot be written to.
#[must_use]
pub fn turn_at(what: &str) -> Turn {
    let path = std::env::temp_dir().join(format!("volley-test-{what}.lock"));
    // Never removed: who waits for it would then wait for another file than the next.
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(locked) => Turn { _locked: locked },
        Err((_, errno)) => panic!("{}: {errno}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time() {
        let inside = AtomicU32::new(0);
        let what = format!("turn-{}", std::process::id());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = turn_at(&what);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        std::fs::remove_file(std::env::temp_dir().join(format!("volley-test-{what}.lock"))).unwrap();
    }
}
