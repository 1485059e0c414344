//! Slots of datagrams on their way out: message, frame and what the port wants to know again, until the completion.

use crate::datagram::socket::{Bound, Completed, Completion, Message, Out};
use crate::frame::{Frame, FramePool};
use crate::net::Path;

/// One slot.
struct Slot {
    message: Message,
    path: Option<Path>,
    frame: Option<Frame>,
    socket: u16,
    answer: bool,
    retried: bool,
    /// The kernel has completed it by itself, which it does with those that failed.
    failed: bool,
    /// What a zero-copy send came to, until the kernel lets go of the frame.
    result: i32,
}

/// All slots.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    free: Vec<u16>,
}

impl Slots {
    pub(super) fn new(count: u16) -> Slots {
        let slot = |_| Slot {
            message: Message::new(),
            path: None,
            frame: None,
            socket: 0,
            answer: false,
            retried: false,
            failed: false,
            result: 0,
        };
        Slots { slots: (0..count).map(slot).collect(), free: (0..count).rev().collect() }
    }

    fn slot(&mut self, number: u16) -> &mut Slot {
        &mut self.slots[usize::from(number)]
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    pub(super) fn release(&mut self, number: u16) {
        self.free.push(number);
    }

    /// Makes the message of a datagram, to leave from the socket that is `bound`.
    #[inline]
    pub(super) fn prepare(&mut self, number: u16, bound: &Bound, out: &Out<'_>, zero_copy: bool) {
        let slot = self.slot(number);
        slot.message.prepare(bound, out, zero_copy);
        slot.path = Some(*out.path);
        (slot.socket, slot.answer) = (out.socket, out.answer);
        (slot.retried, slot.failed) = (false, false);
    }

    pub(super) fn message(&self, number: u16) -> &Message {
        &self.slots[usize::from(number)].message
    }

    pub(super) fn socket(&self, number: u16) -> u16 {
        self.slots[usize::from(number)].socket
    }

    #[inline]
    pub(super) fn keep(&mut self, number: u16, frame: Frame) {
        let slot = self.slot(number);
        debug_assert!(slot.frame.is_none(), "one frame a slot");
        slot.frame = Some(frame);
    }

    pub(super) fn fail(&mut self, number: u16) {
        self.slot(number).failed = true;
    }

    pub(super) fn has_failed(&self, number: u16) -> bool {
        self.slots[usize::from(number)].failed
    }

    pub(super) fn set_result(&mut self, number: u16, result: i32) {
        self.slot(number).result = result;
    }

    pub(super) fn result(&mut self, number: u16) -> i32 {
        self.slot(number).result
    }

    /// True the first time; from then on it is copied.
    pub(super) fn retry(&mut self, number: u16) -> bool {
        let slot = self.slot(number);
        (slot.message.zero_copy, slot.failed) = (false, false);
        !std::mem::replace(&mut slot.retried, true)
    }

    /// Frees a slot, and hands out what was in it.
    #[inline]
    pub(super) fn finish(&mut self, number: u16, result: Completed) -> Completion {
        self.free.push(number);
        let slot = self.slot(number);
        let (frame, path) = (slot.frame.take(), slot.path.take());
        Completion {
            frame: frame.expect("kept before it was submitted"),
            path: path.expect("prepared before it was submitted"),
            socket: slot.socket,
            answer: slot.answer,
            result,
        }
    }

    /// Datagrams on their way.
    pub(super) fn in_use(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Takes every frame back. Only when no send is under way.
    pub(super) fn give_back(&mut self, pool: &mut FramePool) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if let Some(frame) = slot.frame.take() {
                self.free.push(number as u16);
                pool.give(frame);
            }
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // With the kernel still: leaked, as the pool's memory is then.
        for frame in self.slots.iter_mut().filter_map(|slot| slot.frame.take()) {
            let _ = frame.into_raw();
        }
    }
}
