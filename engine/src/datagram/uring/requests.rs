//! The requests of the datagram port, and what their completions belong to.

use super::zero_copy::REPORT_USAGE;
use crate::datagram::RawFd;
use crate::datagram::socket::Message;
use crate::frame::FramePool;
use crate::uring::{Ring, UringError};
use io_uring::{opcode, squeue, types};
use std::io;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// The multishot receive of a socket.
    Receive(u16),
    /// The send in a slot.
    Send(u16),
    /// Room to send on a socket.
    Room(u16),
    /// A cancellation.
    Cancel,
}

impl Tag {
    fn bits(self) -> u64 {
        let (kind, number) = match self {
            Tag::Receive(socket) => (1, socket),
            Tag::Send(slot) => (2, slot),
            Tag::Room(socket) => (3, socket),
            Tag::Cancel => (4, 0),
        };
        kind << 16 | u64::from(number)
    }

    fn of(bits: u64) -> Tag {
        let number = bits as u16;
        match bits >> 16 {
            1 => Tag::Receive(number),
            2 => Tag::Send(number),
            3 => Tag::Room(number),
            _ => Tag::Cancel,
        }
    }
}

/// The ring, with `sockets` registered.
pub(super) struct Requests {
    pub(super) ring: Ring,
}

impl Requests {
    /// See [`Ring::new`].
    pub(super) fn new(
        entries: u32,
        completions: u32,
        sockets: &[RawFd],
        sqpoll: bool,
    ) -> Result<Requests, UringError> {
        let mut ring = Ring::new(entries, completions, sqpoll)?;
        ring.register_files(sockets)?;
        Ok(Requests { ring })
    }

    /// Registers the frames' memory to send from; returns the index of the registered buffer.
    pub(super) fn register_frames(&self, pool: &mut FramePool) -> io::Result<u16> {
        let (memory, bytes) = pool.memory();
        // SAFETY: the pool outlives the ring's use of it: requests are cancelled before it is freed.
        unsafe { self.ring.register_memory(memory, bytes) }
    }

    fn push(&mut self, entry: squeue::Entry, tag: Tag) -> bool {
        // SAFETY: what the entry points to (header, message, frame) is kept by its owner until the completion.
        unsafe { self.ring.push(&entry.user_data(tag.bits())) }
    }

    /// Receives on a socket until something ends it.
    pub(super) fn receive(&mut self, socket: u16, header: *const libc::msghdr, group: u16) -> bool {
        let socket_fd = types::Fixed(u32::from(socket));
        let entry = opcode::RecvMsgMulti::new(socket_fd, header, group).build();
        self.push(entry, Tag::Receive(socket))
    }

    /// Sends a message; from `fixed`, a registered buffer, when it is to go without a copy. `quiet`: only a failure is completed.
    pub(super) fn send(
        &mut self,
        slot: u16,
        message: &Message,
        socket: u16,
        fixed: Option<u16>,
        quiet: bool,
    ) -> bool {
        let socket = types::Fixed(u32::from(socket));
        let header = message.header();
        let (bytes, len) = message.bytes();
        let (name, name_len) = message.name();
        let entry = match (message.zero_copy, message.has_control(), fixed) {
            // Spares the kernel reading header and vector.
            (false, false, _) => opcode::Send::new(socket, bytes, len)
                .dest_addr(name)
                .dest_addr_len(name_len)
                .flags(libc::MSG_DONTWAIT)
                .build(),
            (false, true, _) => {
                opcode::SendMsg::new(socket, header).flags(libc::MSG_DONTWAIT as u32).build()
            }
            (true, false, Some(_)) => opcode::SendZc::new(socket, bytes, len)
                .dest_addr(name)
                .dest_addr_len(name_len)
                .buf_index(fixed)
                .flags(libc::MSG_DONTWAIT)
                .zc_flags(REPORT_USAGE)
                .build(),
            (true, ..) => opcode::SendMsgZc::new(socket, header)
                .flags(libc::MSG_DONTWAIT as u32)
                .ioprio(REPORT_USAGE)
                .build(),
        };
        let flags = if quiet { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() };
        self.push(entry.flags(flags), Tag::Send(slot))
    }

    /// Asks to be told when a socket has room to send.
    pub(super) fn room(&mut self, socket: u16) -> bool {
        let entry = opcode::PollAdd::new(types::Fixed(u32::from(socket)), libc::POLLOUT as u32).build();
        self.push(entry, Tag::Room(socket))
    }

    /// Ends a request.
    pub(super) fn cancel(&mut self, tag: Tag) -> bool {
        self.push(opcode::AsyncCancel::new(tag.bits()).build(), Tag::Cancel)
    }

    /// Hands out every completion there is: tag, result, flags.
    pub(super) fn completions(&mut self, mut each: impl FnMut(Tag, i32, u32)) {
        self.ring.completions(|data, result, flags| each(Tag::of(data), result, flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_ring() {
        for tag in [Tag::Receive(0), Tag::Receive(u16::MAX), Tag::Send(7), Tag::Room(3), Tag::Cancel] {
            assert_eq!(Tag::of(tag.bits()), tag);
        }
    }
}
