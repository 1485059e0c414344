//! Kernel TCP over io_uring: one ring for all connections, and at most one system call a turn, whatever arrived and was answered.
//!
//! ```text
//!   listener ── multishot accept ──► slot ── multishot receive ──► chunks out of the buffer ring ──► app: peek, consume
//!                                     ▲                                    back to the ring ◄───────────┘
//!                                     └── completion ◄── send ◄── chunks, bounded for each connection ◄── app: write
//! ```
//!
//! What a connection needs of the kernel follows from what it is (`drive`): whoever changed it marks it as due, and the next
//! submission carries the requests of all that are. A connection has one send under way, so that a part that was not sent is sent
//! before what follows it; and its receive is taken back while the app leaves it unread, so that the peer's window closes.
//!
//! A connection is over when the kernel has no request of it any more: a request keeps a socket open, and sends out of our memory.
//! So `Closed` comes a little after the cause, and what was written before a close has gone to the kernel by then.

mod chunks;
mod connection;
mod drive;
mod requests;

use super::StreamConfig;
use super::ending::reset;
use super::listeners::Listeners;
use super::open::{self, StreamOpenError};
use super::option;
use crate::frame::BURST;
use crate::stream::slots::Slots;
use crate::stream::slow::SlowReaders;
use crate::stream::{
    CloseReason, Shutdown, StreamError, StreamEvent, StreamId, StreamInfo, StreamOption, StreamPort,
    StreamStats,
};
use crate::time::Now;
use crate::uring::{BufferRing, Ring};
use chunks::Chunks;
use connection::{Connection, Request};
use nix::sys::socket;
use requests::{Completed, Requests, Tag};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// The one group of buffers.
const GROUP: u16 = 0;
/// Chunks that lie ready to receive into, a power of two. Fewer end receives (ENOBUFS) when many connections have something at
/// once, which costs each a request; more touch more memory in turn.
const POSTED: u16 = 256;
/// Requests in one submission: a burst of connections, each with what it can need at once. More go in several.
const ENTRIES: u32 = 1024;
/// Completions there is room for without the kernel allocating. It keeps any number.
const COMPLETIONS: u32 = 8192;
/// Chunks that the app may leave unread before a connection is received from no more. What was under way still comes: a receive
/// takes up to what the socket's buffer holds.
const READ_AHEAD: usize = 2;
/// Chunks of unsent bytes a connection may have: 64 KiB. Less makes more submissions for a bulk, more ties up memory for peers
/// that do not read.
const SEND_AHEAD: usize = 4;
/// Submissions of one flush: a bulk of so many chunks goes out at once, when the kernel takes it at once.
const ROUNDS: usize = SEND_AHEAD + 1;

/// What a listener is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    /// To be accepted from.
    Idle,
    /// The kernel has a multishot accept.
    Accepting,
    /// There was no descriptor for a client: to be accepted from when the next one is there.
    NoDescriptors,
    /// The kernel tells of the next client.
    Waiting,
}

/// A stream port over kernel TCP and io_uring.
pub struct UringStreams {
    config: StreamConfig,
    /// Before the memory it uses.
    requests: Requests,
    listeners: Listeners,
    listening: Vec<Listening>,
    slots: Slots<Connection>,
    buffers: BufferRing,
    /// Chunks to receive into: posted, or unread by the app.
    received: Chunks,
    posted: usize,
    /// Chunks that may be unread, over all connections.
    most_unread: usize,
    /// Chunks to send from.
    sent: Chunks,
    slow: SlowReaders,
    /// Connections whose requests are to be looked at; each once.
    due: VecDeque<StreamId>,
    /// Their writes found no chunk: told as chunks become free.
    starved: VecDeque<StreamId>,
    /// To be told `Readable` again.
    again: Vec<StreamId>,
    completed: Vec<Completed>,
    now_ns: u64,
    accepting: bool,
    closed: bool,
    stats: StreamStats,
}

