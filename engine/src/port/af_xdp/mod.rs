//! AF_XDP: frames straight from a device's queues, through rings shared with the kernel.
//!
//! ```text
//!                 free chunks (one list for all queues, last in first out)
//!         ┌──────────────┘  ▲                    ▲ └── alloc ──► app
//!         ▼ post            │ reap               │ free ◄─────── app
//!    ┌─ fill ─┐        ┌ completion ┐
//!    │ ring   │        │ ring       │        one set for each (device, queue); all queues over one UMEM
//!    └───┬────┘        └─────▲──────┘
//!        ▼                   │
//!      device ──► rx ring ──► app ──► tx ring ──► device
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `config`, `error` | what to open, and why it could not be |
//! | `plan` | what the device can do, and so how to open it |
//! | `socket` | the privileged part: it hands back descriptors and mapped rings |
//! | `umem`, `chunks` | the memory; the free list and the tokens for what is out |
//! | `ring` | the rings themselves, over kernel or heap memory |
//! | `queue` | one queue: receive, transmit, reap, post, wake |
//! | `checksum` | transmit metadata, where the device offers it |
//!
//! It never parses a packet, and it never binds the sockets into an XSKMAP: whoever steers does that, with
//! [`AfXdp::sockets`].

mod checksum;
mod chunks;
mod config;
mod error;
mod plan;
mod queue;
mod ring;
mod socket;
mod umem;

pub use config::{
    AfXdpConfig, BusyPoll, LINK_HEADER, MAX_SEGMENTS, TxChecksum, XDP_PACKET_HEADROOM, ZeroCopy,
};
pub use error::AfXdpError;

use crate::frame::{BURST, Burst, Frame, Ledger, flag};
use crate::port::{Port, PortInfo, PortStats, QueueCounters};
use chunks::Chunks;
use queue::{Mode, Queue};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use umem::Umem;

/// Idle flushes between two looks whether the device is still there, since a removed one says nothing in `ppoll`. A spinning
/// worker flushes some million times a second: one system call every 50 µs or so, while nothing happens. A sleeping one
/// takes a second or two; higher would take it longer, lower would show in the idle worker's profile.
const PROBE_EVERY: u32 = 256;

/// Flushes between two rings for transmit that nobody asked for, to tell a device that is slow from one that has stalled. A busy
/// worker pays one system call for so many bursts; a sleeping one with frames out comes to it several times a second.
const NUDGE_EVERY: u32 = 2048;

/// Instead of a place in the list of queues: no queue can send the frame. A port has fewer than 255 queues.
const REFUSED: u8 = u8::MAX;

/// Several queues of one device over one UMEM, owned by one worker.
pub struct AfXdp {
    queues: Vec<Queue>,
    chunks: Chunks,
    /// Place in `queues` of each queue number; of an unknown number the first.
    slots: Vec<u8>,
    /// Queue that receives first in the next burst.
    next_rx: usize,
    /// Queue that is topped up first in the next flush.
    next_fill: usize,
    /// Chunks each queue may have posted: in its fill ring, and in the device's ring in zero-copy mode.
    target: u32,
    /// Free chunks that posting leaves.
    reserve: usize,
    /// Nothing more is posted.
    stopped: bool,
    idle_flushes: u32,
    flushes: u32,
    /// Frames accepted and given back because nothing can send them (empty, in a chain too long, no room for metadata).
    refused: u64,
    closed: Option<Box<Closed>>,
    zero_copy: bool,
    refused_zero_copy: Option<String>,
    info: Box<PortInfo>,
}

/// What a closed port still says.
struct Closed {
    ledger: Ledger,
    stats: PortStats,
}

