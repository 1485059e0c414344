//! The requests of the stream port, and what their completions belong to.

use crate::stream::StreamId;
use crate::uring::Ring;
use io_uring::{opcode, squeue, types};
use std::os::fd::RawFd;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// The multishot accept of a listener.
    Accept(u32),
    /// A client at a listener.
    Client(u32),
    /// The multishot receive of a connection.
    Receive(StreamId),
    /// The send of a connection.
    Send(StreamId),
    /// The end of an active open's handshake.
    Connect(StreamId),
    /// A reset by the peer while nothing is received.
    Hangup(StreamId),
    /// A cancellation.
    Cancel,
}

/// Slots have so many bits, generations 32, kinds the 4 that are left.
const SLOT_BITS: u32 = 28;

impl Tag {
    fn bits(self) -> u64 {
        let of = |kind: u64, slot: u32, generation: u32| {
            debug_assert!(slot < 1 << SLOT_BITS);
            kind << 60 | u64::from(slot) << 32 | u64::from(generation)
        };
        match self {
            Tag::Accept(listener) => of(1, listener, 0),
            Tag::Client(listener) => of(2, listener, 0),
            Tag::Receive(id) => of(3, id.slot, id.generation),
            Tag::Send(id) => of(4, id.slot, id.generation),
            Tag::Connect(id) => of(5, id.slot, id.generation),
            Tag::Hangup(id) => of(6, id.slot, id.generation),
            Tag::Cancel => of(7, 0, 0),
        }
    }

    fn of(bits: u64) -> Tag {
        let slot = (bits >> 32) as u32 & ((1 << SLOT_BITS) - 1);
        let id = StreamId { slot, generation: bits as u32 };
        match bits >> 60 {
            1 => Tag::Accept(slot),
            2 => Tag::Client(slot),
            3 => Tag::Receive(id),
            4 => Tag::Send(id),
            5 => Tag::Connect(id),
            6 => Tag::Hangup(id),
            _ => Tag::Cancel,
        }
    }
}

/// A completion: what it belongs to, result, flags.
pub(super) type Completed = (Tag, i32, u32);

/// The ring.
pub(super) struct Requests {
    pub(super) ring: Ring,
    /// System calls made for it.
    pub(super) calls: u64,
}

impl Requests {
    pub(super) fn new(ring: Ring) -> Requests {
        Requests { ring, calls: 0 }
    }

    /// Queues a request, after handing the kernel those before it if that takes room. False when the kernel takes none.
    fn push(&mut self, entry: squeue::Entry, tag: Tag) -> bool {
        let entry = entry.user_data(tag.bits());
        for _ in 0..2 {
            // SAFETY: the only memory a request of ours points to is what a send reads, and that is its connection's until the
            // completion.
            if unsafe { self.ring.push(&entry) } {
                return true;
            }
            self.enter();
        }
        false
    }

    /// See [`Ring::enter`].
    pub(super) fn enter(&mut self) {
        self.calls += u64::from(self.ring.enter());
    }

    /// Accepts from a listener until something ends it.
    pub(super) fn accept(&mut self, listener: u32, fd: RawFd) -> bool {
        let entry = opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        self.push(entry.build(), Tag::Accept(listener))
    }

    /// Asks to be told when a client is there.
    pub(super) fn client(&mut self, listener: u32, fd: RawFd) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
        self.push(entry, Tag::Client(listener))
    }

    /// Receives on a connection, into the buffers of `group`, until something ends it.
    pub(super) fn receive(&mut self, id: StreamId, fd: RawFd, group: u16) -> bool {
        self.push(opcode::RecvMulti::new(types::Fd(fd), group).build(), Tag::Receive(id))
    }

    /// Sends `bytes`, which stay where and what they are until the completion, or the first of them.
    pub(super) fn send(&mut self, id: StreamId, fd: RawFd, bytes: &[u8]) -> bool {
        let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32);
        self.push(entry.flags(libc::MSG_NOSIGNAL).build(), Tag::Send(id))
    }

    /// Asks to be told when the handshake has ended, one way or the other.
    pub(super) fn connect(&mut self, id: StreamId, fd: RawFd) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        self.push(entry, Tag::Connect(id))
    }

    /// Asks to be told of errors, for as long as nothing is received, which would tell.
    pub(super) fn hangup(&mut self, id: StreamId, fd: RawFd) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLERR as u32).multi(true).build();
        self.push(entry, Tag::Hangup(id))
    }

    /// Ends a request.
    pub(super) fn cancel(&mut self, tag: Tag) -> bool {
        self.push(opcode::AsyncCancel::new(tag.bits()).build(), Tag::Cancel)
    }

    /// Takes every completion there is.
    pub(super) fn completions(&mut self, into: &mut Vec<Completed>) {
        self.ring.completions(|data, result, flags| into.push((Tag::of(data), result, flags)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_ring() {
        let id = StreamId { slot: (1 << SLOT_BITS) - 1, generation: u32::MAX };
        for tag in [Tag::Accept(3), Tag::Client(0), Tag::Receive(id), Tag::Send(id), Tag::Connect(id)] {
            assert_eq!(Tag::of(tag.bits()), tag);
        }
        assert_eq!(Tag::of(Tag::Hangup(id).bits()), Tag::Hangup(id));
        assert_eq!(Tag::of(Tag::Cancel.bits()), Tag::Cancel);
    }
}
