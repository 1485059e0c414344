//! The stack: bursts of segments in, segments out, time told.

use crate::config::Config;
use crate::connections::Connections;
use crate::counters::Drop as DropReason;
use crate::segment::{Segment, SegmentIn, Segments};
use crate::tcb::ConnectionId;
use crate::time::Instant;
use std::ops::{Deref, DerefMut};

/// Segments looked up together. What the demultiplexer and the connections read for one is on its way from memory while the
/// others are parsed.
const BURST: usize = 64;

/// A TCP stack.
///
/// ```text
///   receive_burst(now, segments) ─► Burst: next_event, peek, read, write …   (in-order data straight from the frames)
///   drop(Burst)                                                              (what is unread is copied)
///   timers(now)                  ─► next_event …
///   transmit(now, egress)                                                    (data, and acknowledgments that found none)
///   next_deadline()              ─► when to call again, if no segment comes
/// ```
pub struct Stack {
    connections: Connections,
    /// Reused from burst to burst.
    parsed: Vec<(u64, Segment)>,
    deferred: Vec<usize>,
}

impl Stack {
    /// A stack. `entropy` keys everything that must not be guessed: 64 bytes from the system's generator, never used twice.
    pub fn new(config: Config, entropy: &[u8; 64], now: Instant) -> Stack {
        Stack {
            connections: Connections::new(config, entropy, now),
            parsed: Vec::with_capacity(BURST),
            deferred: Vec::with_capacity(BURST),
        }
    }

    /// Takes a burst of segments. What arrives in order can be read from the frames through the [`Burst`] until that is
    /// dropped. Segments of connections are served before SYNs and everything else.
    ///
    /// # Panics
    /// When a burst before was [detached](Burst::detach) and not released.
    pub fn receive_burst<'s, 'f>(&'s mut self, now: Instant, frames: &'s [SegmentIn<'f>]) -> Burst<'s, 'f> {
        assert!(self.connections.pieces.is_empty(), "the burst before was not released");
        self.connections.tell(now);
        for (n, burst) in frames.chunks(BURST).enumerate() {
            self.receive_some(burst, n * BURST, frames);
        }
        Burst { connections: &mut self.connections, frames, detached: false }
    }

    fn receive_some(&mut self, burst: &[SegmentIn<'_>], base: usize, frames: &[SegmentIn<'_>]) {
        let connections = &mut self.connections;
        self.parsed.clear();
        self.deferred.clear();
        connections.counters.received += burst.len() as u64;
        let mut touched = 0;
        for (i, input) in burst.iter().enumerate() {
            match Segment::parse(input, (base + i) as u32) {
                Ok(segment) => {
                    let hash = connections.secret.flow(&segment.key);
                    self.parsed.push((hash, segment));
                }
                Err(reason) => connections.counters.drop(reason),
            }
        }
        // Memory is asked for in steps, each for the whole burst and short, so that the misses of a step overlap: the table;
        // the connections; what these name.
        for (hash, _) in &self.parsed {
            touched ^= connections.demux.touch(*hash);
        }
        for (hash, _) in &self.parsed {
            let slot = connections.demux.touch(*hash) as usize;
            if let (Some(hot), Some(cold)) =
                (connections.slab.hot.get(slot), connections.slab.cold.get(slot))
            {
                touched ^= hot.flags ^ hot.snd_una.0 ^ cold.touch();
            }
        }
        for (hash, _) in &self.parsed {
            let slot = connections.demux.touch(*hash);
            if let Some(hot) = connections.slab.hot.get(slot as usize) {
                touched ^= connections.records.touch(hot.records.0) ^ connections.pool.touch(hot.send.head);
                touched ^= connections.wheel.touch(slot);
            }
        }
        std::hint::black_box(touched);
        for (i, (hash, segment)) in self.parsed.iter().enumerate() {
            match connections.find(*hash, &segment.key) {
                Some(slot) => connections.segment_arrives(slot, segment, *hash, frames),
                None => self.deferred.push(i),
            }
        }
        for &i in &self.deferred {
            let (hash, segment) = &self.parsed[i];
            connections.stray_arrives(segment, *hash, frames);
        }
    }

    /// Fires what is due. Call when [`Connections::next_deadline`] has come; more often does no harm.
    pub fn timers(&mut self, now: Instant) {
        self.connections.tell(now);
        self.connections.fire_timers();
    }
}

impl Deref for Stack {
    type Target = Connections;
    fn deref(&self) -> &Connections {
        &self.connections
    }
}

impl DerefMut for Stack {
    fn deref_mut(&mut self) -> &mut Connections {
        &mut self.connections
    }
}

/// A burst that has been taken in and whose frames can still be read. Dropping it copies what the application has not read.
pub struct Burst<'s, 'f> {
    connections: &'s mut Connections,
    frames: &'s [SegmentIn<'f>],
    detached: bool,
}

impl Burst<'_, '_> {
    /// Lets go of the borrows, for a caller that owns the frames and keeps them beside the stack. The same bytes can be read with
    /// [`Connections::peek_in`] and must be given up with [`Connections::release`] before the next burst.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The first unread bytes that stand together, in the pool or in a frame. Empty when there are none.
    pub fn peek(&self, connection: ConnectionId) -> Result<&[u8], crate::Error> {
        self.connections.peek_in(connection, self.frames)
    }
}

impl Deref for Burst<'_, '_> {
    type Target = Connections;
    fn deref(&self) -> &Connections {
        self.connections
    }
}

impl DerefMut for Burst<'_, '_> {
    fn deref_mut(&mut self) -> &mut Connections {
        self.connections
    }
}

impl Drop for Burst<'_, '_> {
    fn drop(&mut self) {
        if !self.detached {
            self.connections.release(self.frames);
        }
    }
}

impl Connections {
    /// As [`Burst::peek`], of a burst that was [detached](Burst::detach): `segments` are those it was made of, at the same places.
    pub fn peek_in<'a>(
        &'a self,
        connection: ConnectionId,
        segments: &'a (impl Segments + ?Sized),
    ) -> Result<&'a [u8], crate::Error> {
        let pooled = self.peek(connection)?;
        if !pooled.is_empty() {
            return Ok(pooled);
        }
        Ok(self.pieces.first(&self.slab.cold[connection.slot as usize], segments))
    }

    /// Ends a burst that was [detached](Burst::detach): copies what the application has not read. `segments` are those it was
    /// made of; afterwards they are free. Does nothing when there is no burst under way.
    pub fn release(&mut self, segments: &(impl Segments + ?Sized)) {
        let Connections { pieces, slab, pool, counters, .. } = self;
        for i in 0..pieces.slots.len() {
            let slot = pieces.slots[i] as usize;
            pieces.flush(&mut slab.cold[slot], pool, counters, segments);
        }
        pieces.clear();
    }

    /// Takes note of the time. It never runs backwards.
    pub(crate) fn tell(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &crate::address::FlowKey) -> Option<u32> {
        self.demux.find(hash, |slot| self.slab.hot[slot as usize].key == *key)
    }

    /// Counts what became of a segment.
    #[inline]
    pub(crate) fn account(&mut self, outcome: Option<DropReason>) {
        match outcome {
            None => self.counters.accepted += 1,
            Some(reason) => self.counters.drop(reason),
        }
    }
}