impl UringStreams {
    /// Listens on `addresses`; `ports` is how many such ports this process opens, which share its descriptor limit.
    ///
    /// # Errors
    /// See [`StreamOpenError`].
    pub fn open(
        addresses: &[SocketAddr],
        config: &StreamConfig,
        ports: u32,
    ) -> Result<UringStreams, StreamOpenError> {
        let most = open::connections(config, ports)?;
        let listeners = Listeners::open(addresses, config)?;
        let ring = Ring::new(ENTRIES, COMPLETIONS, config.sqpoll)?;
        let buffers = BufferRing::new(&ring, POSTED, GROUP)?;
        let connections = most as usize;
        Ok(UringStreams {
            config: config.clone(),
            requests: Requests::new(ring),
            listening: vec![Listening::Idle; addresses.len()],
            listeners,
            slots: Slots::new(most),
            buffers,
            received: Chunks::new(config.unread_chunks + usize::from(POSTED)),
            posted: 0,
            // A burst of arrivals that the app has not been shown yet is no sin.
            most_unread: config.unread_chunks + usize::from(POSTED) / 2,
            sent: Chunks::new(config.unread_chunks),
            slow: SlowReaders::new(most, config.slow_reader_ns),
            due: VecDeque::with_capacity(connections),
            starved: VecDeque::with_capacity(connections),
            again: Vec::with_capacity(connections),
            completed: Vec::with_capacity(COMPLETIONS as usize),
            now_ns: 0,
            accepting: true,
            closed: false,
            stats: StreamStats::default(),
        })
    }

    /// Where it listens, with the port the kernel chose for port 0.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.addresses()
    }

    /// Disconnects who has taken nothing for too long.
    fn slow_readers(&mut self) -> usize {
        let mut work = 0;
        while let Some(id) = self.slow.due(self.now_ns) {
            let Ok(connection) = self.slots.get(id) else { continue };
            connection.fd.iter().for_each(reset);
            self.end(id, CloseReason::SlowReader);
            work += 1;
        }
        work
    }

    fn live(&mut self, id: StreamId) -> Result<&mut Connection, StreamError> {
        self.slots
            .get_mut(id)
            .and_then(|c| if c.leaving.is_some() { Err(StreamError::Stale) } else { Ok(c) })
    }

    /// Takes every request back, and ends what is left. What a kernel that does not let go may still use is leaked.
    fn cancel_all(&mut self) {
        let cancelled = self.requests.ring.cancel_all();
        self.collect();
        if !cancelled {
            log::warn!("io_uring: the kernel did not give every request back: their memory is left to it");
            for chunks in [&mut self.received, &mut self.sent] {
                std::mem::forget(std::mem::replace(chunks, Chunks::new(0)));
            }
            return;
        }
        self.buffers.unregister(&self.requests.ring);
        let ids: Vec<_> = self.slots.ids().collect();
        for id in ids {
            self.end(id, CloseReason::Finished);
            if let Ok(connection) = self.slots.get_mut(id) {
                for request in [
                    &mut connection.receive,
                    &mut connection.send,
                    &mut connection.connect,
                    &mut connection.hangup,
                ] {
                    *request = Request::None;
                }
            }
        }
    }
}

impl StreamPort for UringStreams {
    fn name(&self) -> &str {
        "tcp io-uring"
    }

    fn poll(&mut self, now: Now) -> usize {
        self.now_ns = now.ns;
        let work = self.slow_readers() + self.again.len();
        for id in self.again.drain(..) {
            self.slots.raise(id, StreamEvent::Readable);
        }
        self.queue_requests();
        if self.requests.ring.has_work() {
            self.requests.enter();
        }
        work + self.collect()
    }

    fn next_event(&mut self) -> Option<(StreamId, StreamEvent)> {
        let Self { slots, received, sent, .. } = self;
        let event = slots.next_event(|_, mut connection: Connection| {
            received.clear(&mut connection.unread);
            sent.clear(&mut connection.unsent);
        });
        self.stats.open = self.slots.len() as u64;
        self.stats.events += u64::from(event.is_some());
        event
    }

    fn peek(&mut self, id: StreamId) -> Result<&[u8], StreamError> {
        let connection = self.slots.get(id)?;
        if connection.shut.0 {
            return Err(StreamError::Closed);
        }
        Ok(self.received.first(&connection.unread))
    }

