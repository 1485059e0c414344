//! The io_uring that the datagram port and the stream port stand on: a ring set up, requests in, completions out.
//!
//! The ring is deferred (IORING_SETUP_DEFER_TASKRUN): the kernel does its part of the work when the worker enters it, and says
//! in shared memory whether there is any, so that an idle worker that spins makes no system call at all. With SQPOLL a kernel
//! thread does that part instead.
//!
//! A worker that sleeps has to be told, and poll(2) on the ring's descriptor does not: it sees work that is there when it is called,
//! but new work wakes nobody. An eventfd registered with the ring does. It is silent until `Ring::before_sleep`, so that a busy
//! worker does not pay for it.
//!
//! It is made disabled and enabled by the first thread that uses it, the worker's, which it then belongs to (single issuer): ports
//! are opened on one thread and driven on another.
//!
//! What a request is for, and what its completion means, is its owner's business: here it is a number of 64 bits.

mod buffers;

pub(crate) use buffers::BufferRing;

use io_uring::{IoUring, squeue, types};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

/// io_uring_enter(2): do what is to be done on this thread.
const IORING_ENTER_GETEVENTS: u32 = 1;
/// A polling kernel thread sleeps after so many ms without work. Shorter makes wake-ups (system calls) of every pause, longer
/// burns its core.
const SQPOLL_IDLE_MS: u32 = 50;
/// What cancelling may take: it waits for nothing but the kernel itself.
const CANCEL_S: u64 = 2;

/// The kernel refuses io_uring, or is too old for what it is needed for.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring: {call}: {errno}: it needs Linux 6.1 and sysctl kernel.io_uring_disabled = 0 (1 with privilege), and containers \
     often forbid it"
)]
pub struct UringError {
    /// The call.
    pub call: &'static str,
    /// What it failed with.
    pub errno: io::Error,
}

fn refused(call: &'static str) -> impl Fn(io::Error) -> UringError {
    move |errno| UringError { call, errno }
}

/// A ring.
pub(crate) struct Ring {
    ring: IoUring,
    /// Rung by the kernel for a worker that sleeps.
    bell: EventFd,
    /// The bell may ring.
    sleeping: bool,
    sqpoll: bool,
    enabled: bool,
    /// Descriptors are registered with it.
    files: bool,
}

impl Ring {
    /// A disabled ring of `entries` requests and room for `completions`.
    pub fn new(entries: u32, completions: u32, sqpoll: bool) -> Result<Ring, UringError> {
        let mut builder = IoUring::builder();
        let entries = entries.next_power_of_two();
        builder.setup_cqsize(completions.next_power_of_two().max(2 * entries));
        builder.setup_r_disabled().setup_single_issuer().setup_submit_all();
        match sqpoll {
            true => builder.setup_sqpoll(SQPOLL_IDLE_MS),
            false => builder.setup_defer_taskrun().setup_taskrun_flag(),
        };
        let mut ring = builder.build(entries).map_err(refused("io_uring_setup"))?;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell =
            EventFd::from_value_and_flags(0, flags).map_err(|errno| refused("eventfd")(errno.into()))?;
        ring.completion().disable_eventfd();
        ring.submitter().register_eventfd(bell.as_raw_fd()).map_err(refused("registering an eventfd"))?;
        Ok(Ring { ring, bell, sleeping: false, sqpoll, enabled: false, files: false })
    }

    /// Registers `sockets`: requests name them by their index, and no reference is counted in each.
    pub fn register_files(&mut self, sockets: &[RawFd]) -> Result<(), UringError> {
        self.ring.submitter().register_files(sockets).map_err(refused("registering the sockets"))?;
        self.files = true;
        Ok(())
    }

    /// Registers memory to send from; returns the index of the registered buffer.
    ///
    /// # Safety
    /// It outlives every request that names it.
    pub unsafe fn register_memory(&self, memory: NonNull<u8>, bytes: usize) -> io::Result<u16> {
        let vector = libc::iovec { iov_base: memory.as_ptr().cast(), iov_len: bytes };
        // SAFETY: promised by the caller.
        unsafe { self.ring.submitter().register_buffers(&[vector]) }.map(|()| 0)
    }

