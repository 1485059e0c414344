//! The datagram port over kernel sockets, generic over the calls that move datagrams.

use super::{Arrived, Bound, Completed, Completion, Model, Out, Sent, SocketConfig, SocketError};
use crate::datagram::{
    Batch, Datagram, DatagramPort, DatagramStats, Datagrams, Opened, RawFd, SendError, Verdict, Verdicts,
};
use crate::frame::{BURST, Frame, FramePool, Ledger};
use crate::net::Path;
use crate::port::PortStats;
use crate::time::Now;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::net::SocketAddr;
use volley_wire::DropReason;

/// Largest UDP payload over IPv4: 65,535 less 20 of IPv4 and 8 of UDP header.
const MAX_PAYLOAD_IPV4: usize = 65_507;
/// Largest UDP payload over IPv6 without a jumbogram: 65,535 less 8 of UDP header.
const MAX_PAYLOAD_IPV6: usize = 65_527;

/// Between two tries to send under a model that does not wake for room, in ns. A socket's buffer drains in some 100 µs at worst on
/// a device that works; more often burns the core, less often shows as latency.
const RETRY_NS: u64 = 1_000_000;

/// A datagram kept until the kernel takes it.
struct Held {
    frame: Frame,
    path: Path,
    socket: u16,
    /// An answer; otherwise it was sent unasked.
    answer: bool,
}

/// A datagram port over kernel UDP sockets, one per local address. See [`crate::datagram::models`].
#[allow(private_bounds)]
pub struct SocketPort<M: Model> {
    model: M,
    bound: Vec<Bound>,
    pool: FramePool,
    arrived: Box<[Arrived; BURST]>,
    /// By index in the batch: the model has the frame, under this number.
    kept: Box<[Option<u16>; BURST]>,
    hold: VecDeque<Held>,
    max_hold: usize,
    /// The kernel took no more; the model wakes for room, too.
    blocked: bool,
    stopped: bool,
    closed: bool,
    now_ns: u64,
    stats: DatagramStats,
    port_stats: PortStats,
    name: String,
}

#[allow(private_bounds)]
impl<M: Model> SocketPort<M> {
    /// Binds a socket to each of `addresses`. Port 0 takes a free one ([`SocketPort::local_addresses`] says which).
    ///
    /// # Errors
    /// See [`SocketError`]; nothing is bound then.
    pub fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError> {
        if addresses.is_empty() {
            return Err(SocketError::NoAddress);
        }
        let mut model = M::open(addresses, config)?;
        let bound = model.bound();
        let frames = config.frames.max((config.hold + 2 * BURST) as u32) + model.frames();
        let mut pool = FramePool::new(frames, M::PREFIX + config.frame_bytes + M::SPARE, M::PREFIX);
        model.adopt(&mut pool)?;
        let list: Vec<_> = bound.iter().map(|bound| bound.local.to_string()).collect();
        let nothing = Arrived { path: bound[0].template, segment: 0, refused: None };
        Ok(SocketPort {
            name: format!("{} {}", model.name(), list.join(", ")),
            model,
            bound,
            pool,
            arrived: Box::new([nothing; BURST]),
            kept: Box::new([None; BURST]),
            hold: VecDeque::with_capacity(config.hold),
            max_hold: config.hold,
            blocked: false,
            stopped: false,
            closed: false,
            now_ns: 0,
            stats: DatagramStats::default(),
            port_stats: PortStats::default(),
        })
    }

