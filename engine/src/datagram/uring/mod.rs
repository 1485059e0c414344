//! io_uring: one ring for everything, and at most one system call a burst, both ways together.
//!
//! ```text
//!   pool ──post──► buffer ring ──► kernel: multishot receive, one request a socket, for ever
//!    ▲                                 │ completion: buffer number, length, address
//!    │                                 ▼
//!    └── settle ◄── app ◄── open ◄── arrivals            frames are the buffers: nothing is copied on this side
//!         │ answer
//!         └──► slot ── submission ──► kernel ── completion ──► frame back to the pool
//! ```
//!
//! What is registered once: the sockets (no reference count a call), the buffer ring (no buffer per request), the ring's own
//! descriptor, and with zero-copy sending the frames' memory (no page pinning a datagram).
//!
//! The ring itself is [`crate::uring`]'s. A datagram is offered to the kernel without waiting (MSG_DONTWAIT), so that back-pressure
//! is the port's, as under every model. Such a send is over, one way or the other, when it has been submitted; so only one that
//! failed has a completion, and what a submission took without one has been sent. (Not under SQPOLL, where the kernel's thread
//! submits at its own time, and not for zero-copy sends, which end later.)

mod buffers;
mod requests;
mod slots;
mod zero_copy;

use super::RawFd;
use super::socket::{Arrived, Bound, Completed, Completion, Model, Out, RECEIVE_PREFIX, Sent};
use super::socket::{Socket, SocketConfig, SocketError, drops, is_blocked, received_in};
use crate::frame::{BURST, Burst, Frame, FramePool};
use crate::port::PortStats;
use buffers::Buffers;
use io_uring::cqueue;
use requests::{Requests, Tag};
use slots::Slots;
use std::collections::VecDeque;
use std::net::SocketAddr;
use zero_copy::ZeroCopy;

/// Buffers posted for receive, a power of two. A burst in the app, and two more arriving; fewer would end the multishot request
/// (ENOBUFS) while the worker is busy, more would touch more memory in turn.
const POSTED: u16 = 256;
/// Datagrams on their way out at once: four bursts, which only SQPOLL and zero-copy sending ever reach.
const SLOTS: u16 = 256;

/// The io_uring model.
pub struct Uring {
    requests: Requests,
    sockets: Vec<Socket>,
    /// The multishot receive of each socket is with the kernel.
    receiving: Vec<bool>,
    buffers: Buffers,
    slots: Slots,
    arrivals: VecDeque<Arrival>,
    /// Slots whose send has completed, and how.
    completed: VecDeque<(u16, i32)>,
    /// Slots whose send completes by being submitted, in that order.
    submitting: VecDeque<u16>,
    /// Sends that succeed have a completion, too: the kernel's thread submits.
    sqpoll: bool,
    zero_copy: ZeroCopy,
    /// Index of the registered buffer that is the frames' memory.
    fixed: Option<u16>,
    /// There was no room to send, and we are to be told when there is.
    waiting_for_room: bool,
    stopped: bool,
    closed: bool,
    failure: Option<String>,
}

/// A datagram in a buffer.
struct Arrival {
    socket: u16,
    buffer: u16,
    len: usize,
}

impl Model for Uring {
    const PREFIX: u32 = RECEIVE_PREFIX as u32;

    fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError> {
        let sockets = Socket::open_all(addresses, false, config)?;
        let descriptors: Vec<RawFd> = sockets.iter().map(Socket::raw).collect();
        let entries = u32::from(SLOTS) + 2 * sockets.len() as u32;
        let requests =
            Requests::new(entries, u32::from(POSTED) + 2 * entries, &descriptors, config.sqpoll)?;
        let buffers = Buffers::new(&requests.ring, POSTED)?;
        Ok(Uring {
            receiving: vec![false; sockets.len()],
            arrivals: VecDeque::with_capacity(usize::from(POSTED)),
            completed: VecDeque::with_capacity(usize::from(SLOTS)),
            submitting: VecDeque::with_capacity(usize::from(SLOTS)),
            sqpoll: config.sqpoll,
            slots: Slots::new(SLOTS),
            buffers,
            sockets,
            requests,
            zero_copy: ZeroCopy::new(config.zero_copy_from),
            fixed: None,
            waiting_for_room: false,
            stopped: false,
            closed: false,
            failure: None,
        })
    }