impl AfXdp {
    /// Opens and binds every queue of `config`. The kernel takes packets for them only once their sockets are in the
    /// XSKMAP of an XDP program.
    ///
    /// The UMEM's pages come from the NUMA node of the calling thread unless the configuration names one.
    ///
    /// # Errors
    /// See [`AfXdpError`].
    pub fn open(config: &AfXdpConfig) -> Result<AfXdp, AfXdpError> {
        let plan = plan::Plan::make(config)?;
        let config = &plan.fit(config);
        let bytes = config.frames as usize * config.chunk as usize;
        let umem = Umem::new(bytes, config.huge_pages, config.numa_node)?;
        let mut chunks = Chunks::new(umem, config.chunk, XDP_PACKET_HEADROOM + config.headroom);
        let region = chunks.region();
        let target = target(config, plan.device_ring);
        let post = |fill: &mut _| queue::post(fill, target.min(config.fill_ring), &mut chunks);
        let socket::Opened { queues: bound, zero_copy, refused, tx_checksum } =
            socket::open(config, &plan, region, post)?;
        let segments = match (plan.multi_buffer, zero_copy) {
            (false, _) => 1,
            (true, false) => MAX_SEGMENTS as u32,
            (true, true) => plan.zero_copy_segments.min(MAX_SEGMENTS as u32),
        };
        let mode = Mode { zero_copy, busy_poll: config.busy_poll.is_some(), segments, tx_checksum };
        let queues =
            config.queues.iter().zip(bound).map(|(&id, bound)| Queue::new(id, bound, mode)).collect();
        let info = PortInfo {
            name: format!(
                "af_xdp {} queue{} {} ({})",
                config.interface,
                if config.queues.len() == 1 { "" } else { "s" },
                ranges(&config.queues),
                if zero_copy { "zero-copy" } else { "copy" }
            ),
            mtu: plan.link.mtu as usize,
            mac: Some(plan.link.mac),
            queues: config.queues.clone(),
            tx_checksum,
            max_segments: segments as usize,
        };
        let mut port = AfXdp::over(queues, chunks, config, target, zero_copy, info);
        port.refused_zero_copy = refused.map(|error| error.to_string());
        port.flush();
        Ok(port)
    }

    fn over(
        queues: Vec<Queue>,
        chunks: Chunks,
        config: &AfXdpConfig,
        target: u32,
        zero_copy: bool,
        info: PortInfo,
    ) -> AfXdp {
        let mut slots = vec![0u8; config.queues.iter().max().map_or(0, |most| usize::from(*most) + 1)];
        for (slot, queue) in config.queues.iter().enumerate() {
            slots[usize::from(*queue)] = slot as u8;
        }
        AfXdp {
            queues,
            chunks,
            slots,
            next_rx: 0,
            next_fill: 0,
            target,
            reserve: config.tx_reserve as usize,
            stopped: false,
            idle_flushes: 0,
            flushes: 0,
            refused: 0,
            closed: None,
            zero_copy,
            refused_zero_copy: None,
            info: Box::new(info),
        }
    }

    /// Each queue with its socket, to be put into an XSKMAP at that queue's number.
    pub fn sockets(&self) -> impl Iterator<Item = (u16, BorrowedFd<'_>)> {
        self.queues.iter().filter_map(|queue| Some((queue.id, queue.fd()?)))
    }

    /// True when the device's DMA goes to the UMEM itself, as read back from the kernel.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Why the kernel copies although the device offers zero-copy and it was asked for.
    pub fn refused_zero_copy(&self) -> Option<&str> {
        self.refused_zero_copy.as_deref()
    }

    /// True when the UMEM lies on huge pages.
    pub fn on_huge_pages(&self) -> bool {
        self.chunks.is_huge()
    }

    #[inline(always)]
    fn slot(&self, queue: u16) -> usize {
        self.slots.get(usize::from(queue)).copied().map_or(0, usize::from)
    }

    /// Shares the free chunks evenly among the fill rings, beginning with another one each time.
    #[inline]
    fn top_up(&mut self) {
        let mut spare = self.chunks.free().saturating_sub(self.reserve) as u32;
        let count = self.queues.len() as u32;
        if spare == 0 {
            return;
        }
        if count == 1 {
            let want = self.queues[0].wants(self.target);
            return self.queues[0].post(want.min(spare), &mut self.chunks);
        }
        for left in (1..=count).rev() {
            let queue = &mut self.queues[self.next_fill];
            self.next_fill = if self.next_fill + 1 == count as usize { 0 } else { self.next_fill + 1 };
            // An even share of what is left; what this queue does not want goes to the later ones.
            let share = queue.wants(self.target).min(spare.div_ceil(left));
            queue.post(share, &mut self.chunks);
            spare -= share;
        }
        self.next_fill = if self.next_fill + 1 == count as usize { 0 } else { self.next_fill + 1 };
    }