    /// The addresses its sockets are bound to, in the order they were given.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|bound| bound.local).collect()
    }

    fn set_blocked(&mut self, blocked: bool) {
        if self.blocked != blocked {
            self.blocked = blocked;
            self.model.watch(!self.stopped, blocked);
        }
    }

    /// The socket that datagrams over `path` leave from.
    fn socket_for(&self, path: &Path) -> Option<u16> {
        let heard_on = self.bound.get(path.queue as usize).filter(|bound| bound.serves(path));
        match heard_on {
            Some(_) => Some(path.queue),
            None => self.bound.iter().position(|bound| bound.serves(path)).map(|index| index as u16),
        }
    }

    fn room(&self, ipv4: bool) -> usize {
        let room = self.pool.room() - M::SPARE as usize;
        room.min(if ipv4 { MAX_PAYLOAD_IPV4 } else { MAX_PAYLOAD_IPV6 })
    }

    /// Sends what is held, as far as the kernel takes it.
    fn send_held(&mut self) {
        while !self.hold.is_empty() {
            if !self.transmit_held() {
                // A completion model may only be short of places for what it has not handed over yet.
                let (_, before) = self.model.in_kernel();
                self.model.submit(&mut self.port_stats);
                self.reap();
                if self.model.in_kernel().1 >= before {
                    return self.set_blocked(true);
                }
            }
        }
        self.set_blocked(false);
    }

    /// Offers the kernel a burst of what is held; false when it did not take all of it.
    fn transmit_held(&mut self) -> bool {
        let mut out = ArrayVec::<Out<'_>, BURST>::new();
        for Held { frame, path, socket, answer } in self.hold.iter().take(BURST) {
            out.push(Out { socket: *socket, path, bytes: frame.bytes(), answer: *answer });
        }
        let (stats, hold) = (&mut self.stats, &self.hold);
        let mut kept = [None; BURST];
        let sent = self.model.transmit(&out, &mut self.port_stats, |index, sent| match sent {
            Sent::Taken => count_sent(stats, hold[index].answer),
            Sent::Refused => stats.drop(DropReason::TxRefused),
            Sent::Kept(slot) => kept[index] = Some(slot),
        });
        let all = sent == out.len();
        drop(out);
        for (held, kept) in self.hold.drain(..sent).zip(kept) {
            match kept {
                Some(slot) => self.model.keep(slot, held.frame),
                None => self.pool.give(held.frame),
            }
        }
        all
    }

    /// Takes back what the model is done with. What found no room is held again.
    fn reap(&mut self) {
        let (stats, hold, max_hold) = (&mut self.stats, &mut self.hold, self.max_hold);
        let mut blocked = false;
        self.model.reap(&mut self.pool, &mut self.port_stats, |pool, completion| {
            let Completion { frame, path, socket, answer, result } = completion;
            match result {
                Completed::Sent => count_sent(stats, answer),
                Completed::Refused => stats.drop(DropReason::TxRefused),
                Completed::Blocked if hold.len() < max_hold => {
                    blocked = true;
                    return hold.push_back(Held { frame, path, socket, answer });
                }
                Completed::Blocked => stats.drop(DropReason::TxFull),
            }
            pool.give(frame);
        });
        if blocked {
            self.set_blocked(true);
        }
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
        let mut frames = ArrayVec::<u8, BURST>::new();
        for (opened, verdict) in batch.opened.iter().zip(verdicts) {
            let Verdict::Reply { len, .. } = *verdict else { continue };
            let (start, path) = (opened.payload as usize, &batch.paths[opened.frame as usize]);
            let bytes = &batch.frames[opened.frame as usize].bytes()[start..start + len as usize];
            out.push(Out { socket: path.queue, path, bytes, answer: true });
            frames.push(opened.frame as u8);
        }
        let mut sent = 0;
        // What has waited goes first.
        if !self.blocked && !out.is_empty() {
            let (stats, kept) = (&mut self.stats, &mut self.kept);
            sent = self.model.transmit(&out, &mut self.port_stats, |index, sent| match sent {
                Sent::Taken => stats.answered += 1,
                Sent::Refused => stats.drop(DropReason::TxRefused),
                Sent::Kept(slot) => kept[usize::from(frames[index])] = Some(slot),
            });
        }
        if sent < out.len() {
            self.set_blocked(true);
            for Out { socket, path, bytes, .. } in &out[sent..] {
                self.hold_answer(*socket, path, bytes);
            }
        }
    }
}

/// Counts a datagram that left.
fn count_sent(stats: &mut DatagramStats, answer: bool) {
    *if answer { &mut stats.answered } else { &mut stats.sent } += 1;
}

