//! Our own TCP as a stream port: `volley-tcp` beneath a [`crate::net::Net`].
//!
//! The stack knows segments, the net layer frames; this is what stands between an app and the stack. Net hands a burst's segments
//! in as they arrive, in their frames (`held`), and takes those back with each flush: what the app reads in between it reads where
//! it arrived, and only what it leaves unread is copied. The same flush fetches what is to be sent, so a turn's acknowledgments ride on
//! its answers.
//!
//! What it never does: look into a frame, at an address of the link layer, or at a clock.

pub(crate) mod held;

use super::slow::SlowReaders;
use super::{
    CloseReason, Shutdown, StreamError, StreamEvent, StreamId, StreamInfo, StreamOption, StreamPort,
    StreamStats,
};
use crate::frame::BURST;
use crate::time::Now;
use arrayvec::ArrayVec;
use held::Held;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use volley_tcp::{
    ChecksumStatus, ConnectionId, ConnectionOptions, Drop as Refused, Egress, EventKind, IcmpMessage,
    Instant, KeepAlive, ListenOptions, ListenerId, SegmentIn, Segments as _, Stack,
};

/// What our own TCP is made with.
#[derive(Clone, Debug)]
pub struct OwnConfig {
    /// Where it listens. Unspecified addresses take every address.
    pub listen: Vec<SocketAddr>,
    /// The stack.
    pub stack: volley_tcp::Config,
    /// Bytes an app may leave unread, and may have unacknowledged, in each connection.
    pub buffer: u32,
    /// How long a peer may take nothing while written bytes wait, in ns, before it is disconnected.
    pub slow_reader_ns: u64,
    /// After this long without a sign of the peer, in seconds, it is asked; three answers missing, and it is gone.
    pub keep_alive_secs: u32,
    /// 64 bytes from the system's generator, never used twice.
    pub entropy: [u8; 64],
}

/// What the net layer knows of a segment of the burst under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ecn: u8,
    pub checksum: ChecksumStatus,
    /// Names the way back.
    pub path: u32,
}

/// The stack, and what the port notes beside it.
pub struct OwnStreams {
    stack: Stack,
    /// The burst under way.
    held: Held,
    options: ConnectionOptions,
    listeners: Vec<ListenerId>,
    again: Vec<StreamId>,
    /// By slot: the app knows of it, and has not been told yet that it is closed.
    open: Vec<Option<ConnectionId>>,
    slow: SlowReaders,
    /// `Closed` was told of this one; its slot goes back before the next event.
    leaving: Option<ConnectionId>,
    /// Ended by us for this reason, which the stack does not know.
    reason: Option<(ConnectionId, CloseReason)>,
    now_ns: u64,
    stopped: bool,
    stats: StreamStats,
}

impl OwnStreams {
    /// A stack that listens. Addresses that are given twice are listened on once.
    pub fn new(config: &OwnConfig) -> OwnStreams {
        let keep_alive = KeepAlive {
            idle: Duration::from_secs(u64::from(config.keep_alive_secs.max(1))),
            interval: Duration::from_secs(u64::from(config.keep_alive_secs / 3).max(1)),
            probes: 3,
        };
        let options = ConnectionOptions {
            receive_buffer: config.buffer,
            send_buffer: config.buffer,
            keep_alive: Some(keep_alive),
            ..ConnectionOptions::default()
        };
        let mut stack = Stack::new(config.stack, &config.entropy, Instant::from_nanos(0));
        let listen = ListenOptions { connection: options, ..ListenOptions::default() };
        let listeners =
            config.listen.iter().filter_map(|address| stack.listen(*address, listen).ok()).collect();
        let most = config.stack.max_connections;
        OwnStreams {
            stack,
            held: Held::default(),
            options,
            listeners,
            again: Vec::with_capacity(most as usize),
            open: vec![None; most as usize],
            slow: SlowReaders::new(most, config.slow_reader_ns),
            leaving: None,
            reason: None,
            now_ns: 0,
            stopped: false,
            stats: StreamStats::default(),
        }
    }

    /// Where the segments of a burst are put for [`OwnStreams::receive`].
    pub(crate) fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    /// True from [`OwnStreams::receive`] to [`OwnStreams::release`].
    pub(crate) fn is_under_way(&self) -> bool {
        !self.held.is_empty()
    }

    /// True while there are connections in TIME-WAIT.
    pub(crate) fn has_time_wait(&self) -> bool {
        self.stack.population().time_wait > 0
    }

    /// Frames of the burst under way.
    pub(crate) fn holds(&self) -> usize {
        self.held.len()
    }

    /// Takes the burst in that stands in [`OwnStreams::held`]. It stays there until [`OwnStreams::release`].
    pub(crate) fn receive(&mut self, now_ns: u64, arrived: &[Arrived]) {
        self.now_ns = now_ns;
        let segments: ArrayVec<SegmentIn<'_>, BURST> = arrived
            .iter()
            .enumerate()
            .map(|(at, arrived)| SegmentIn {
                source: arrived.source,
                destination: arrived.destination,
                ecn: arrived.ecn,
                checksum: arrived.checksum,
                path: arrived.path,
                bytes: self.held.segment(at),
            })
            .collect();
        self.stack.receive_burst(Instant::from_nanos(now_ns), &segments).detach();
    }

