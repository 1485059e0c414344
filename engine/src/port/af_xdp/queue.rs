//! One queue of a device: its socket, its four rings, and the chunks that are in them.

use super::checksum;
use super::chunks::Chunks;
use super::ring::{Consumer, Descriptor, PKT_CONTD, Producer};
use super::socket::{Bound, XdpSocket};
use crate::frame::{Burst, Frame, flag};
use std::os::fd::{AsFd, BorrowedFd};

/// Most wakeups of one flush. Without `XDP_MAX_TX_SKB_BUDGET` the kernel sends 32 frames a call, so this carries a burst of
/// each of many peers; what is left goes with the next flush.
const MAX_WAKEUPS: u32 = 64;

/// Flushes after which a zero-copy queue that has something to send and nothing new is rung for again, should a doorbell have
/// been lost while the driver was reconfigured. A spinning worker flushes some million times a second, so this costs a system
/// call every 50 µs or so of a stall; lower would ring while the driver's interrupt is still on its way.
pub(super) const RING_AGAIN_AFTER: u32 = 64;

/// The two sides of a socket that can be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Rx,
    Tx,
}

/// What wakes the kernel.
pub(super) enum Doorbell {
    Socket(XdpSocket),
    /// A test that plays the kernel.
    #[cfg(test)]
    Simulated(Box<dyn FnMut(Side) -> Result<(), i32> + Send>),
}

impl Doorbell {
    fn is_gone(&self) -> bool {
        match self {
            Doorbell::Socket(socket) => socket.is_gone(),
            #[cfg(test)]
            Doorbell::Simulated(_) => true,
        }
    }

    #[inline]
    fn ring(&mut self, side: Side) -> Result<(), i32> {
        match self {
            Doorbell::Socket(socket) => match side {
                Side::Rx => socket.wake_rx(),
                Side::Tx => socket.wake_tx(),
            },
            #[cfg(test)]
            Doorbell::Simulated(kernel) => kernel(side),
        }
    }
}

/// Counters of a queue that only we can count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub rx_frames: u64,
    pub tx_frames: u64,
    pub tx_completed: u64,
    pub tx_dropped: u64,
    pub chains_dropped: u64,
    pub wakeups: u64,
    /// Of the wakeups, those for transmit.
    pub tx_wakeups: u64,
}

/// How a queue was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub zero_copy: bool,
    pub busy_poll: bool,
    /// Frames of one packet at most.
    pub segments: u32,
    pub tx_checksum: bool,
}

/// One queue. What a burst touches comes first.
pub(super) struct Queue {
    rx: Consumer<Descriptor>,
    tx: Producer<Descriptor>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// Chunks posted and not received.
    in_rx: u32,
    /// Chunks submitted and not completed.
    in_tx: u32,
    /// `counts.tx_frames` when a zero-copy driver was last woken for transmit.
    announced: u64,
    /// Flushes since then that had nothing new for it.
    quiet_flushes: u32,
    /// Transmit slots promised to frames of the burst being accepted.
    promised: u32,
    pub id: u16,
    /// Inside a chain too long to deliver, whose end has not arrived.
    skipping: bool,
    mode: Mode,
    pub counts: Counts,
    doorbell: Doorbell,
    /// The errno that said the device is gone.
    failure: Option<i32>,
}

/// Puts up to `count` free chunks into a fill ring that has room for them, and says how many.
#[inline]
pub(super) fn post(fill: &mut Producer<u64>, count: u32, chunks: &mut Chunks) -> u32 {
    let mut posted = 0;
    while posted < count {
        let Some(addr) = chunks.post() else { break };
        fill.push(addr);
        posted += 1;
    }
    if posted > 0 {
        fill.publish();
    }
    posted
}

impl Queue {
    pub fn new(id: u16, bound: Bound, mode: Mode) -> Queue {
        let Bound { socket, rx, tx, fill, completion, posted } = bound;
        let mut queue = Queue::over(id, (rx, tx, fill, completion), Doorbell::Socket(socket), mode);
        queue.in_rx = posted;
        queue
    }

    pub fn over(
        id: u16,
        (rx, tx, fill, completion): (
            Consumer<Descriptor>,
            Producer<Descriptor>,
            Producer<u64>,
            Consumer<u64>,
        ),
        doorbell: Doorbell,
        mode: Mode,
    ) -> Queue {
        Queue {
            rx,
            tx,
            fill,
            completion,
            in_rx: 0,
            in_tx: 0,
            announced: 0,
            quiet_flushes: 0,
            promised: 0,
            id,
            skipping: false,
            mode,
            counts: Counts::default(),
            doorbell,
            failure: None,
        }
    }

    pub fn socket(&self) -> Option<&XdpSocket> {
        match &self.doorbell {
            Doorbell::Socket(socket) => Some(socket),
            #[cfg(test)]
            Doorbell::Simulated(_) => None,
        }
    }

