//! A port whose device is a handle in the same process: for tests, fuzzing and benches, with the rings of a real one.
//!
//! ```text
//!   MemoryPort                                           MemoryWire (any thread)
//!   flush ──── fill ring ──────► empty frames ─────────► inject: a packet is copied in
//!   rx    ◄─── rx ring ───────── filled frames ◄──────── │   (no frame, ring full: refused and counted)
//!   tx    ──── tx ring ────────► frames to send ───────► collect: the packet is shown
//!   flush ◄─── completion ring ─ the same frames ◄────── │   (unless completions are held back)
//! ```
//!
//! Each queue has those four rings, lock-free and of fixed size, so back-pressure is that of a device: nobody collects, the tx
//! ring fills, `tx` accepts no more. Neither half allocates once it is made. The port never looks at a packet.

mod link;
mod wire;

pub use wire::{MemoryWire, Refused, Transmitted};

use super::{Port, PortInfo, PortStats, QueueCounters};
use crate::datagram::RawFd;
use crate::frame::{Burst, FramePool, Ledger, flag};
use link::{PortQueue, Shared, Slot, WireQueue};
use rtrb::RingBuffer;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use volley_wire::ethernet::Mac;

/// What a memory port is made of.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// Queue pairs, numbered from 0.
    pub queues: u16,
    /// Slots of each queue's fill, rx and tx ring. Few of them bring back-pressure about early.
    pub ring: usize,
    /// Frames of all queues together. Up to `ring` per queue are posted for receive; what is left of them can be sent from.
    pub frames: u32,
    /// Bytes of a frame.
    pub chunk: u32,
    /// Bytes kept free before each packet.
    pub headroom: u32,
    /// See [`PortInfo::mtu`].
    pub mtu: usize,
    /// See [`PortInfo::mac`].
    pub mac: Option<Mac>,
    /// See [`PortInfo::tx_checksum`]. The wire shows such frames as they are, unfinished.
    pub tx_checksum: bool,
    /// See [`PortInfo::max_segments`].
    pub max_segments: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            queues: 1,
            ring: 256,
            frames: 1024,
            chunk: 2048,
            headroom: 256,
            mtu: 1500,
            mac: None,
            tx_checksum: false,
            max_segments: 1,
        }
    }
}

/// The port's half. See the module.
pub struct MemoryPort {
    queues: Vec<PortQueue>,
    pool: FramePool,
    first_queue: usize,
    stopped: bool,
    posted: u64,
    stats: PortStats,
    /// Where the frames were when the port closed, and how many the pool had then.
    closed: Option<(Ledger, u64)>,
    shared: Arc<Shared>,
    info: PortInfo,
}

impl MemoryPort {
    /// A port and the other end of its wire.
    ///
    /// # Panics
    /// When a number in `config` is 0 or the headroom leaves no room for a packet.
    pub fn new(config: &MemoryConfig) -> (MemoryPort, MemoryWire) {
        let MemoryConfig { queues, ring, frames, .. } = *config;
        assert!(queues > 0 && ring > 0 && frames > 0 && config.max_segments > 0, "{config:?}");
        let shared = Arc::new(Shared::default());
        let (mut port_queues, mut wire_queues) = (Vec::new(), Vec::new());
        for _ in 0..queues {
            let (fill, fill_out) = RingBuffer::new(ring);
            let (rx_in, rx) = RingBuffer::new(ring);
            let (tx, tx_out) = RingBuffer::new(ring);
            // Completions never wait: the ring takes all there can be.
            let (completion_in, completion) = RingBuffer::new(frames as usize);
            port_queues.push(PortQueue {
                fill,
                rx,
                tx,
                completion,
                promised: 0,
                counters: QueueCounters::default(),
            });
            wire_queues.push(WireQueue {
                fill: fill_out,
                rx: rx_in,
                tx: tx_out,
                completion: completion_in,
            });
        }
        let pool = FramePool::new(frames, config.chunk, config.headroom);
        let wire = MemoryWire {
            queues: wire_queues,
            room: pool.room(),
            max_segments: config.max_segments,
            hold_completions: false,
            withheld: VecDeque::with_capacity(frames as usize),
            joined: Vec::with_capacity(pool.room() * config.max_segments),
            shared: shared.clone(),
        };
        let mut port = MemoryPort {
            queues: port_queues,
            pool,
            first_queue: 0,
            stopped: false,
            posted: 0,
            stats: PortStats::default(),
            closed: None,
            shared,
            info: PortInfo {
                name: format!("memory ({queues} queues)"),
                mtu: config.mtu,
                mac: config.mac,
                queues: (0..queues).collect(),
                tx_checksum: config.tx_checksum,
                max_segments: config.max_segments,
            },
        };
        port.post();
        (port, wire)
    }

    /// Posts free frames for receive, in turn over the queues so that none starves.
    fn post(&mut self) {
        if self.stopped {
            return;
        }
        let mut open = true;
        while open {
            open = false;
            for (number, queue) in self.queues.iter_mut().enumerate() {
                let Ok(chunk) = queue.fill.write_chunk_uninit(1) else { continue };
                let Some(frame) = self.pool.take(number as u16) else { return };
                chunk.fill_from_iter([ManuallyDrop::new(frame)]);
                self.posted += 1;
                open = true;
            }
        }
    }

    fn reap(&mut self) {
        for queue in &mut self.queues {
            let done = queue.completion.slots();
            let Ok(chunk) = queue.completion.read_chunk(done) else { continue };
            for frame in chunk {
                self.pool.give(ManuallyDrop::into_inner(frame));
            }
            self.stats.tx_completed += done as u64;
            queue.counters.tx_completed += done as u64;
        }
    }
}

