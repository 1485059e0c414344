//! The datagram port over kernel sockets, generic over the calls that move datagrams.

use super::SocketConfig;
use super::message::drops;
use super::open::{Socket, SocketError};
use crate::datagram::{
    Batch, Datagram, DatagramPort, DatagramStats, Datagrams, Opened, SendError, Verdict, Verdicts,
};
use crate::frame::{BURST, Burst, Frame, FramePool, Ledger};
use crate::net::Path;
use crate::port::PortStats;
use crate::time::Now;
use arrayvec::ArrayVec;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use volley_wire::DropReason;

/// Largest UDP payload over IPv4: 65,535 less 20 of IPv4 and 8 of UDP header.
const MAX_PAYLOAD_IPV4: usize = 65_507;
/// Largest UDP payload over IPv6 without a jumbogram: 65,535 less 8 of UDP header.
const MAX_PAYLOAD_IPV6: usize = 65_527;

/// What is known of a received buffer besides its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) path: Path,
    /// Bytes of each datagram in it (GRO), the last maybe fewer; 0: it is one datagram.
    pub(crate) segment: u32,
    /// Not to be given to the app.
    pub(crate) refused: Option<DropReason>,
}

/// A datagram on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Out<'a> {
    /// Index of the socket it leaves from.
    pub(crate) socket: u16,
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
}

/// What one round of receiving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The socket may have more.
    More,
    /// The socket has no more.
    Drained,
}

/// How datagrams are moved: the difference between the kernel-socket ports.
pub(crate) trait SocketIo: Send + Sized {
    /// For messages.
    const NAME: &'static str;

    fn new(config: &SocketConfig) -> Self;

    /// True when the sockets are to be opened with UDP_GRO.
    fn wants_gro(&self) -> bool;

    /// Receives into frames of `pool`, pushed to `frames`; the entry of `arrived` with the same index says the rest.
    fn receive(
        &mut self,
        socket: &Socket,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) -> Received;

