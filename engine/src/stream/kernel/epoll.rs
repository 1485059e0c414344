//! Kernel TCP over epoll, edge-triggered.
//!
//! Each connection is registered once, for both directions, and never touched again: `epoll_ctl` is paid at its beginning, not
//! per message. The edges are the kernel's own, passed on as events.

use super::StreamConfig;
use super::ending::{reason, reset};
use super::listeners::{Accepted, Listeners};
use super::open::{self, StreamOpenError};
use super::option;
use super::unread::{Place, Unread};
use crate::stream::slots::Slots;
use crate::stream::slow::SlowReaders;
use crate::stream::{
    CloseReason, Shutdown, StreamError, StreamEvent, StreamId, StreamInfo, StreamOption, StreamPort,
    StreamStats,
};
use crate::time::Now;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, MsgFlags, getsockopt, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Readiness taken, and connections accepted of each listener, in one turn: a burst, as of datagrams.
const PER_TURN: usize = crate::frame::BURST;

/// Epoll's word for listener n is this plus n; below it stand slot (low half) and generation (31 bits).
const LISTENERS: u64 = 1 << 63;

struct Connection {
    fd: OwnedFd,
    local: SocketAddr,
    remote: SocketAddr,
    active: bool,
    /// The handshake of an active open is still under way.
    connecting: bool,
    /// The app has closed it: only `Closed` is still to be told.
    done: bool,
    /// The app has shut down reading or writing.
    shut: (bool, bool),
    /// A write came back short, and there was no room since.
    blocked: bool,
    unread: Place,
}

/// A stream port over kernel TCP and epoll.
pub struct EpollStreams {
    config: StreamConfig,
    epoll: Epoll,
    listeners: Listeners,
    slots: Slots<Connection>,
    unread: Unread,
    slow: SlowReaders,
    /// To be told `Readable` again.
    again: Vec<StreamId>,
    next_look_ns: u64,
    now_ns: u64,
    accepting: bool,
    stats: StreamStats,
}

impl EpollStreams {
    /// Listens on `addresses`; `ports` is how many such ports this process opens, which share its descriptor limit.
    ///
    /// # Errors
    /// See [`StreamOpenError`].
    pub fn open(
        addresses: &[SocketAddr],
        config: &StreamConfig,
        ports: u32,
    ) -> Result<EpollStreams, StreamOpenError> {
        let most = open::connections(config, ports)?;
        EpollStreams::with(Listeners::open(addresses, config)?, config, most)
    }

    /// Listens nowhere: for streams that are opened from here.
    ///
    /// # Errors
    /// As [`EpollStreams::open`].
    pub fn for_connects(config: &StreamConfig) -> Result<EpollStreams, StreamOpenError> {
        let most = open::connections(config, 1)?;
        EpollStreams::with(Listeners::none()?, config, most)
    }