/// How many frames at the front of a ring are whole packets and at most `room`.
fn whole_packets(ring: (&[Slot], &[Slot]), room: usize) -> usize {
    let mut whole = 0;
    for (seen, frame) in ring.0.iter().chain(ring.1).take(room).enumerate() {
        if !frame.has(flag::MORE) {
            whole = seen + 1;
        }
    }
    whole
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        self.shared.rx_stopped.store(true, Ordering::Release);
        self.reap();
        let mut estate = self.shared.estate();
        for queue in &mut self.queues {
            let waiting = queue.rx.slots();
            estate
                .frames
                .extend(queue.rx.read_chunk(waiting).into_iter().flatten().map(ManuallyDrop::into_inner));
        }
        estate.pool = Some(std::mem::replace(&mut self.pool, FramePool::new(0, 1, 0)));
        estate.settle();
    }
}

impl Port for MemoryPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn rx(&mut self, burst: &mut Burst) -> usize {
        self.shared.bell.answer();
        if self.closed.is_some() {
            return 0;
        }
        let before = burst.len();
        // Each call begins with another queue, so that a full burst from one does not starve the rest.
        self.first_queue = (self.first_queue + 1) % self.queues.len();
        let (behind, ahead) = self.queues.split_at_mut(self.first_queue);
        for queue in ahead.iter_mut().chain(behind) {
            let (there, room) = (queue.rx.slots(), burst.remaining_capacity());
            let Ok(chunk) = queue.rx.read_chunk(there.min(room)) else { continue };
            let take = whole_packets(chunk.as_slices(), room);
            burst.extend(chunk.into_iter().take(take).map(ManuallyDrop::into_inner));
            queue.counters.rx_frames += take as u64;
        }
        let received = burst.len() - before;
        self.stats.rx_frames += received as u64;
        received
    }

    fn tx(&mut self, burst: &mut Burst) -> usize {
        let mut accepted = 0;
        if self.closed.is_some() {
            return 0;
        }
        while let Some(last) = burst[accepted..].iter().position(|frame| !frame.has(flag::MORE)) {
            if let Some(queue) = self.queues.get_mut(burst[accepted].queue() as usize) {
                if queue.tx.slots() < queue.promised + last + 1 {
                    break;
                }
                queue.promised += last + 1;
            }
            accepted += last + 1;
        }
        for frame in burst.drain(..accepted) {
            match self.queues.get_mut(frame.queue() as usize) {
                Some(queue) => {
                    let pushed = queue.tx.push(ManuallyDrop::new(frame));
                    debug_assert!(pushed.is_ok(), "a frame was promised a slot that is not there");
                    self.stats.tx_frames += 1;
                    queue.counters.tx_frames += 1;
                }
                None => {
                    self.pool.give(frame);
                    self.stats.invalid_descriptors += 1;
                }
            }
        }
        self.queues.iter_mut().for_each(|queue| queue.promised = 0);
        accepted
    }

    fn flush(&mut self) {
        if self.closed.is_some() {
            return;
        }
        // There is nobody to wake, but a device would be.
        for QueueCounters { tx_frames, tx_completed, tx_wakeups, .. } in
            self.queues.iter_mut().map(|queue| &mut queue.counters)
        {
            let rings = u64::from(tx_frames > tx_completed);
            *tx_wakeups += rings;
            self.stats.wakeups += rings;
        }
        self.reap();
        self.post();
    }

    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        self.pool.fill(burst, want, 0)
    }

    fn free(&mut self, burst: &mut Burst) {
        burst.drain(..).for_each(|frame| self.pool.give(frame));
    }

    fn ledger(&self) -> Ledger {
        let pool = self.pool.ledger();
        if let Some((closed, free)) = self.closed {
            // Frames that were out may have come back since.
            let returned = pool.free - free;
            return Ledger { free: closed.free + returned, app: closed.app - returned, ..closed };
        }
        let kernel_rx = self.posted - self.stats.rx_frames;
        let kernel_tx = self.stats.tx_frames - self.stats.tx_completed;
        Ledger { kernel_rx, kernel_tx, app: pool.app - kernel_rx - kernel_tx, ..pool }
    }

    fn stats(&self) -> PortStats {
        PortStats {
            rx_ring_full: self.shared.rx_ring_full.load(Ordering::Relaxed),
            rx_dropped: self.shared.rx_dropped.load(Ordering::Relaxed),
            fill_ring_empty: self.shared.fill_ring_empty.load(Ordering::Relaxed),
            ..self.stats
        }
    }

    fn stop_rx(&mut self) {
        self.stopped = true;
        self.shared.rx_stopped.store(true, Ordering::Release);
    }

    fn queue_counters(&self, at: usize) -> QueueCounters {
        self.queues.get(at).map(|queue| queue.counters).unwrap_or_default()
    }

    /// What was posted is counted as free, what was not completed as abandoned; both stay with the wire.
    fn close(&mut self) -> Ledger {
        if self.closed.is_none() {
            self.stop_rx();
            self.reap();
            let mut ledger = self.ledger();
            ledger.free += std::mem::take(&mut ledger.kernel_rx);
            ledger.abandoned += std::mem::take(&mut ledger.kernel_tx);
            self.closed = Some((ledger, self.pool.ledger().free));
        }
        self.ledger()
    }

    fn failure(&self) -> Option<String> {
        self.shared.unplugged.get().cloned()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        self.shared.bell.fds()
    }
}

#[cfg(test)]
mod tests;