    /// Sends a prefix of `out` (at most [`BURST`]) and returns its length; less than all means that the kernel takes no more now.
    /// `done` hears of each, by index, whether the kernel took it or refused it.
    fn transmit(
        &mut self,
        sockets: &[Socket],
        out: &[Out<'_>],
        stats: &mut PortStats,
        done: impl FnMut(usize, bool),
    ) -> usize;
}

/// Receive errors in a row after which a socket is left alone until the next turn. ICMP answers to what we sent come back as
/// errors of the next call, one each, and say nothing about the socket.
pub(crate) const MAX_ERRORS: usize = 8;

/// True for the errors of sending that will pass: the socket's buffer or the device's queue is full.
pub(crate) fn is_blocked(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// A datagram kept until the kernel takes it.
struct Held {
    frame: Frame,
    path: Path,
    socket: u16,
    /// An answer; otherwise it was sent unasked.
    answer: bool,
}

/// A datagram port over kernel UDP sockets, one per local address. See [`super::super::EpollPort`] and
/// [`super::super::MmsgPort`].
#[allow(private_bounds)]
pub struct SocketPort<I: SocketIo> {
    io: I,
    sockets: Vec<Socket>,
    /// Sockets that may have something: not to be asked about with epoll.
    ready: Vec<bool>,
    first: usize,
    epoll: Epoll,
    pool: FramePool,
    arrived: Box<[Arrived; BURST]>,
    hold: VecDeque<Held>,
    max_hold: usize,
    /// The kernel took no more; epoll is asked for room, too.
    blocked: bool,
    stopped: bool,
    stats: DatagramStats,
    port_stats: PortStats,
    name: String,
}

#[allow(private_bounds)]
impl<I: SocketIo> SocketPort<I> {
    /// Binds a socket to each of `addresses`. Port 0 takes a free one ([`SocketPort::local_addresses`] says which).
    ///
    /// # Errors
    /// See [`SocketError`]; nothing is bound then.
    pub fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError> {
        let io = I::new(config);
        let mut sockets = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            sockets.push(Socket::open(*address, index as u16, io.wants_gro(), config)?);
        }
        let some = sockets.first().ok_or(SocketError::NoAddress)?.template;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SocketError::Epoll)?;
        for (index, socket) in sockets.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            epoll.add(socket.as_fd(), event).map_err(SocketError::Epoll)?;
        }
        let frames = config.frames.max((config.hold + 2 * BURST) as u32);
        let list: Vec<_> = sockets.iter().map(|socket| socket.local().to_string()).collect();
        Ok(SocketPort {
            ready: vec![true; sockets.len()],
            io,
            sockets,
            first: 0,
            epoll,
            pool: FramePool::new(frames, config.frame_bytes, 0),
            arrived: Box::new([Arrived { path: some, segment: 0, refused: None }; BURST]),
            hold: VecDeque::with_capacity(config.hold),
            max_hold: config.hold,
            blocked: false,
            stopped: false,
            stats: DatagramStats::default(),
            port_stats: PortStats::default(),
            name: format!("{} {}", I::NAME, list.join(", ")),
        })
    }

    /// The addresses its sockets are bound to, in the order they were given.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(Socket::local).collect()
    }

    /// Asks epoll which sockets have something; one system call.
    fn wait(&mut self) {
        let mut events = [EpollEvent::empty(); BURST];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        self.port_stats.wakeups += 1;
        for event in &events[..count] {
            if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR)
                && let Some(ready) = self.ready.get_mut(event.data() as usize)
            {
                *ready = true;
            }
        }
    }

    /// Chooses what the descriptor of [`DatagramPort::poll_fds`] wakes for.
    fn watch(&mut self) {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !self.stopped);
        flags.set(EpollFlags::EPOLLOUT, self.blocked);
        for (index, socket) in self.sockets.iter().enumerate() {
            // It fails for a descriptor that is not registered, which ours are.
            let _ = self.epoll.modify(socket.as_fd(), &mut EpollEvent::new(flags, index as u64));
        }
    }

    fn set_blocked(&mut self, blocked: bool) {
        if self.blocked != blocked {
            self.blocked = blocked;
            self.watch();
        }
    }

    /// The socket that datagrams over `path` leave from.
    fn socket_for(&self, path: &Path) -> Option<u16> {
        let heard_on = self.sockets.get(path.queue as usize).filter(|socket| socket.serves(path));
        match heard_on {
            Some(_) => Some(path.queue),
            None => self.sockets.iter().position(|socket| socket.serves(path)).map(|index| index as u16),
        }
    }

    fn room(&self, ipv4: bool) -> usize {
        self.pool.room().min(if ipv4 { MAX_PAYLOAD_IPV4 } else { MAX_PAYLOAD_IPV6 })
    }

    /// Sends what is held, as far as the kernel takes it.
    fn send_held(&mut self) {
        while !self.hold.is_empty() {
            let (sent, all) = self.transmit_held();
            for held in self.hold.drain(..sent) {
                self.pool.give(held.frame);
            }
            if !all {
                self.set_blocked(true);
                return;
            }
        }
        self.set_blocked(false);
    }

    /// Offers the kernel a burst of what is held; returns how many were dealt with, and whether that was all.
    fn transmit_held(&mut self) -> (usize, bool) {
        let mut out = ArrayVec::<Out<'_>, BURST>::new();
        for Held { frame, path, socket, .. } in self.hold.iter().take(BURST) {
            out.push(Out { socket: *socket, path, bytes: frame.bytes() });
        }
        let (stats, hold) = (&mut self.stats, &self.hold);
        let sent = self.io.transmit(&self.sockets, &out, &mut self.port_stats, |index, taken| {
            match (taken, hold[index].answer) {
                (true, true) => stats.answered += 1,
                (true, false) => stats.sent += 1,
                (false, _) => stats.drop(DropReason::TxRefused),
            }
        });
        (sent, sent == out.len())
    }

    /// Keeps a copy of an answer that the kernel did not take.
    fn hold_answer(&mut self, socket: u16, path: &Path, bytes: &[u8]) {
        let frame = if self.hold.len() < self.max_hold { self.pool.take(socket) } else { None };
        let Some(mut frame) = frame else { return self.stats.drop(DropReason::TxFull) };
        let fits = frame.set_len(bytes.len());
        debug_assert!(fits, "an answer lies in a frame of the same pool");
        frame.bytes_mut().copy_from_slice(bytes);
        self.hold.push_back(Held { frame, path: *path, socket, answer: true });
    }

    /// Sends the answers of the last `open` from where they lie.
    fn answer(&mut self, batch: &Batch, verdicts: &Verdicts) {
        let mut out = ArrayVec::<Out<'_>, BURST>::new();
        for (opened, verdict) in batch.opened.iter().zip(verdicts) {
            let Verdict::Reply { len, .. } = *verdict else { continue };
            let start = opened.payload as usize;
            let bytes = &batch.frames[opened.frame as usize].bytes()[start..start + len as usize];
            out.push(Out { socket: opened.path.queue, path: &opened.path, bytes });
        }
        let mut sent = 0;
        // What has waited goes first.
        if !self.blocked && !out.is_empty() {
            let stats = &mut self.stats;
            sent = self.io.transmit(&self.sockets, &out, &mut self.port_stats, |_, taken| match taken {
                true => stats.answered += 1,
                false => stats.drop(DropReason::TxRefused),
            });
        }
        if sent < out.len() {
            self.set_blocked(true);
            for Out { socket, path, bytes } in &out[sent..] {
                self.hold_answer(*socket, path, bytes);
            }
        }
    }
}