    /// Decides for the frames at the front of `burst` which queue sends each, promising them its slots, and returns how many
    /// can go now. What nothing could ever send is accepted too, with [`REFUSED`] for its queue.
    #[inline]
    fn accept(&mut self, burst: &Burst, slots: &mut [u8; BURST]) -> usize {
        let mut accepted = 0;
        while accepted < burst.len() {
            let frames = chain_len(&burst[accepted..]);
            let mut slot = self.slot(burst[accepted].queue());
            let queue = &mut self.queues[slot];
            if unsendable(queue, &burst[accepted..accepted + frames]) {
                slot = REFUSED as usize;
            } else if !queue.promise(frames as u32) {
                break;
            }
            slots[accepted..accepted + frames].fill(slot as u8);
            accepted += frames;
        }
        accepted
    }
}

/// Chunks that each queue may have posted: a full fill ring beside what the device's own ring holds, as far as there are
/// chunks. With the device's ring left out, one larger than the fill ring would never be full: packets would be lost, and the
/// driver would ask for a wakeup all the time.
fn target(config: &AfXdpConfig, device_ring: u32) -> u32 {
    let each = (config.frames - config.tx_reserve) / config.queues.len() as u32;
    each.min(config.fill_ring.saturating_add(device_ring)).max(1)
}

/// Frames of the packet that begins `frames`.
#[inline(always)]
fn chain_len(frames: &[Frame]) -> usize {
    let whole = frames.iter().position(|frame| !frame.has(flag::MORE));
    whole.map_or(frames.len(), |last| last + 1)
}

/// True for what the kernel would refuse and never give back: an empty descriptor, one without room for metadata, a chain it
/// does not take, or one without an end.
#[inline(always)]
fn unsendable(queue: &Queue, packet: &[Frame]) -> bool {
    match packet {
        [one] => queue.refuses_frame(one) || one.has(flag::MORE),
        chain => {
            queue.refuses(chain.len())
                || chain.iter().any(|frame| queue.refuses_frame(frame))
                || chain.last().is_some_and(|last| last.has(flag::MORE))
        }
    }
}

impl Port for AfXdp {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn rx(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        let count = self.queues.len();
        for _ in 0..count {
            if burst.is_full() {
                break;
            }
            let at = self.next_rx;
            self.next_rx = if at + 1 == count { 0 } else { at + 1 };
            self.queues[at].receive(burst, &mut self.chunks);
        }
        burst.len() - before
    }

    fn tx(&mut self, burst: &mut Burst) -> usize {
        if self.closed.is_some() || burst.is_empty() {
            return 0;
        }
        let mut slots = [0; BURST];
        let accepted = self.accept(burst, &mut slots);
        for (frame, slot) in burst.drain(..accepted).zip(slots) {
            if slot == REFUSED {
                self.refused += 1;
                self.chunks.give(frame);
            } else {
                self.queues[usize::from(slot)].submit(frame, &mut self.chunks);
            }
        }
        self.queues.iter_mut().for_each(Queue::publish);
        accepted
    }