    fn name(&self) -> &'static str {
        "io-uring"
    }

    fn bound(&self) -> Vec<Bound> {
        self.sockets.iter().map(|socket| socket.bound.clone()).collect()
    }

    fn frames(&self) -> u32 {
        u32::from(POSTED) + u32::from(SLOTS)
    }

    fn adopt(&mut self, pool: &mut FramePool) -> Result<(), SocketError> {
        if self.zero_copy.is_on() {
            match self.requests.register_frames(pool) {
                Ok(index) => self.fixed = Some(index),
                // It only saves pinning the pages of each datagram; RLIMIT_MEMLOCK may not allow it.
                Err(error) => {
                    log::warn!("io_uring: frames are not registered, zero-copy sends pin them: {error}")
                }
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) {
        if self.arrivals.is_empty() && !self.stopped {
            self.arm(pool);
            if self.requests.ring.has_work() {
                self.enter(stats);
            }
        }
        while !frames.is_full()
            && let Some(Arrival { socket, buffer, len }) = self.arrivals.pop_front()
        {
            let mut frame = self.buffers.take(buffer);
            let (payload, what) = received_in(&mut frame, len, &self.sockets[usize::from(socket)]);
            let fits = frame.set_range(RECEIVE_PREFIX, payload);
            debug_assert!(fits, "the kernel writes no more than the buffer it was given");
            frame.set_queue(socket);
            arrived[frames.len()] = what;
            frames.push(frame);
        }
        if !self.stopped {
            self.buffers.post_all(pool);
        }
    }

    fn transmit(
        &mut self,
        out: &[Out<'_>],
        stats: &mut PortStats,
        mut done: impl FnMut(usize, Sent),
    ) -> usize {
        if self.waiting_for_room {
            return 0;
        }
        for (index, datagram) in out.iter().enumerate() {
            let Some(number) = self.slots.take() else { return index };
            let zero_copy = self.zero_copy.wants(datagram.bytes.len());
            self.slots.prepare(
                number,
                &self.sockets[usize::from(datagram.socket)].bound,
                datagram,
                zero_copy,
            );
            if !self.push_send(number) {
                self.slots.release(number);
                return index;
            }
            stats.tx_frames += 1;
            done(index, Sent::Kept(number));
        }
        out.len()
    }

    fn keep(&mut self, slot: u16, frame: Frame) {
        self.slots.keep(slot, frame);
    }

    fn submit(&mut self, stats: &mut PortStats) {
        if self.requests.ring.has_submissions() {
            self.enter(stats);
        }
    }

    fn reap(
        &mut self,
        pool: &mut FramePool,
        stats: &mut PortStats,
        mut done: impl FnMut(&mut FramePool, Completion),
    ) {
        self.collect();
        while let Some((number, result)) = self.completed.pop_front() {
            let failed = result < 0 && !is_blocked(-result);
            let unable = matches!(-result, libc::EINVAL | libc::EOPNOTSUPP);
            if unable && self.slots.message(number).zero_copy {
                self.zero_copy.was_in_vain();
            }
            // An ICMP answer to an earlier datagram is reported by the next call: so once more, and copied.
            if failed && self.slots.retry(number) && self.push_send(number) {
                self.enter(stats);
                continue;
            }
            let result = match result {
                0.. => Completed::Sent,
                _ if failed => Completed::Refused,
                _ => Completed::Blocked,
            };
            stats.tx_completed += u64::from(result == Completed::Sent);
            done(pool, self.slots.finish(number, result));
        }
    }

    fn in_kernel(&self) -> (u64, u64) {
        (self.buffers.posted(), self.slots.in_use())
    }

    fn has_arrived(&self) -> bool {
        !self.arrivals.is_empty()
    }

    fn watch(&mut self, datagrams: bool, room: bool) {
        if !datagrams && !std::mem::replace(&mut self.stopped, true) {
            for (socket, receiving) in self.receiving.iter().enumerate() {
                if *receiving {
                    self.requests.cancel(Tag::Receive(socket as u16));
                }
            }
        }
        if room && !self.waiting_for_room {
            // Only on a socket that has no room; one that has says so at once, and all are tried again.
            self.waiting_for_room = (0..self.sockets.len()).all(|socket| self.requests.room(socket as u16));
        }
    }

    fn drops(&self) -> u64 {
        self.sockets.iter().map(drops).sum()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.requests.ring.raw()]
    }

    fn before_sleep(&mut self) -> bool {
        self.requests.ring.before_sleep()
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn close(&mut self, pool: &mut FramePool) -> u64 {
        if std::mem::replace(&mut self.closed, true) || !self.requests.ring.cancel_all() {
            return 0;
        }
        self.collect();
        // Nothing is with the kernel any more. What completed but was not looked at ends here, counted.
        let lost = self.arrivals.len() as u64;
        self.arrivals.clear();
        self.buffers.give_back(&self.requests.ring, pool);
        self.slots.give_back(pool);
        lost
    }
}

impl Uring {
    /// Posts buffers, and starts the receives that are not under way.
    fn arm(&mut self, pool: &mut FramePool) {
        self.buffers.post_all(pool);
        for socket in 0..self.receiving.len() {
            if !self.receiving[socket] {
                let header = self.buffers.header();
                self.receiving[socket] = self.requests.receive(socket as u16, header, buffers::GROUP);
            }
        }
    }

    fn push_send(&mut self, number: u16) -> bool {
        let Uring { slots, requests, fixed, submitting, sqpoll, .. } = self;
        let message = slots.message(number);
        let quiet = !*sqpoll && !message.zero_copy;
        let pushed = requests.send(number, message, slots.socket(number), *fixed, quiet);
        if pushed && quiet {
            submitting.push_back(number);
        }
        pushed
    }

    /// Submits, lets the kernel do its part, and takes what it completed.
    fn enter(&mut self, stats: &mut PortStats) {
        stats.wakeups += u64::from(self.requests.ring.enter());
        self.collect();
        // Those that failed have been completed by now.
        let taken = self.submitting.len().saturating_sub(self.requests.ring.unsubmitted());
        let Uring { submitting, completed, slots, .. } = self;
        let sent = submitting.drain(..taken).filter(|number| !slots.has_failed(*number));
        completed.extend(sent.map(|number| (number, 0)));
    }

    /// Takes completions out of the ring; no system call.
    fn collect(&mut self) {
        let Uring {
            requests,
            receiving,
            arrivals,
            completed,
            slots,
            zero_copy,
            waiting_for_room,
            failure,
            ..
        } = self;
        requests.completions(|tag, result, flags| match tag {
            Tag::Receive(socket) => {
                receiving[usize::from(socket)] &= cqueue::more(flags);
                match (cqueue::buffer_select(flags), usize::try_from(result)) {
                    (Some(buffer), Ok(len)) => arrivals.push_back(Arrival { socket, buffer, len }),
                    // A request that cannot work will not work the next time; everything else passes.
                    (_, Err(_)) if matches!(-result, libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF) => {
                        let errno = std::io::Error::from_raw_os_error(-result);
                        *failure = Some(format!("io_uring: multishot receive: {errno}"));
                    }
                    _ => {}
                }
            }
            Tag::Send(number) if cqueue::notif(flags) => {
                zero_copy.notified(result);
                completed.push_back((number, slots.result(number)));
            }
            // Zero-copy: the kernel still reads from the frame; a notification follows.
            Tag::Send(number) if cqueue::more(flags) => slots.set_result(number, result),
            Tag::Send(number) => {
                slots.fail(number);
                completed.push_back((number, result));
            }
            Tag::Room(_) => *waiting_for_room = false,
            Tag::Cancel => {}
        });
    }
}

const _: () = assert!(BURST <= SLOTS as usize && SLOTS.is_power_of_two() && POSTED.is_power_of_two());