    fn with(
        listeners: Listeners,
        config: &StreamConfig,
        most: u32,
    ) -> Result<EpollStreams, StreamOpenError> {
        let setup = |call| move |errno| StreamOpenError::Setup { call, errno };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(setup("epoll_create"))?;
        for (index, listener) in listeners.sockets().enumerate() {
            // Level-triggered: what one turn does not accept, the next one finds.
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENERS + index as u64);
            epoll.add(listener, event).map_err(setup("epoll_ctl"))?;
        }
        Ok(EpollStreams {
            config: config.clone(),
            epoll,
            listeners,
            slots: Slots::new(most),
            unread: Unread::new(config.unread_chunks),
            slow: SlowReaders::new(most, config.slow_reader_ns),
            again: Vec::with_capacity(most as usize),
            next_look_ns: 0,
            now_ns: 0,
            accepting: true,
            stats: StreamStats::default(),
        })
    }

    /// Where it listens, with the port the kernel chose for port 0.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.addresses()
    }

    fn accept(&mut self, listener: usize) -> usize {
        let mut accepted = 0;
        while accepted < PER_TURN && self.accepting {
            let fd = match self.listeners.accept(listener, &mut self.stats) {
                Accepted::Connection(fd) => fd,
                Accepted::TurnedAway => {
                    accepted += 1;
                    continue;
                }
                Accepted::Aborted => continue,
                Accepted::None => break,
            };
            accepted += 1;
            if self.slots.is_full() {
                self.stats.refused_full += 1;
                reset(&fd);
                continue;
            }
            let (Some(local), Some(remote)) = (open::local_address(&fd), open::peer_address(&fd)) else {
                continue;
            };
            if let Ok(id) = self.add(fd, local, remote, false) {
                self.slots.raise(id, StreamEvent::Opened);
                self.stats.accepted += 1;
            }
        }
        accepted
    }

    fn add(
        &mut self,
        fd: OwnedFd,
        local: SocketAddr,
        remote: SocketAddr,
        active: bool,
    ) -> Result<StreamId, StreamError> {
        let raw = fd.as_raw_fd();
        let id = self.slots.insert(Connection {
            fd,
            local,
            remote,
            active,
            connecting: active,
            done: false,
            shut: (false, false),
            blocked: false,
            unread: Place::default(),
        })?;
        let interest =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let word = u64::from(id.slot) | (u64::from(id.generation) << 32) & !LISTENERS;
        // SAFETY: the slot owns the descriptor, which is open until it is dropped with the slot.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
        self.stats.calls += 1;
        if self.epoll.add(borrowed, EpollEvent::new(interest, word)).is_err() {
            self.end(id, CloseReason::Failed);
        }
        self.stats.open = self.slots.len() as u64;
        Ok(id)
    }

    /// Readiness of a connection, as epoll says it.
    fn ready(&mut self, word: u64, flags: EpollFlags) {
        let slot = word as u32;
        let Some(id) =
            self.slots.current(slot).filter(|id| u64::from(id.generation) & 0x7fff_ffff == word >> 32)
        else {
            return;
        };
        let Ok(connection) = self.slots.get_mut(id) else { return };
        if connection.done {
            return;
        }
        if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            self.stats.calls += 1;
            match getsockopt(&connection.fd, sockopt::SocketError) {
                Ok(0) | Err(_) => {}
                Ok(errno) => return self.end(id, reason(Errno::from_raw(errno))),
            }
        }
        let writable = flags.contains(EpollFlags::EPOLLOUT);
        if connection.connecting && writable {
            connection.connecting = false;
            connection.local = open::local_address(&connection.fd).unwrap_or(connection.local);
            self.stats.connected += 1;
            self.slots.raise(id, StreamEvent::Opened);
        } else if writable && std::mem::take(&mut connection.blocked) {
            self.slow.moved(id);
            self.slots.raise(id, StreamEvent::Writable);
        }
        if flags.contains(EpollFlags::EPOLLIN) {
            self.slots.raise(id, StreamEvent::Readable);
        }
        if flags.contains(EpollFlags::EPOLLRDHUP) {
            self.slots.raise(id, StreamEvent::PeerClosed);
        }
    }

    /// The connection has ended; the app is told.
    fn end(&mut self, id: StreamId, reason: CloseReason) {
        let Ok(connection) = self.slots.get_mut(id) else { return };
        connection.done = true;
        self.slow.moved(id);
        self.stats.ended(reason);
        self.slots.raise(id, StreamEvent::Closed(reason));
    }

    /// Disconnects who has taken nothing for too long.
    fn slow_readers(&mut self) -> usize {
        let mut work = 0;
        while let Some(id) = self.slow.due(self.now_ns) {
            let Ok(connection) = self.live(id) else { continue };
            reset(&connection.fd);
            self.end(id, CloseReason::SlowReader);
            work += 1;
        }
        work
    }

    fn live(&mut self, id: StreamId) -> Result<&mut Connection, StreamError> {
        self.slots.get_mut(id).and_then(|c| if c.done { Err(StreamError::Stale) } else { Ok(c) })
    }

    /// Makes the shared buffer free: whoever has bytes in it gets a chunk of their own, or is disconnected.
    fn spill(&mut self) {
        let Some(owner) = self.unread.owner().and_then(|slot| self.slots.current(slot)) else { return };
        let Ok(connection) = self.slots.get_mut(owner) else { return };
        if !self.unread.spill(&mut connection.unread) {
            reset(&connection.fd);
            self.end(owner, CloseReason::NoMemory);
        }
    }
}

impl StreamPort for EpollStreams {
    fn name(&self) -> &str {
        "tcp epoll"
    }