    fn flush(&mut self) {
        if self.closed.is_some() {
            return;
        }
        let before = self.chunks.free();
        for queue in &mut self.queues {
            queue.wake_tx(&mut self.chunks);
            queue.reap(&mut self.chunks);
        }
        let busy = self.chunks.free() != before;
        if !self.stopped {
            self.top_up();
            self.queues.iter_mut().for_each(Queue::wake_rx);
        }
        self.flushes = self.flushes.wrapping_add(1);
        if self.flushes.is_multiple_of(NUDGE_EVERY) {
            self.queues.iter_mut().for_each(Queue::nudge);
        }
        self.idle_flushes = if busy { 0 } else { self.idle_flushes + 1 };
        if self.idle_flushes == PROBE_EVERY {
            self.idle_flushes = 0;
            self.queues.iter_mut().for_each(Queue::probe);
        }
    }

    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        let want = want.min(burst.remaining_capacity());
        if self.chunks.free() < want {
            self.queues.iter_mut().for_each(|queue| queue.reap(&mut self.chunks));
        }
        let queue = self.queues[0].id;
        let before = burst.len();
        while burst.len() - before < want {
            let Some(frame) = self.chunks.take(queue) else { break };
            burst.push(frame);
        }
        burst.len() - before
    }

    fn free(&mut self, burst: &mut Burst) {
        burst.drain(..).for_each(|frame| self.chunks.give(frame));
    }

    fn ledger(&self) -> Ledger {
        if let Some(closed) = &self.closed {
            // Frames that were out when the port closed may have come back since.
            let mut ledger = closed.ledger;
            ledger.free += ledger.app - self.chunks.app();
            ledger.app = self.chunks.app();
            return ledger;
        }
        let sum = |count: fn(&Queue) -> u32| self.queues.iter().map(|queue| u64::from(count(queue))).sum();
        Ledger {
            total: u64::from(self.chunks.total()),
            free: self.chunks.free() as u64,
            kernel_rx: sum(Queue::in_rx),
            kernel_tx: sum(Queue::in_tx),
            app: self.chunks.app(),
            held: 0,
            abandoned: 0,
        }
    }

    fn stats(&self) -> PortStats {
        if let Some(closed) = &self.closed {
            return closed.stats;
        }
        let mut stats = PortStats { tx_dropped: self.refused, ..PortStats::default() };
        for queue in &self.queues {
            let counts = &queue.counts;
            stats.rx_frames += counts.rx_frames;
            stats.tx_frames += counts.tx_frames;
            stats.tx_completed += counts.tx_completed;
            stats.tx_dropped += counts.tx_dropped;
            stats.chains_dropped += counts.chains_dropped;
            stats.wakeups += counts.wakeups;
            if let Some(socket) = queue.socket() {
                socket.add_statistics(&mut stats);
            }
        }
        if self.zero_copy {
            // A zero-copy driver counts its looks into an empty fill ring here. The packets that it loses over it are lost in the
            // device, which counts them itself.
            stats.fill_ring_empty = 0;
        } else {
            // In copy mode the kernel counts a packet that finds no posted frame both ways; each is to have one reason.
            stats.rx_dropped = stats.rx_dropped.saturating_sub(stats.fill_ring_empty);
        }
        stats
    }

    fn queue_counters(&self, at: usize) -> QueueCounters {
        self.queues.get(at).map_or_else(QueueCounters::default, |queue| QueueCounters {
            rx_frames: queue.counts.rx_frames,
            tx_frames: queue.counts.tx_frames,
            tx_completed: queue.counts.tx_completed,
            tx_wakeups: queue.counts.tx_wakeups,
        })
    }

    fn stop_rx(&mut self) {
        self.stopped = true;
    }

    fn failure(&self) -> Option<String> {
        let errno = self.queues.iter().find_map(Queue::failure)?;
        let error = std::io::Error::from_raw_os_error(errno);
        Some(format!("{}: the interface is gone ({error})", self.info.name))
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        self.sockets().map(|(_, fd)| fd.as_raw_fd()).collect()
    }

    fn close(&mut self) -> Ledger {
        if self.closed.is_none() {
            self.queues.iter_mut().for_each(|queue| queue.reap(&mut self.chunks));
            let stats = self.stats();
            let mut ledger = self.ledger();
            self.queues.clear();
            // What was posted is ours again; what was not completed is given up.
            ledger.free += std::mem::take(&mut ledger.kernel_rx);
            ledger.abandoned += std::mem::take(&mut ledger.kernel_tx);
            self.closed = Some(Box::new(Closed { ledger, stats }));
        }
        self.ledger()
    }
}

/// "0-3,7" for queue numbers in any order.
fn ranges(queues: &[u16]) -> String {
    let mut sorted = queues.to_vec();
    sorted.sort_unstable();
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for queue in sorted {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == queue => *last = queue,
            _ => parts.push((queue, queue)),
        }
    }
    let text = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
