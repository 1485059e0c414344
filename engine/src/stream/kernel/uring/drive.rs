//! Between connections and ring: which requests a connection needs now, and what their completions mean for it.

use super::connection::{Connection, Request};
use super::requests::Tag;
use super::{GROUP, Listening, POSTED, READ_AHEAD, SEND_AHEAD, UringStreams};
use crate::frame::BURST;
use crate::stream::kernel::ending::{reason, reset};
use crate::stream::kernel::listeners::Accepted;
use crate::stream::kernel::open;
use crate::stream::kernel::unread::CHUNK;
use crate::stream::{CloseReason, StreamError, StreamEvent, StreamId};
use io_uring::cqueue;
use nix::errno::Errno;
use nix::sys::socket::{self, getsockopt, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

impl UringStreams {
    /// Notes that the requests of a connection are to be looked at.
    pub(super) fn mark(&mut self, id: StreamId) {
        if let Ok(connection) = self.slots.get_mut(id)
            && !std::mem::replace(&mut connection.due, true)
        {
            self.due.push_back(id);
        }
    }

    /// Lends the kernel chunks for all free places of the buffer ring.
    pub(super) fn post(&mut self) {
        while self.posted < usize::from(POSTED)
            && let Some(number) = self.received.take()
        {
            // SAFETY: the chunk is the kernel's until a completion names it; chunks stay where they are.
            unsafe { self.buffers.put(self.received.memory(number), CHUNK as u32, number) };
            self.posted += 1;
        }
        self.buffers.publish();
    }

    /// Queues the requests that are needed now.
    pub(super) fn queue_requests(&mut self) {
        self.post();
        if self.accepting {
            for (index, listener) in self.listeners.sockets().enumerate() {
                let (number, fd) = (index as u32, listener.as_raw_fd());
                let state = &mut self.listening[index];
                *state = match *state {
                    Listening::Idle if self.requests.accept(number, fd) => Listening::Accepting,
                    Listening::NoDescriptors if self.requests.client(number, fd) => Listening::Waiting,
                    state => state,
                };
            }
        }
        for _ in 0..self.due.len() {
            let Some(id) = self.due.pop_front() else { break };
            let Ok(connection) = self.slots.get_mut(id) else { continue };
            connection.due = false;
            if !self.advance(id) {
                // The ring is full: next time.
                return self.mark(id);
            }
        }
    }

    /// Queues the requests that a connection needs now; closes it when it is leaving and the kernel has none left. False when the
    /// ring takes no more.
    fn advance(&mut self, id: StreamId) -> bool {
        let Self { slots, requests, sent, slow, now_ns, stats, .. } = self;
        let Ok(connection) = slots.get_mut(id) else { return true };
        let Some(fd) = connection.fd.as_ref().map(AsRawFd::as_raw_fd) else { return true };
        let over = connection.leaving.is_some() && connection.is_sent();

        let read = !connection.connecting
            && connection.leaving.is_none()
            && !connection.finished
            && connection.unread.len() < READ_AHEAD;
        let listen = !connection.connecting && !read && connection.leaving.is_none();
        let done = want(&mut connection.receive, read, Tag::Receive(id), requests, |requests| {
            requests.receive(id, fd, GROUP)
        }) && want(&mut connection.hangup, listen, Tag::Hangup(id), requests, |requests| {
            requests.hangup(id, fd)
        }) && want(
            &mut connection.connect,
            connection.connecting && !over,
            Tag::Connect(id),
            requests,
            |requests| requests.connect(id, fd),
        );
        if !done {
            return false;
        }

        if connection.dead {
            if !want(&mut connection.send, false, Tag::Send(id), requests, |_| true) {
                return false;
            }
        } else if connection.send == Request::None && !connection.unsent.is_empty() {
            if !requests.send(id, fd, sent.first(&connection.unsent)) {
                return false;
            }
            connection.send = Request::Queued;
            slow.blocked(id, *now_ns);
        } else if connection.shut.1 && connection.unsent.is_empty() && !connection.shut_told {
            connection.shut_told = true;
            // ENOTCONN: the peer was faster, and a completion tells.
            let _ = socket::shutdown(fd, socket::Shutdown::Write);
            stats.calls += 1;
        }

        if let Some(reason) = connection.leaving
            && over
            && !connection.is_out()
        {
            connection.fd = None;
            sent.clear(&mut connection.unsent);
            slow.moved(id);
            stats.calls += 1;
            stats.ended(reason);
            slots.raise(id, StreamEvent::Closed(reason));
        }
        true
    }

    /// Takes what the kernel has completed; returns how much that was.
    pub(super) fn collect(&mut self) -> usize {
        let mut completed = std::mem::take(&mut self.completed);
        self.requests.completions(&mut completed);
        let count = completed.len();
        for (tag, result, flags) in completed.drain(..) {
            let more = cqueue::more(flags);
            match tag {
                Tag::Accept(listener) => self.accepted(listener, result, more),
                Tag::Client(listener) => self.listening[listener as usize] = Listening::Idle,
                Tag::Receive(id) => self.has_received(id, result, more, cqueue::buffer_select(flags)),
                Tag::Send(id) => self.has_sent(id, result),
                Tag::Connect(id) => self.has_connected(id),
                Tag::Hangup(id) => self.hung_up(id, result, more),
                Tag::Cancel => {}
            }
        }
        self.completed = completed;
        count
    }

    fn accepted(&mut self, listener: u32, result: i32, more: bool) {
        if !more {
            self.listening[listener as usize] = Listening::Idle;
        }
        match result {
            // SAFETY: a fresh descriptor, ours alone.
            0.. => self.welcome(unsafe { OwnedFd::from_raw_fd(result) }),
            _ if matches!(-result, libc::EMFILE | libc::ENFILE) => {
                self.listening[listener as usize] = Listening::NoDescriptors;
                for _ in 0..BURST {
                    match self.listeners.accept(listener as usize, &mut self.stats) {
                        Accepted::Connection(fd) => self.welcome(fd),
                        Accepted::TurnedAway | Accepted::Aborted => {}
                        Accepted::None => break,
                    }
                }
            }
            _ => {}
        }
    }

    /// Gives an accepted connection a slot, or resets it.
    fn welcome(&mut self, fd: OwnedFd) {
        if !self.accepting || self.slots.is_full() {
            self.stats.refused_full += u64::from(self.accepting);
            reset(&fd);
            return;
        }
        self.stats.calls += 2;
        let (Some(local), Some(remote)) = (open::local_address(&fd), open::peer_address(&fd)) else {
            return;
        };
        if let Ok(id) = self.add(fd, local, remote, false) {
            self.slots.raise(id, StreamEvent::Opened);
            self.stats.accepted += 1;
        }
    }

    pub(super) fn add(
        &mut self,
        fd: OwnedFd,
        local: SocketAddr,
        remote: SocketAddr,
        active: bool,
    ) -> Result<StreamId, StreamError> {
        let id = self.slots.insert(Connection::new(fd, local, remote, active))?;
        self.stats.open = self.slots.len() as u64;
        self.mark(id);
        Ok(id)
    }

    fn has_received(&mut self, id: StreamId, result: i32, more: bool, buffer: Option<u16>) {
        self.posted -= usize::from(buffer.is_some());
        let Ok(connection) = self.slots.get_mut(id) else {
            return buffer.into_iter().for_each(|number| self.received.give(number));
        };
        if !more {
            connection.receive = Request::None;
        }
        match (buffer, result) {
            (Some(number), 1..) if connection.leaving.is_none() && !connection.shut.0 => {
                self.received.filled(number, result as usize);
                self.received.append(&mut connection.unread, number);
                self.stats.received_bytes += result as u64;
                let enough = connection.unread.len() >= READ_AHEAD;
                self.slots.raise(id, StreamEvent::Readable);
                self.bound_unread();
                if more && !enough {
                    return;
                }
            }
            (buffer, _) => {
                buffer.into_iter().for_each(|number| self.received.give(number));
                match result {
                    // Bytes that nobody will read: the peer is to know.
                    1.. => connection.fd.iter().for_each(reset),
                    0 => {
                        connection.finished = true;
                        if connection.leaving.is_none() {
                            self.slots.raise(id, StreamEvent::PeerClosed);
                        }
                    }
                    // Buffers were short for a moment, or we have asked for it.
                    _ if matches!(-result, libc::ENOBUFS | libc::ECANCELED | libc::EINTR) => {}
                    _ => self.end(id, reason(Errno::from_raw(-result))),
                }
            }
        }
        self.mark(id);
    }

    /// Disconnects who has left the most unread, when all together have left too much.
    fn bound_unread(&mut self) {
        if self.received.used() - self.posted <= self.most_unread {
            return;
        }
        let slots = &self.slots;
        let unread = |id: &StreamId| slots.get(*id).map_or(0, |connection| connection.unread.len());
        if let Some(greediest) = slots.ids().max_by_key(unread)
            && let Ok(connection) = self.slots.get_mut(greediest)
        {
            self.received.clear(&mut connection.unread);
            connection.fd.iter().for_each(reset);
            // What was there to read is gone.
            self.slots.hush(greediest);
            self.end(greediest, CloseReason::NoMemory);
        }
    }

    fn has_sent(&mut self, id: StreamId, result: i32) {
        let Ok(connection) = self.slots.get_mut(id) else { return };
        connection.send = Request::None;
        match result {
            1.. if !connection.dead => {
                let freed = self.sent.consume(&mut connection.unsent, result as usize);
                self.slow.moved(id);
                let room = connection.unsent.len() < SEND_AHEAD && connection.leaving.is_none();
                if room && std::mem::take(&mut connection.short) {
                    self.slots.raise(id, StreamEvent::Writable);
                }
                if freed {
                    self.feed_starved();
                }
            }
            _ if result >= 0 || matches!(-result, libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
            _ => self.end(id, reason(Errno::from_raw(-result))),
        }
        self.mark(id);
    }

    /// A chunk is free: tells the first that waits for one.
    fn feed_starved(&mut self) {
        while let Some(id) = self.starved.pop_front() {
            if let Ok(connection) = self.slots.get_mut(id)
                && connection.leaving.is_none()
            {
                (connection.starved, connection.short) = (false, false);
                return self.slots.raise(id, StreamEvent::Writable);
            }
        }
    }

    fn has_connected(&mut self, id: StreamId) {
        let Ok(connection) = self.slots.get_mut(id) else { return };
        connection.connect = Request::None;
        if let Some(fd) = connection.fd.as_ref().filter(|_| connection.leaving.is_none()) {
            self.stats.calls += 2;
            match getsockopt(fd, sockopt::SocketError) {
                Ok(0) => {
                    connection.connecting = false;
                    connection.local = open::local_address(fd).unwrap_or(connection.local);
                    self.stats.connected += 1;
                    self.slots.raise(id, StreamEvent::Opened);
                }
                Ok(errno) => self.end(id, reason(Errno::from_raw(errno))),
                Err(_) => self.end(id, CloseReason::Failed),
            }
        }
        self.mark(id);
    }

    fn hung_up(&mut self, id: StreamId, result: i32, more: bool) {
        let Ok(connection) = self.slots.get_mut(id) else { return };
        if !more {
            connection.hangup = Request::None;
            self.mark(id);
        }
        let Ok(connection) = self.slots.get(id) else { return };
        if result > 0
            && result & i32::from(libc::POLLERR | libc::POLLHUP) != 0
            && let Some(fd) = &connection.fd
        {
            self.stats.calls += 1;
            if let Ok(errno @ 1..) = getsockopt(fd, sockopt::SocketError) {
                self.end(id, reason(Errno::from_raw(errno)));
            }
        }
    }

    /// The connection has ended, for the first reason there was; what is not sent is lost.
    pub(super) fn end(&mut self, id: StreamId, reason: CloseReason) {
        let Ok(connection) = self.slots.get_mut(id) else { return };
        match connection.leaving {
            // The app's own close is over when the rest is sent: it did not come to that.
            Some(CloseReason::Finished) if !connection.is_sent() => connection.leaving = Some(reason),
            None => connection.leaving = Some(reason),
            Some(_) => {}
        }
        connection.dead = true;
        self.slow.moved(id);
        self.mark(id);
    }
}

/// Queues a request that is wanted, and asks for the end of one that is not. False when the ring takes no more.
fn want(
    request: &mut Request,
    wanted: bool,
    tag: Tag,
    requests: &mut super::Requests,
    queue: impl FnOnce(&mut super::Requests) -> bool,
) -> bool {
    match (*request, wanted) {
        (Request::None, true) => {
            let queued = queue(requests);
            if queued {
                *request = Request::Queued;
            }
            queued
        }
        (Request::Queued, false) => {
            let queued = requests.cancel(tag);
            if queued {
                *request = Request::Cancelled;
            }
            queued
        }
        _ => true,
    }
}