impl<I: SocketIo> DatagramPort for SocketPort<I> {
    fn name(&self) -> &str {
        &self.name
    }

    fn recv(&mut self, batch: &mut Batch, _now: Now) -> usize {
        if self.stopped {
            return 0;
        }
        if !self.ready.contains(&true) {
            self.wait();
        }
        (batch.next_frame, batch.next_byte) = (0, 0);
        // Each turn begins with another socket, so that a busy one does not starve the rest.
        self.first = (self.first + 1) % self.sockets.len();
        for step in 0..self.sockets.len() {
            let index = (self.first + step) % self.sockets.len();
            if self.ready[index] && !batch.frames.is_full() {
                let (socket, arrived) = (&self.sockets[index], &mut self.arrived[..]);
                let (pool, stats) = (&mut self.pool, &mut self.port_stats);
                let received = self.io.receive(socket, pool, &mut batch.frames, arrived, stats);
                self.ready[index] = received == Received::More;
            }
        }
        self.port_stats.rx_frames += batch.frames.len() as u64;
        batch.frames.len()
    }

    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        let max_room = [self.room(false), self.room(true)];
        let Batch { frames, opened, next_frame, next_byte, .. } = batch;
        opened.clear();
        while opened.len() < BURST && *next_frame < frames.len() {
            let (frame, arrived) = (&frames[*next_frame], &self.arrived[*next_frame]);
            if let Some(reason) = arrived.refused {
                self.stats.drop(reason);
                *next_frame += 1;
                continue;
            }
            let left = frame.len() - *next_byte;
            let len = if arrived.segment == 0 { left } else { left.min(arrived.segment as usize) };
            opened.push(Opened {
                path: arrived.path,
                frame: *next_frame as u16,
                segments: 1,
                ip: 0,
                udp: 0,
                payload: *next_byte as u32,
                len: len as u32,
            });
            self.stats.received += 1;
            self.stats.received_bytes += len as u64;
            *next_byte += len;
            if *next_byte == frame.len() {
                (*next_frame, *next_byte) = (*next_frame + 1, 0);
            }
        }

