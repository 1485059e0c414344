//! What a worker does when there is nothing to do: spin, or sleep until something happens.
//!
//! A sleeping worker waits in one `ppoll` on the descriptors of its ports and on an eventfd that other threads
//! ring through its [`Waker`], until its next deadline. It says that it sleeps *before* it looks for messages a
//! last time, so a message posted in between is never missed (see [`super::mailbox`]).

use super::mailbox::Waker;
use crate::datagram::RawFd;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// What to do when a turn found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdlePolicy {
    /// Look again at once: the lowest latency, a whole core.
    Spin,
    /// Sleep until a frame, a message or a deadline: some microseconds more latency, no core burnt.
    Sleep,
}

impl IdlePolicy {
    /// Below this many cores a spinning worker takes the core that the sender's interrupts, the kernel's share of
    /// the data path and everybody else need.
    const CORES_TO_SPIN: usize = 4;

    /// Sleep below four cores, spin from there on.
    pub fn for_cores(cores: usize) -> IdlePolicy {
        if cores < Self::CORES_TO_SPIN { IdlePolicy::Sleep } else { IdlePolicy::Spin }
    }
}

/// Lets one worker sleep.
#[cfg(target_os = "linux")]
pub struct Sleeper {
    waker: Arc<Waker>,
    bell: Arc<nix::sys::eventfd::EventFd>,
    /// The bell first, then the ports' descriptors.
    fds: Vec<libc::pollfd>,
}

#[cfg(target_os = "linux")]
impl Sleeper {
    /// A sleeper that watches nothing but its bell yet.
    ///
    /// # Errors
    /// When no eventfd can be made (descriptors used up).
    pub fn new() -> io::Result<Sleeper> {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        use std::os::fd::AsRawFd;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let ring = Arc::clone(&bell);
        // A full counter (EAGAIN) means the bell is ringing already.
        let waker = Arc::new(Waker::new(move || {
            let _ = ring.write(1);
        }));
        let fds = vec![pollfd(bell.as_raw_fd())];
        Ok(Sleeper { waker, bell, fds })
    }

    /// How others wake this worker.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Watches `fds` for input, and nothing else any more.
    pub fn watch(&mut self, fds: impl IntoIterator<Item = RawFd>) {
        self.fds.truncate(1);
        self.fds.extend(fds.into_iter().map(pollfd));
    }

    /// Sleeps for at most `ns` nanoseconds, unless `work_waits` finds something after the worker has said that it
    /// sleeps. Returns true when it slept.
    pub fn sleep(&mut self, ns: u64, work_waits: impl FnOnce() -> bool) -> bool {
        self.waker.about_to_sleep();
        if work_waits() {
            self.waker.awake();
            return false;
        }
        let timeout = libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: `fds` is a valid array of its length for the whole call, the timeout outlives it, and no signal mask is
        // given. A stale descriptor gives POLLNVAL, never undefined behaviour.
        let ready = unsafe {
            libc::ppoll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, &timeout, std::ptr::null())
        };
        self.waker.awake();
        if ready > 0 && self.fds[0].revents != 0 {
            // Nonblocking; EAGAIN only means that nobody rang.
            let _ = self.bell.read();
        }
        true
    }
}

#[cfg(target_os = "linux")]
fn pollfd(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Lets one worker sleep: here only by time, a millisecond at most, since there is nothing portable to wait on.
#[cfg(not(target_os = "linux"))]
pub struct Sleeper {
    waker: Arc<Waker>,
}

#[cfg(not(target_os = "linux"))]
impl Sleeper {
    /// A sleeper.
    ///
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Sleeper> {
        Ok(Sleeper { waker: Arc::new(Waker::new(|| ())) })
    }

    /// How others wake this worker.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Descriptors cannot be watched here.
    pub fn watch(&mut self, _fds: impl IntoIterator<Item = RawFd>) {}

    /// Sleeps for at most `ns` nanoseconds or a millisecond, whichever is less.
    pub fn sleep(&mut self, ns: u64, work_waits: impl FnOnce() -> bool) -> bool {
        if work_waits() {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_nanos(ns.min(1_000_000)));
        true
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    const LONG: u64 = 30_000_000_000;

    #[test]
    fn the_default_sleeps_on_a_small_machine() {
        assert_eq!(IdlePolicy::for_cores(2), IdlePolicy::Sleep);
        assert_eq!(IdlePolicy::for_cores(4), IdlePolicy::Spin);
    }

    #[test]
    fn work_that_came_before_the_sleep_prevents_it() {
        let mut sleeper = Sleeper::new().unwrap();
        assert!(!sleeper.sleep(LONG, || true));
    }

    #[test]
    fn a_bell_rung_between_the_last_look_and_the_sleep_ends_it() {
        let mut sleeper = Sleeper::new().unwrap();
        let waker = Arc::clone(sleeper.waker());
        let begun = Instant::now();
        assert!(sleeper.sleep(LONG, || {
            waker.notify();
            false
        }));
        assert!(begun.elapsed() < Duration::from_nanos(LONG));
        // The bell was taken down: the next sleep lasts its time.
        let begun = Instant::now();
        sleeper.sleep(5_000_000, || false);
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn another_thread_and_a_descriptor_end_a_sleep() {
        let mut sleeper = Sleeper::new().unwrap();
        let waker = Arc::clone(sleeper.waker());
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.notify();
        });
        let begun = Instant::now();
        sleeper.sleep(LONG, || false);
        ringer.join().unwrap();
        let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        sleeper.watch([ours.as_raw_fd()]);
        (&theirs).write_all(b"x").unwrap();
        sleeper.sleep(LONG, || false);
        assert!(begun.elapsed() < Duration::from_nanos(LONG));
    }
}