    fn poll(&mut self, now: Now) -> usize {
        self.now_ns = now.ns;
        let mut work = self.slow_readers() + self.again.len();
        for id in self.again.drain(..) {
            self.slots.raise(id, StreamEvent::Readable);
        }
        if now.ns < self.next_look_ns {
            return work;
        }
        let mut events = [EpollEvent::empty(); PER_TURN];
        self.stats.calls += 1;
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            match event.data().checked_sub(LISTENERS) {
                Some(listener) => work += self.accept(listener as usize),
                None => {
                    self.ready(event.data(), event.events());
                    work += 1;
                }
            }
        }
        if ready == 0 {
            self.next_look_ns = now.ns + self.config.look_every_ns;
        }
        work
    }

    fn next_event(&mut self) -> Option<(StreamId, StreamEvent)> {
        let unread = &mut self.unread;
        let event = self.slots.next_event(|id, mut connection: Connection| {
            unread.forget(id.slot, &mut connection.unread);
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
        if self.unread.bytes(id.slot, &connection.unread).is_empty() && !connection.connecting {
            self.spill();
            let connection = self.slots.get(id)?;
            self.stats.calls += 1;
            let raw = connection.fd.as_raw_fd();
            match socket::recv(raw, self.unread.room(), MsgFlags::empty()) {
                Ok(n) => {
                    self.unread.received(id.slot, n);
                    self.stats.received_bytes += n as u64;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) if !connection.done => self.end(id, reason(errno)),
                Err(_) => {}
            }
        }
        let connection = self.slots.get(id)?;
        Ok(self.unread.bytes(id.slot, &connection.unread))
    }

    fn consume(&mut self, id: StreamId, n: usize) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        self.unread.consume(id.slot, &mut connection.unread, n);
        Ok(())
    }

    fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        let connection = self.live(id)?;
        if connection.shut.1 {
            return Err(StreamError::Closed);
        }
        if connection.connecting || connection.blocked {
            return Ok(0);
        }
        let mut written = 0;
        let mut calls = 0;
        let mut failed = None;
        while written < bytes.len() {
            calls += 1;
            match socket::send(connection.fd.as_raw_fd(), &bytes[written..], MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => written += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    connection.blocked = true;
                    break;
                }
                Err(errno) => {
                    failed = Some(reason(errno));
                    break;
                }
            }
        }
        let blocked = connection.blocked;
        self.stats.calls += calls;
        self.stats.sent_bytes += written as u64;
        if blocked {
            self.slow.blocked(id, self.now_ns);
        }
        match failed {
            Some(reason) => {
                self.end(id, reason);
                Err(StreamError::Closed)
            }
            None => Ok(written),
        }
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
        let how = match how {
            Shutdown::Read => socket::Shutdown::Read,
            Shutdown::Write => socket::Shutdown::Write,
            Shutdown::Both => socket::Shutdown::Both,
        };
        // ENOTCONN: the peer was faster, and an event tells.
        let _ = socket::shutdown(connection.fd.as_raw_fd(), how);
        self.stats.calls += 1;
        Ok(())
    }

    fn close(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        if connection.done {
            return Ok(());
        }
        // What we have received and not given out is unread too, which the kernel cannot know.
        if !self.unread.bytes(id.slot, &connection.unread).is_empty() {
            reset(&connection.fd);
        }
        self.slots.hush(id);
        self.end(id, CloseReason::Finished);
        Ok(())
    }

    fn abort(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.slots.get_mut(id)?;
        if connection.done {
            return Ok(());
        }
        reset(&connection.fd);
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
        let connection = self.slots.get(id)?;
        let Connection { local, remote, active, .. } = *connection;
        Ok(StreamInfo { local, remote, active })
    }

    fn set_option(&mut self, id: StreamId, option: StreamOption) -> Result<(), StreamError> {
        let connection = self.slots.get(id)?;
        self.stats.calls += 1;
        option::set(&connection.fd, connection.remote.is_ipv4(), option)
    }

    fn stop(&mut self) {
        self.accepting = false;
        self.listeners.close();
    }

    fn close_port(&mut self) {
        self.stop();
        let ids: Vec<_> = self.slots.ids().collect();
        for id in ids {
            let _ = self.close(id);
        }
        while self.next_event().is_some() {}
    }

    fn stats(&self) -> StreamStats {
        self.stats
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.epoll.0.as_raw_fd()]
    }

    fn next_deadline(&self) -> Option<u64> {
        if !self.again.is_empty() || self.slots.has_events() {
            return Some(0);
        }
        self.slow.next_deadline()
    }
}
