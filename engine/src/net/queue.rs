//! Frames on their way to a port.

use crate::frame::{Burst, Frame, flag};
use crate::port::Port;

/// Up to a burst of frames to transmit, in whole packets, and the count of those packets.
#[derive(Default)]
pub(super) struct TxQueue {
    frames: Burst,
    packets: usize,
}

impl TxQueue {
    /// Appends a frame. The caller has seen that there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: Frame) {
        self.packets += usize::from(!frame.has(flag::MORE));
        self.frames.push(frame);
    }

    /// Offers `packets` packets to the port straight from where they are, and keeps what it does not take. This queue is empty
    /// before. Returns how many packets it took.
    #[inline]
    pub(super) fn offer_from<P: Port + ?Sized>(
        &mut self,
        from: &mut Burst,
        packets: usize,
        port: &mut P,
    ) -> usize {
        debug_assert!(self.frames.is_empty());
        port.tx(from);
        from.drain(..).for_each(|frame| self.push(frame));
        packets - self.packets
    }

    /// Offers what is queued to the port; returns how many packets it took.
    #[inline]
    pub(super) fn offer<P: Port + ?Sized>(&mut self, port: &mut P) -> usize {
        if self.frames.is_empty() {
            return 0;
        }
        port.tx(&mut self.frames);
        let left = self.frames.iter().filter(|frame| !frame.has(flag::MORE)).count();
        let taken = self.packets - left;
        self.packets = left;
        taken
    }

    /// Gives everything back to the port unsent; returns how many packets that were.
    #[cold]
    pub(super) fn abandon<P: Port + ?Sized>(&mut self, port: &mut P) -> usize {
        if !self.frames.is_empty() {
            port.free(&mut self.frames);
        }
        std::mem::take(&mut self.packets)
    }

    /// Frames queued.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// True when nothing is queued.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that fit.
    pub(super) fn room(&self) -> usize {
        self.frames.remaining_capacity()
    }

    /// True when no frame fits.
    pub(super) fn is_full(&self) -> bool {
        self.frames.is_full()
    }
}