    /// Ends the burst: what no app has read is copied. The frames are for whoever calls to free.
    pub(crate) fn release(&mut self) -> &mut crate::frame::Burst {
        self.stack.release(&self.held);
        self.held.clear()
    }

    /// Takes segments in that are to be gone when this returns: what they carry is copied. No burst is under way.
    pub(crate) fn receive_copied(&mut self, now_ns: u64, segments: &[SegmentIn<'_>]) {
        self.now_ns = now_ns;
        drop(self.stack.receive_burst(Instant::from_nanos(now_ns), segments));
    }

    /// Takes an ICMP error about a segment of ours; returns whether it was believed.
    pub(crate) fn icmp(&mut self, message: &IcmpMessage) -> bool {
        self.stack.icmp(message)
    }

    /// Hands out what is to be sent.
    pub(crate) fn transmit(&mut self, now_ns: u64, egress: &mut impl Egress) -> usize {
        self.stack.transmit(Instant::from_nanos(now_ns), egress)
    }

    /// True when [`OwnStreams::transmit`] has something to do.
    pub(crate) fn wants_transmit(&self) -> bool {
        self.stack.wants_transmit()
    }

    /// Adds to the counters what only the net layer knows.
    pub(crate) fn count(&mut self, count: impl FnOnce(&mut StreamStats)) {
        count(&mut self.stats);
    }

    fn live(&self, id: StreamId) -> Result<ConnectionId, StreamError> {
        let connection = ConnectionId { slot: id.slot, generation: id.generation };
        self.stack.unread(connection).map(|_| connection).map_err(|_| StreamError::Stale)
    }

    /// Passive opens are taken from their listener as soon as they are told of.
    fn accept(&mut self, connection: ConnectionId) {
        let listener = self.stack.info(connection).ok().and_then(|info| info.listener);
        match listener.and_then(|listener| self.stack.accept(listener)) {
            Some(_) => self.stats.accepted += 1,
            None => self.stats.connected += 1,
        }
    }

    fn closed(&mut self, connection: ConnectionId, reason: volley_tcp::CloseReason) -> CloseReason {
        use volley_tcp::CloseReason as Theirs;
        let own = self.reason.take_if(|(of, _)| *of == connection).map(|(_, reason)| reason);
        let reason = own.unwrap_or(match reason {
            Theirs::Finished => CloseReason::Finished,
            Theirs::Reset => CloseReason::Reset,
            Theirs::Refused => CloseReason::Refused,
            Theirs::Aborted => CloseReason::Aborted,
            Theirs::TimedOut => CloseReason::TimedOut,
            Theirs::Unreachable => CloseReason::Unreachable,
        });
        self.stats.ended(reason);
        reason
    }
}

fn id(connection: ConnectionId) -> StreamId {
    StreamId { slot: connection.slot, generation: connection.generation }
}

impl StreamPort for OwnStreams {
    fn name(&self) -> &str {
        "tcp own"
    }

    fn poll(&mut self, now: Now) -> usize {
        self.now_ns = now.ns;
        let mut work = self.again.len();
        if self.stack.next_deadline().is_some_and(|at| at.nanos() <= now.ns) {
            self.stack.timers(Instant::from_nanos(now.ns));
            work += 1;
        }
        while let Some(slow) = self.slow.due(now.ns) {
            let connection = ConnectionId { slot: slow.slot, generation: slow.generation };
            if self.stack.abort(connection).is_ok() {
                self.reason = Some((connection, CloseReason::SlowReader));
                // One at a time: its event is pulled before the next is looked for.
                return work + 1;
            }
        }
        work
    }

    fn next_event(&mut self) -> Option<(StreamId, StreamEvent)> {
        if let Some(connection) = self.leaving.take() {
            // Stale when the app has closed it itself: then the slot is back already.
            let _ = self.stack.close(connection);
        }
        while let Some(again) = self.again.pop() {
            if self.live(again).is_ok() {
                self.stats.events += 1;
                return Some((again, StreamEvent::Readable));
            }
        }
        let event = self.stack.next_event()?;
        let connection = event.connection;
        self.stats.events += 1;
        let kind = match event.kind {
            EventKind::Established => {
                self.accept(connection);
                self.open[connection.slot as usize] = Some(connection);
                StreamEvent::Opened
            }
            EventKind::Readable => StreamEvent::Readable,
            EventKind::Writable => {
                self.slow.moved(id(connection));
                StreamEvent::Writable
            }
            EventKind::PeerClosed => StreamEvent::PeerClosed,
            EventKind::Closed(reason) => {
                self.slow.moved(id(connection));
                self.leaving = Some(connection);
                self.open[connection.slot as usize] = None;
                StreamEvent::Closed(self.closed(connection, reason))
            }
        };
        Some((id(connection), kind))
    }

    fn peek(&mut self, id: StreamId) -> Result<&[u8], StreamError> {
        let connection = self.live(id)?;
        self.stack.peek_in(connection, &self.held).map_err(|_| StreamError::Stale)
    }