    #[cfg(test)]
    pub fn take_chains_of(&mut self, segments: u32) {
        self.mode.segments = segments;
    }

    #[cfg(test)]
    pub fn finish_checksums(&mut self) {
        self.mode.tx_checksum = true;
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket().map(AsFd::as_fd)
    }

    pub fn in_rx(&self) -> u32 {
        self.in_rx
    }

    pub fn in_tx(&self) -> u32 {
        self.in_tx
    }

    pub fn failure(&self) -> Option<i32> {
        self.failure
    }

    // ---- receive

    /// Receives what fits into `burst`, chains whole.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst, chunks: &mut Chunks) {
        let room = burst.remaining_capacity() as u32;
        let ready = self.rx.ready(room);
        if ready == 0 {
            return;
        }
        if self.mode.segments > 1 {
            return self.receive_chains(burst, chunks, ready);
        }
        let count = ready.min(room);
        for n in 0..count {
            let Descriptor { addr, len, .. } = self.rx.peek(n);
            burst.push(chunks.receive(addr, len, self.id, 0));
            // One by one, so that the ledger holds also when the next panics.
            self.in_rx -= 1;
            self.counts.rx_frames += 1;
        }
        self.rx.release(count);
    }

    fn receive_chains(&mut self, burst: &mut Burst, chunks: &mut Chunks, mut ready: u32) {
        // `at` descriptors have been dealt with; a packet is looked at whole before any of it is taken.
        let mut at = 0;
        loop {
            if self.skipping {
                // The rest of a chain that was too long.
                while at < ready && self.skipping {
                    let Descriptor { addr, options, .. } = self.rx.peek(at);
                    chunks.recycle(addr);
                    self.in_rx -= 1;
                    self.skipping = options & PKT_CONTD != 0;
                    at += 1;
                }
            }
            if at == ready && self.more_ready(&mut ready) {
                continue;
            }
            let Some(len) = self.chain(at, &mut ready) else { break };
            if len > self.mode.segments {
                self.counts.chains_dropped += 1;
                self.skipping = true;
                continue;
            }
            if len as usize > burst.remaining_capacity() {
                break;
            }
            for n in at..at + len {
                let Descriptor { addr, len, options } = self.rx.peek(n);
                let flags = if options & PKT_CONTD != 0 { flag::MORE } else { 0 };
                burst.push(chunks.receive(addr, len, self.id, flags));
                self.in_rx -= 1;
                self.counts.rx_frames += 1;
            }
            at += len;
        }
        if at > 0 {
            self.rx.release(at);
        }
    }

    /// Looks whether more than `ready` descriptors are there.
    fn more_ready(&mut self, ready: &mut u32) -> bool {
        let before = *ready;
        *ready = self.rx.ready(before + 1);
        *ready > before
    }

    /// Descriptors of the packet that begins `at` places ahead; more than [`Mode::segments`] as soon as it is known to be too
    /// long, `None` when its end has not arrived.
    fn chain(&mut self, at: u32, ready: &mut u32) -> Option<u32> {
        for n in 0..=self.mode.segments {
            if at + n == *ready && !self.more_ready(ready) {
                // A ring full of one packet has no room for its end: it is too long for us, whatever its length.
                let stuck = at == 0 && *ready == self.rx.size();
                return stuck.then_some(self.mode.segments + 1);
            }
            if self.rx.peek(at + n).options & PKT_CONTD == 0 {
                return Some(n + 1);
            }
        }
        Some(self.mode.segments + 1)
    }

    /// Chunks the fill ring has room for, at most `target` posted in all.
    #[inline]
    pub fn wants(&mut self, target: u32) -> u32 {
        let missing = target.saturating_sub(self.in_rx);
        if missing == 0 { 0 } else { self.fill.room(missing).min(missing) }
    }

    /// Posts up to `count` free chunks for receive.
    #[inline]
    pub fn post(&mut self, count: u32, chunks: &mut Chunks) {
        self.in_rx += post(&mut self.fill, count, chunks);
    }

    // ---- transmit

    /// Promises transmit slots to a packet of `frames` frames; false when there are not enough.
    #[inline(always)]
    pub fn promise(&mut self, frames: u32) -> bool {
        let want = self.promised + frames;
        let fits = self.tx.room(want) >= want;
        if fits {
            self.promised = want;
        }
        fits
    }

    /// A frame that this queue can never send: the kernel wants room for the metadata before every packet once there is any.
    #[inline(always)]
    pub fn refuses_frame(&self, frame: &Frame) -> bool {
        frame.len() == 0 || (self.mode.tx_checksum && frame.headroom() < checksum::METADATA_BYTES as usize)
    }

    /// A chain that this queue can never send, whatever room it has.
    #[inline(always)]
    pub fn refuses(&self, frames: usize) -> bool {
        frames > self.mode.segments as usize
    }

    /// Puts a frame into a promised slot.
    #[inline(always)]
    pub fn submit(&mut self, mut frame: Frame, chunks: &mut Chunks) {
        let mut options = if frame.has(flag::MORE) { PKT_CONTD } else { 0 };
        if self.mode.tx_checksum {
            options |= checksum::request(&mut frame);
        }
        let raw = chunks.submit(frame);
        self.in_tx += 1;
        self.tx.push(Descriptor { addr: raw.token + u64::from(raw.offset), len: raw.len, options });
    }

    /// Shows the submitted frames to the kernel.
    #[inline]
    pub fn publish(&mut self) {
        if self.promised > 0 {
            self.tx.publish();
            self.counts.tx_frames += u64::from(self.promised);
            self.promised = 0;
        }
    }

    /// Takes back what the kernel has sent from.
    #[inline]
    pub fn reap(&mut self, chunks: &mut Chunks) {
        if self.in_tx == 0 {
            return;
        }
        let done = self.completion.ready(self.in_tx);
        if done == 0 {
            return;
        }
        for n in 0..done {
            chunks.complete(self.completion.peek(n));
            self.in_tx -= 1;
            self.counts.tx_completed += 1;
        }
        self.completion.release(done);
    }

    // ---- wakeups

    /// Rings for transmit if the kernel asks for it and has something to send.
    #[inline]
    pub fn wake_tx(&mut self, chunks: &mut Chunks) {
        if self.in_tx == 0 || !self.tx.needs_wakeup() {
            return;
        }
        if self.mode.zero_copy {
            return self.wake_driver();
        }
        let mut pending = self.tx.pending();
        for _ in 0..MAX_WAKEUPS {
            if pending == 0 {
                return;
            }
            let answer = self.ring_tx();
            let left = self.tx.pending();
            let progress = left != pending;
            pending = left;
            match answer {
                // Everything was sent, or the budget was used up.
                Ok(()) | Err(libc::EINTR) if progress => {}
                // One frame was completed but dropped by the driver; the rest is still queued.
                Err(libc::EBUSY) if progress => self.counts.tx_dropped += 1,
                // Still queued: the budget is used up, or the completion ring or the send buffer is full.
                Err(libc::EAGAIN | libc::ENOBUFS) if progress => self.reap(chunks),
                Err(errno @ (libc::ENXIO | libc::ENODEV)) => return self.lost(errno),
                // No progress (or the link is down: ENETDOWN): the frames wait for the next flush.
                _ => return,
            }
        }
    }

    /// In zero-copy mode the doorbell has the driver poll its queue, now or by an interrupt, and the driver goes on by itself
    /// until the ring is empty. It leaves the wakeup flag set all along, so once for what is new is enough.
    #[inline]
    fn wake_driver(&mut self) {
        if self.tx.pending() == 0 {
            return;
        }
        if self.announced == self.counts.tx_frames && self.quiet_flushes < RING_AGAIN_AFTER {
            self.quiet_flushes += 1;
            return;
        }
        self.quiet_flushes = 0;
        match self.ring_tx() {
            Ok(()) => self.announced = self.counts.tx_frames,
            Err(errno @ (libc::ENXIO | libc::ENODEV)) => self.lost(errno),
            // The driver is being reconfigured, or the link is down: the next flush rings again.
            Err(_) => {}
        }
    }

    /// Rings for receive when the driver asks for it, or to poll the device when busy polling is on. In copy mode there is
    /// no driver, and the call does nothing (`__xsk_recvmsg`); the flag comes up there all the same in an overload, for each burst.
    #[inline]
    pub fn wake_rx(&mut self) {
        if self.mode.busy_poll || (self.mode.zero_copy && self.fill.needs_wakeup()) {
            self.counts.wakeups += 1;
            self.probe();
        }
    }

    #[inline]
    fn ring_tx(&mut self) -> Result<(), i32> {
        self.counts.wakeups += 1;
        self.counts.tx_wakeups += 1;
        self.doorbell.ring(Side::Tx)
    }

    /// Rings for transmit when frames are out, whatever the ring says: a device that has come to rest with frames that it took
    /// but does not complete is found out by not answering this either. In copy mode what is still queued is rung for anyway, and
    /// each answer then means something.
    pub fn nudge(&mut self) {
        if self.in_tx > 0 && (self.mode.zero_copy || self.tx.pending() == 0) {
            let _ = self.ring_tx();
        }
    }

    /// Rings for receive and notes when the device is gone.
    pub fn probe(&mut self) {
        if let Err(errno @ (libc::ENXIO | libc::ENODEV)) = self.doorbell.ring(Side::Rx) {
            self.lost(errno);
        }
    }

    #[cold]
    fn lost(&mut self, errno: i32) {
        if self.failure.is_none() && self.doorbell.is_gone() {
            self.failure = Some(errno);
        }
    }
}