    fn consume(&mut self, id: StreamId, n: usize) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        let freed = n > 0 && self.received.consume(&mut connection.unread, n);
        if freed && connection.receive != Request::Queued {
            self.mark(id);
        }
        Ok(())
    }

    fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        let connection = self.slots.get_mut(id)?;
        match connection.leaving {
            Some(_) => return Err(StreamError::Stale),
            None if connection.shut.1 => return Err(StreamError::Closed),
            None if connection.connecting => return Ok(0),
            None => {}
        }
        let mut written = 0;
        while written < bytes.len() {
            written += self.sent.write(&connection.unsent, &bytes[written..]);
            if written == bytes.len() {
                break;
            }
            let room = connection.unsent.len() < SEND_AHEAD;
            if room && let Some(number) = self.sent.take() {
                self.sent.append(&mut connection.unsent, number);
                continue;
            }
            connection.short = true;
            // Nothing of its own will complete: it is told when a chunk is free.
            if connection.unsent.is_empty() && !std::mem::replace(&mut connection.starved, true) {
                self.starved.push_back(id);
            }
            break;
        }
        self.stats.sent_bytes += written as u64;
        self.mark(id);
        Ok(written)
    }

    fn again(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.live(id)?;
        if self.again.len() < self.again.capacity() {
            self.again.push(id);
        }
        Ok(())
    }

    fn shutdown(&mut self, id: StreamId, how: Shutdown) -> Result<(), StreamError> {
        let connection = self.live(id)?;
        let (read, write) = (how != Shutdown::Write, how != Shutdown::Read);
        connection.shut = (connection.shut.0 || read, connection.shut.1 || write);
        if read && let Some(fd) = &connection.fd {
            let _ = socket::shutdown(fd.as_raw_fd(), socket::Shutdown::Read);
            self.stats.calls += 1;
        }
        self.mark(id);
        Ok(())
    }

    fn close(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        if connection.leaving.is_some() {
            return Ok(());
        }
        connection.leaving = Some(CloseReason::Finished);
        // What we have received and not given out is unread too, which the kernel cannot know.
        if !connection.unread.is_empty() {
            connection.dead = true;
            connection.fd.iter().for_each(reset);
            self.received.clear(&mut connection.unread);
        }
        self.slots.hush(id);
        self.mark(id);
        Ok(())
    }

    fn abort(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        if connection.leaving.is_some() {
            return Ok(());
        }
        connection.fd.iter().for_each(reset);
        self.slots.hush(id);
        self.end(id, CloseReason::Aborted);
        Ok(())
    }

    fn connect(&mut self, local: Option<SocketAddr>, remote: SocketAddr) -> Result<StreamId, StreamError> {
        if self.slots.is_full() {
            return Err(StreamError::Full);
        }
        self.stats.calls += 8;
        let (fd, local) = open::dial(local, remote, &self.config)?;
        self.add(fd, local, remote, true)
    }

    fn info(&self, id: StreamId) -> Result<StreamInfo, StreamError> {
        self.slots.get(id).map(Connection::info)
    }

    fn set_option(&mut self, id: StreamId, option: StreamOption) -> Result<(), StreamError> {
        let connection = self.slots.get(id)?;
        let Some(fd) = &connection.fd else { return Err(StreamError::Stale) };
        self.stats.calls += 1;
        option::set(fd, connection.remote.is_ipv4(), option)
    }

    fn flush(&mut self) {
        for _ in 0..ROUNDS {
            self.queue_requests();
            if !self.requests.ring.has_submissions() {
                break;
            }
            self.requests.enter();
            self.collect();
            if self.due.is_empty() {
                break;
            }
        }
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.accepting, false) {
            return;
        }
        for (index, state) in self.listening.iter().enumerate() {
            let tag = match state {
                Listening::Accepting => Tag::Accept(index as u32),
                Listening::Waiting => Tag::Client(index as u32),
                Listening::Idle | Listening::NoDescriptors => continue,
            };
            self.requests.cancel(tag);
        }
        self.listeners.close();
        // A request keeps its listener open.
        self.flush();
    }

    fn is_drained(&self) -> bool {
        self.sent.used() == 0
    }

    fn close_port(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.stop();
        let ids: Vec<_> = self.slots.ids().collect();
        for id in ids {
            let _ = self.close(id);
        }
        self.flush();
        self.flush();
        self.cancel_all();
        for _ in 0..self.due.len() {
            self.queue_requests();
        }
        while self.next_event().is_some() {}
    }

    fn stats(&self) -> StreamStats {
        StreamStats { calls: self.stats.calls + self.requests.calls, ..self.stats }
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.requests.ring.raw()]
    }

    fn before_sleep(&mut self) -> bool {
        self.requests.ring.before_sleep()
    }

    fn next_deadline(&self) -> Option<u64> {
        if !self.again.is_empty() || !self.due.is_empty() || self.slots.has_events() {
            return Some(0);
        }
        self.slow.next_deadline()
    }
}

impl Drop for UringStreams {
    fn drop(&mut self) {
        self.close_port();
    }
}

const _: () = assert!(BURST <= POSTED as usize && POSTED.is_power_of_two());