    /// Readable when there is something to do, after [`Ring::before_sleep`].
    pub fn raw(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Has the kernel ring the bell from now on, until the ring is looked at again. True when there is something to do already,
    /// for which it does not ring.
    pub fn before_sleep(&mut self) -> bool {
        self.awake();
        self.sleeping = true;
        self.ring.completion().enable_eventfd();
        // Either the kernel sees that the bell may ring, or we see the work it has just added.
        fence(Ordering::SeqCst);
        self.has_pending() || !self.ring.completion().is_empty()
    }

    /// Silences the bell.
    #[inline]
    fn awake(&mut self) {
        if self.sleeping {
            self.sleeping = false;
            self.ring.completion().disable_eventfd();
            // EAGAIN: it was not rung.
            let _ = self.bell.read();
        }
    }

    /// Queues a request. False when the queue is full: [`Ring::enter`] makes room.
    ///
    /// # Safety
    /// What the entry points to stays as it is until the request's last completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: promised by the caller.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// True when requests wait to be submitted.
    pub fn has_submissions(&mut self) -> bool {
        self.unsubmitted() > 0
    }

    /// Requests that wait to be submitted: the ones queued last.
    pub fn unsubmitted(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// True when entering the kernel would get something done.
    pub fn has_work(&mut self) -> bool {
        self.awake();
        self.has_pending()
    }

    #[inline]
    fn has_pending(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Submits what waits and lets the kernel do its part, without waiting. True when that took a system call.
    ///
    /// Failures pass: EINTR and EAGAIN by themselves, EBUSY once completions were taken; what was not submitted stays queued.
    pub fn enter(&mut self) -> bool {
        self.awake();
        self.enable();
        let (submissions, asleep) = {
            let mut queue = self.ring.submission();
            queue.sync();
            (queue.len() as u32, queue.need_wakeup())
        };
        if self.sqpoll {
            return asleep && self.ring.submit().is_ok();
        }
        // SAFETY: no argument, and the flag asks for nothing but to run what is due.
        let _ = unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(submissions, 0, IORING_ENTER_GETEVENTS, None)
        };
        true
    }

    fn enable(&mut self) {
        if !std::mem::replace(&mut self.enabled, true) {
            let enabled = self.ring.submitter().register_enable_rings();
            debug_assert!(enabled.is_ok(), "a disabled ring of ours can be enabled: {enabled:?}");
            // Saves looking the descriptor up in each call; without it everything works all the same.
            let _ = self.ring.submitter().register_ring_fd();
        }
    }

    /// Hands out every completion there is: the request's number, result, flags.
    pub fn completions(&mut self, mut each: impl FnMut(u64, i32, u32)) {
        for entry in self.ring.completion() {
            each(entry.user_data(), entry.result(), entry.flags());
        }
    }

    /// Ends every request, waits for that, and lets go of the sockets: a ring is taken apart some time after it was closed, and
    /// would keep their ports until then. False when it could not: then the kernel may still use what requests point to.
    pub fn cancel_all(&mut self) -> bool {
        let timeout = types::Timespec::new().sec(CANCEL_S);
        let cancel = types::CancelBuilder::any();
        let cancelled = !self.enabled
            || match self.ring.submitter().register_sync_cancel(Some(timeout), cancel) {
                Ok(()) => true,
                // There was none.
                Err(error) => error.raw_os_error() == Some(libc::ENOENT),
            };
        if cancelled && self.enabled {
            // Requests give their sockets back when their completions are delivered.
            self.enter();
        }
        cancelled && (!self.files || self.ring.submitter().unregister_files().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// Pairs of sockets, the first of each watched by `ring` for something to read.
    fn watched(ring: &mut Ring, count: u64) -> Vec<(UnixStream, UnixStream)> {
        let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
        for (number, (ours, _)) in pairs.iter().enumerate() {
            let entry = opcode::PollAdd::new(types::Fd(ours.as_raw_fd()), libc::POLLIN as u32).build();
            // SAFETY: the request points to nothing.
            assert!(unsafe { ring.push(&entry.user_data(number as u64)) });
        }
        ring.enter();
        pairs
    }

    fn take(ring: &mut Ring) -> usize {
        let mut count = 0;
        ring.completions(|_, _, _| count += 1);
        count
    }

    #[test]
    fn work_that_the_kernel_keeps_back_is_announced() {
        let mut ring = Ring::new(128, 256, false).unwrap();
        let pairs = watched(&mut ring, 100);
        assert!(!ring.before_sleep(), "nothing is there to read");
        pairs.iter().for_each(|(_, theirs)| drop((&*theirs).write_all(b"x")));
        // It does some 20 pieces of deferred work when it is entered (IO_LOCAL_TW_DEFAULT_MAX), and says that there is more.
        let mut seen = 0;
        while ring.has_work() {
            ring.enter();
            seen += take(&mut ring);
            assert!(seen == 100 || ring.before_sleep(), "{seen} of 100, and no word of the rest");
        }
        assert_eq!(seen, 100);
    }

    #[test]
    fn the_bell_rings_for_a_sleeper_and_for_nobody_else() {
        let mut ring = Ring::new(8, 16, false).unwrap();
        let pairs = watched(&mut ring, 2);
        let rung = |ring: &Ring, ms| {
            let mut bell = libc::pollfd { fd: ring.raw(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid entry, which outlives the call.
            (unsafe { libc::poll(&raw mut bell, 1, ms) }) == 1
        };
        (&pairs[0].1).write_all(b"x").unwrap();
        assert!(ring.has_work() && !rung(&ring, 0), "it was awake");
        ring.enter();
        assert_eq!(take(&mut ring), 1);

        assert!(!ring.before_sleep());
        let theirs = pairs[1].1.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            (&theirs).write_all(b"x").unwrap();
        });
        assert!(rung(&ring, 30_000), "it slept on");
        writer.join().unwrap();
        assert!(ring.has_work() && !rung(&ring, 0), "the bell was taken down");
        ring.enter();
        assert_eq!(take(&mut ring), 1);
    }

    #[test]
    fn a_refusal_names_the_call_and_the_way_out() {
        let mut ring = Ring::new(8, 16, false).unwrap();
        let error = ring.register_files(&[-7]).unwrap_err().to_string();
        assert!(
            error.contains("registering the sockets") && error.contains("kernel.io_uring_disabled"),
            "{error}"
        );
    }
}
