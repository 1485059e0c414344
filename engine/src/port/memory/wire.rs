//! The device's half of a memory port: packets in, packets out, and faults.

use super::link::{Shared, Slot, WireQueue};
use crate::frame::{Frame, flag};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why the device did not take a packet for receive. Counted in [`crate::port::PortStats`] as a kernel would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No (or not enough) frame posted: `fill_ring_empty`.
    #[error("no frame is posted for receive")]
    NoFrame,
    /// The rx ring has no room: `rx_ring_full`.
    #[error("the rx ring is full")]
    RingFull,
    /// Longer than the frames of one packet hold, or of no segment at all: `rx_dropped`.
    #[error("the packet does not fit the frames of one packet")]
    TooLong,
    /// The port has stopped receiving, is gone, or was unplugged. Not counted: the packet is not the port's.
    #[error("the port does not receive any more")]
    Stopped,
}

/// A packet that the port transmitted.
#[derive(Clone, Copy, Debug)]
pub struct Transmitted<'a> {
    /// The queue it left on.
    pub queue: u16,
    /// Flags of its first frame ([`flag::CHECKSUM_PARTIAL`] is of interest).
    pub flags: u8,
    /// Frames it was spread over.
    pub segments: usize,
    /// The packet, its frames joined.
    pub bytes: &'a [u8],
}

/// The other end of a [`super::MemoryPort`].
///
/// Dropped, it takes the frames it has with it (the port's ledger goes on calling them the kernel's); the memory is freed when
/// both halves are gone.
pub struct MemoryWire {
    pub(super) queues: Vec<WireQueue>,
    pub(super) room: usize,
    pub(super) max_segments: usize,
    pub(super) hold_completions: bool,
    pub(super) withheld: VecDeque<(u16, Frame)>,
    pub(super) joined: Vec<u8>,
    pub(super) shared: Arc<Shared>,
}

impl MemoryWire {
    /// A packet arrives on `queue`, spread over as many frames as it needs.
    ///
    /// # Errors
    /// See [`Refused`]; the packet is lost then, whole.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn inject(&mut self, queue: u16, packet: &[u8]) -> Result<(), Refused> {
        let segments = packet.len().div_ceil(self.room).max(1);
        let room = self.room;
        self.deliver(queue, segments, |n| &packet[n * room..packet.len().min((n + 1) * room)])
    }

    /// A packet arrives on `queue` in just these segments.
    ///
    /// # Errors
    /// As [`MemoryWire::inject`].
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn inject_chain(&mut self, queue: u16, segments: &[&[u8]]) -> Result<(), Refused> {
        self.deliver(queue, segments.len(), |n| segments[n])
    }

    /// Shows every packet the port has sent, queue by queue, and completes its frames; returns how many packets.
    pub fn collect(&mut self, mut show: impl FnMut(Transmitted<'_>)) -> usize {
        let mut packets = 0;
        for number in 0..self.queues.len() {
            let (mut flags, mut segments) = (0, 0);
            self.joined.clear();
            while let Ok(slot) = self.queues[number].tx.pop() {
                let frame = ManuallyDrop::into_inner(slot);
                if segments == 0 {
                    flags = frame.flags();
                }
                segments += 1;
                self.joined.extend_from_slice(frame.bytes());
                let more = frame.has(flag::MORE);
                self.complete(number as u16, frame);
                if !more {
                    show(Transmitted { queue: number as u16, flags, segments, bytes: &self.joined });
                    packets += 1;
                    segments = 0;
                    self.joined.clear();
                }
            }
        }
        packets
    }

    /// What [`MemoryWire::collect`] shows, as copies with their queue; allocates.
    pub fn collect_all(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut packets = Vec::new();
        self.collect(|packet| packets.push((packet.queue, packet.bytes.to_vec())));
        packets
    }

    /// While `true`, packets are collected but their frames are not given back, as with a device that hangs; `false` gives back
    /// what was kept. (A device that does not even fetch is one whose wire is not collected from.)
    pub fn hold_completions(&mut self, hold: bool) {
        self.hold_completions = hold;
        if !hold {
            for _ in 0..self.withheld.len() {
                let Some((queue, frame)) = self.withheld.pop_front() else { break };
                self.complete(queue, frame);
            }
        }
    }

    /// Frames posted for receive on `queue`.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn posted(&self, queue: u16) -> usize {
        self.queues[queue as usize].fill.slots()
    }

    /// The device goes away: the port reports `reason` as its failure, and nothing arrives any more.
    pub fn unplug(&mut self, reason: &str) {
        let _ = self.shared.unplugged.set(reason.to_owned());
        self.shared.bell.ring();
    }

    fn deliver<'p>(
        &mut self,
        queue: u16,
        segments: usize,
        segment: impl Fn(usize) -> &'p [u8],
    ) -> Result<(), Refused> {
        let shared = &*self.shared;
        if shared.rx_stopped.load(Ordering::Acquire) || shared.unplugged.get().is_some() {
            return Err(Refused::Stopped);
        }
        let refuse = |counter: &AtomicU64, why| {
            counter.fetch_add(1, Ordering::Relaxed);
            Err(why)
        };
        let fits = (1..=self.max_segments).contains(&segments);
        if !fits || (0..segments).any(|n| segment(n).len() > self.room) {
            return refuse(&shared.rx_dropped, Refused::TooLong);
        }
        let WireQueue { fill, rx, .. } = &mut self.queues[queue as usize];
        let Ok(frames) = fill.read_chunk(segments) else {
            return refuse(&shared.fill_ring_empty, Refused::NoFrame);
        };
        let Ok(slots) = rx.write_chunk_uninit(segments) else {
            return refuse(&shared.rx_ring_full, Refused::RingFull);
        };
        // All slots become visible at once: the port never sees half a chain.
        slots.fill_from_iter(frames.into_iter().enumerate().map(|(n, slot)| {
            let mut frame = ManuallyDrop::into_inner(slot);
            let bytes = segment(n);
            let fitted = frame.set_len(bytes.len());
            debug_assert!(fitted, "segments were measured against a posted frame's room");
            frame.bytes_mut().copy_from_slice(bytes);
            frame.set_flags(if n + 1 < segments { flag::MORE } else { 0 });
            ManuallyDrop::new(frame)
        }));
        shared.bell.ring();
        Ok(())
    }

    fn complete(&mut self, queue: u16, frame: Frame) {
        let ring = &mut self.queues[queue as usize].completion;
        if self.hold_completions || ring.is_abandoned() {
            self.withheld.push_back((queue, frame));
        } else {
            let pushed = ring.push(Slot::new(frame));
            debug_assert!(pushed.is_ok(), "the completion ring takes every frame there is");
        }
    }
}

impl Drop for MemoryWire {
    fn drop(&mut self) {
        let mut estate = self.shared.estate();
        estate.frames.extend(self.withheld.drain(..).map(|(_, frame)| frame));
        for queue in &mut self.queues {
            for ring in [&mut queue.fill, &mut queue.tx] {
                while let Ok(slot) = ring.pop() {
                    estate.frames.push(ManuallyDrop::into_inner(slot));
                }
            }
        }
        estate.settle();
    }
}