        let opened: &'b ArrayVec<Opened, BURST> = opened;
        let mut frames = frames.iter_mut().enumerate();
        let (mut index, mut frame_len, mut base) = (usize::MAX, 0, 0);
        let mut rest: &'b mut [u8] = &mut [];
        for Opened { path, frame, payload, len, .. } in opened {
            while index != *frame as usize {
                let Some((next, frame)) = frames.next() else { return out.len() };
                (index, frame_len, base, rest) = (next, frame.len(), 0, frame.room_mut());
            }
            let (start, len) = (*payload as usize, *len as usize);
            let (_, from) = std::mem::take(&mut rest).split_at_mut(start - base);
            // The room of the last datagram in a buffer goes on to the buffer's end; any other's ends where the next begins.
            let end = if start + len == frame_len { from.len() } else { len };
            let (room, behind) = from.split_at_mut(end);
            (rest, base) = (behind, start + end);
            let most = room.len().min(max_room[usize::from(path.is_ipv4())]).max(len);
            out.push(Datagram::new(&mut room[..most], len, path));
        }
        out.len()
    }

    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts) {
        let mut answers = false;
        for (opened, verdict) in batch.opened.iter().zip(verdicts) {
            match *verdict {
                Verdict::Consume => self.stats.consumed += 1,
                Verdict::Drop(reason) => self.stats.drop(reason),
                Verdict::Reply { len, .. } => {
                    answers = true;
                    // Only the last datagram of a frame can have an answer that is longer than it.
                    let (frame, end) = (&mut batch.frames[opened.frame as usize], opened.payload + len);
                    if end as usize > frame.len() {
                        let fits = frame.set_len(end as usize);
                        debug_assert!(fits, "an answer lies within the room it was given");
                    }
                }
            }
        }
        if answers {
            self.answer(batch, verdicts);
        }
        batch.opened.clear();
        if batch.next_frame == batch.frames.len() {
            batch.frames.drain(..).for_each(|frame| self.pool.give(frame));
        }
    }

    fn send(&mut self, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        let socket = self.socket_for(path).ok_or(SendError::NoRoute)?;
        if len > self.room(path.is_ipv4()) {
            return Err(SendError::TooLong);
        }
        if self.hold.len() >= self.max_hold {
            self.send_held();
        }
        if self.hold.len() >= self.max_hold {
            return Err(SendError::Full);
        }
        let mut frame = self.pool.take(socket).ok_or(SendError::Full)?;
        let fits = frame.set_len(len);
        debug_assert!(fits, "measured above");
        fill(frame.bytes_mut());
        self.hold.push_back(Held { frame, path: *path, socket, answer: false });
        Ok(())
    }

    fn flush(&mut self) {
        if !self.hold.is_empty() {
            self.send_held();
        }
    }

    fn stats(&self) -> DatagramStats {
        self.stats
    }

    /// Asks the kernel for its drops: a system call per socket.
    fn port_stats(&self) -> PortStats {
        let rx_ring_full = self.sockets.iter().map(drops).sum();
        PortStats { rx_ring_full, ..self.port_stats }
    }

    fn ledger(&self) -> Ledger {
        let (pool, held) = (self.pool.ledger(), self.hold.len() as u64);
        Ledger { app: pool.app - held, held, ..pool }
    }

    fn max_payload(&self, ipv4: bool) -> usize {
        self.room(ipv4)
    }

    fn stop_rx(&mut self) {
        self.stopped = true;
        self.watch();
    }

    fn is_drained(&self) -> bool {
        self.hold.is_empty()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.epoll.0.as_raw_fd()]
    }
}

impl<I: SocketIo> Drop for SocketPort<I> {
    fn drop(&mut self) {
        self.hold.drain(..).for_each(|held| self.pool.give(held.frame));
    }
}