    fn consume(&mut self, id: StreamId, n: usize) -> Result<(), StreamError> {
        let connection = self.live(id)?;
        let read = self.stack.read(connection, n).map_err(|_| StreamError::Stale)?;
        self.stats.received_bytes += read as u64;
        Ok(())
    }

    fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        let connection = self.live(id)?;
        let written = self.stack.write(connection, bytes).map_err(|error| match error {
            volley_tcp::Error::Stale => StreamError::Stale,
            _ => StreamError::Closed,
        })?;
        self.stats.sent_bytes += written as u64;
        if written < bytes.len() {
            self.slow.blocked(id, self.now_ns);
        }
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
        let how = match how {
            Shutdown::Read => volley_tcp::Shutdown::Read,
            Shutdown::Write => volley_tcp::Shutdown::Write,
            Shutdown::Both => volley_tcp::Shutdown::Both,
        };
        self.stack.shutdown(connection, how).map_err(|_| StreamError::Closed)
    }

    fn close(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.live(id)?;
        if self.leaving == Some(connection) {
            return Ok(());
        }
        self.stack.close(connection).map_err(|_| StreamError::Stale)
    }

    fn abort(&mut self, id: StreamId) -> Result<(), StreamError> {
        let connection = self.live(id)?;
        if self.leaving == Some(connection) {
            return Ok(());
        }
        self.stack.abort(connection).map_err(|_| StreamError::Stale)
    }

    fn connect(&mut self, local: Option<SocketAddr>, remote: SocketAddr) -> Result<StreamId, StreamError> {
        // The route's source address is the net layer's to know: an app that connects names its own.
        let local = local.ok_or(StreamError::NoRoute)?;
        // The stack counts from the last time it was told; after a long silence that would be over at once.
        self.stack.timers(Instant::from_nanos(self.now_ns));
        let connection =
            self.stack.connect(local, remote, 0, &self.options).map_err(|error| match error {
                volley_tcp::Error::NoSlot(_) => StreamError::Full,
                volley_tcp::Error::NoPort(_) | volley_tcp::Error::AddressInUse(_) => StreamError::NoPort,
                _ => StreamError::NoRoute,
            })?;
        self.open[connection.slot as usize] = Some(connection);
        Ok(id(connection))
    }

    fn info(&self, id: StreamId) -> Result<StreamInfo, StreamError> {
        let connection = self.live(id)?;
        let info = self.stack.info(connection).map_err(|_| StreamError::Stale)?;
        Ok(StreamInfo { local: info.local, remote: info.remote, active: info.listener.is_none() })
    }

    fn set_option(&mut self, id: StreamId, option: StreamOption) -> Result<(), StreamError> {
        let connection = self.live(id)?;
        self.stack.set_option(connection, option).map_err(|_| StreamError::Stale)
    }

    /// Besides: ends what is open in good order. Nothing is received any more, so what is lost on the way stays lost.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        for listener in self.listeners.drain(..) {
            let _ = self.stack.close_listener(listener);
        }
        for slot in 0..self.open.len() {
            if let Some(connection) = self.open[slot] {
                let _ = self.stack.close(connection);
            }
        }
    }

    fn is_drained(&self) -> bool {
        !self.stack.wants_transmit()
    }

    fn close_port(&mut self) {
        self.stop();
        while self.next_event().is_some() {}
    }

    fn give_up(&mut self, tell: &mut dyn FnMut(StreamId)) {
        self.stopped = true;
        for listener in self.listeners.drain(..) {
            let _ = self.stack.close_listener(listener);
        }
        // What the app was not told of yet it need not hear the end of.
        while self.stack.next_event().is_some() {}
        for connection in self.open.iter_mut().filter_map(Option::take) {
            let _ = self.stack.abort(connection);
            self.stats.ended(CloseReason::SteppedDown);
            tell(id(connection));
        }
        while self.stack.next_event().is_some() {}
    }

    fn stats(&self) -> StreamStats {
        let counters = self.stack.counters();
        StreamStats {
            open: u64::from(self.stack.population().connections),
            segments_received: counters.received,
            segments_sent: counters.transmitted,
            retransmitted: counters.retransmits,
            segments_dropped: counters.drops().map(|(_, count)| count).sum(),
            bad_checksum: counters.dropped(Refused::Checksum),
            refused_full: counters.dropped(Refused::NoConnectionSlot),
            no_memory: counters.dropped(Refused::NoMemory),
            resets_sent: counters.resets_sent,
            syns: counters.syns,
            cookies_sent: counters.cookies_sent,
            cookies_accepted: counters.cookies_accepted,
            challenge_acks: counters.challenge_acks,
            in_place_bytes: counters.bytes_in_place,
            copied_bytes: counters.bytes_copied,
            pool_bytes: self.stack.pool_used() as u64,
            ..self.stats
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        if !self.again.is_empty() {
            return Some(0);
        }
        let stack = self.stack.next_deadline().map(Instant::nanos);
        [stack, self.slow.next_deadline()].into_iter().flatten().min()
    }
}