impl<M: Model> DatagramPort for SocketPort<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn recv(&mut self, batch: &mut Batch, now: Now) -> usize {
        self.now_ns = now.ns;
        if self.stopped && !self.model.has_arrived() {
            return 0;
        }
        self.reap();
        (batch.next_frame, batch.next_byte) = (0, 0);
        let (pool, arrived) = (&mut self.pool, &mut self.arrived[..]);
        self.model.receive(pool, &mut batch.frames, arrived, &mut self.port_stats);
        batch.paths.clear();
        batch.paths.extend(arrived[..batch.frames.len()].iter().map(|arrived| arrived.path));
        self.port_stats.rx_frames += batch.frames.len() as u64;
        batch.frames.len()
    }

    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        let max_room = [self.room(false), self.room(true)];
        let Batch { frames, opened, paths, next_frame, next_byte, .. } = batch;
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
                frame: *next_frame as u16,
                segments: 1,
                payload: *next_byte as u32,
                len: len as u32,
                ..Opened::default()
            });
            self.stats.received += 1;
            self.stats.received_bytes += len as u64;
            *next_byte += len;
            if *next_byte == frame.len() {
                (*next_frame, *next_byte) = (*next_frame + 1, 0);
            }
        }

        let (opened, paths): (&'b ArrayVec<Opened, BURST>, &'b ArrayVec<Path, BURST>) = (opened, paths);
        let mut frames = frames.iter_mut().enumerate();
        let (mut index, mut frame_len, mut base) = (usize::MAX, 0, 0);
        let mut rest: &'b mut [u8] = &mut [];
        for Opened { frame, payload, len, .. } in opened {
            let path = &paths[usize::from(*frame)];
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
            for (index, frame) in batch.frames.drain(..).enumerate() {
                match self.kept[index].take() {
                    Some(slot) => self.model.keep(slot, frame),
                    None => self.pool.give(frame),
                }
            }
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
        self.model.submit(&mut self.port_stats);
        self.reap();
    }

    fn stats(&self) -> DatagramStats {
        self.stats
    }

    /// Asks the kernel for its drops: a system call per socket.
    fn port_stats(&self) -> PortStats {
        PortStats { rx_ring_full: self.model.drops(), ..self.port_stats }
    }

    fn ledger(&self) -> Ledger {
        let (pool, held) = (self.pool.ledger(), self.hold.len() as u64);
        let (kernel_rx, kernel_tx) = self.model.in_kernel();
        Ledger { app: pool.app - held - kernel_rx - kernel_tx, held, kernel_rx, kernel_tx, ..pool }
    }

    fn max_payload(&self, ipv4: bool) -> usize {
        self.room(ipv4)
    }

    fn stop_rx(&mut self) {
        self.stopped = true;
        self.model.watch(false, self.blocked);
    }

    fn is_drained(&self) -> bool {
        self.hold.is_empty() && self.model.in_kernel().1 == 0
    }

    fn close(&mut self) -> Ledger {
        if !std::mem::replace(&mut self.closed, true) {
            self.stopped = true;
            self.model.submit(&mut self.port_stats);
            self.reap();
            self.stats.dropped[DropReason::PortClosed as usize] += self.model.close(&mut self.pool);
        }
        let ledger = self.ledger();
        Ledger { kernel_tx: 0, kernel_rx: 0, abandoned: ledger.kernel_tx + ledger.kernel_rx, ..ledger }
    }

    fn failure(&self) -> Option<String> {
        self.model.failure()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        self.model.poll_fds()
    }

    fn before_sleep(&mut self) -> bool {
        self.model.before_sleep()
    }

    fn next_deadline(&self) -> Option<u64> {
        (self.blocked && !M::WAKES_FOR_ROOM).then(|| self.now_ns + RETRY_NS)
    }
}

impl<M: Model> Drop for SocketPort<M> {
    fn drop(&mut self) {
        self.hold.drain(..).for_each(|held| self.pool.give(held.frame));
        self.close();
    }
}
