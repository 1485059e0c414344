//! One system call per datagram each way: `recvfrom` and `sendto`.
//!
//! What every UDP server starts as, and what everything else is measured against. On a wildcard address the calls are
//! `recvmsg` and `sendmsg`, which carry the address that was addressed.

use super::readiness::{Calls, Received};
use super::socket::{
    Arrived, MAX_ERRORS, Messages, Out, Socket, SocketConfig, is_blocked, receive_from, send_to,
};
use crate::frame::{Burst, FramePool};
use crate::port::PortStats;

/// One call a datagram. See the module.
pub struct OneByOne {
    messages: Messages,
}

impl Calls for OneByOne {
    fn new(_config: &SocketConfig) -> Self {
        OneByOne { messages: Messages::new() }
    }

    fn receive(
        &mut self,
        socket: &Socket,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) -> Received {
        let mut errors = 0;
        while !frames.is_full() {
            let Some(mut frame) = pool.take(socket.bound.template.queue()) else { return Received::More };
            stats.wakeups += 1;
            let result = match socket.bound.wildcard {
                false => receive_from(socket, &mut frame),
                true => {
                    self.messages.prepare_receive(0, &mut frame, true);
                    self.messages.receive_one(socket).map(|()| self.messages.received(0, socket))
                }
            };
            match result {
                Ok((len, what)) => {
                    let fits = frame.set_len(len);
                    debug_assert!(fits, "the kernel writes no more than the room it was given");
                    arrived[frames.len()] = what;
                    frames.push(frame);
                }
                Err(errno) => {
                    pool.give(frame);
                    errors += 1;
                    if errno == libc::EAGAIN {
                        return Received::Drained;
                    }
                    if errors >= MAX_ERRORS {
                        return Received::More;
                    }
                }
            }
        }
        Received::More
    }

    fn transmit(
        &mut self,
        sockets: &[Socket],
        out: &[Out<'_>],
        stats: &mut PortStats,
        mut done: impl FnMut(usize, bool),
    ) -> usize {
        for (index, datagram) in out.iter().enumerate() {
            let socket = &sockets[datagram.socket as usize];
            let mut call = || {
                stats.wakeups += 1;
                match socket.bound.wildcard {
                    false => send_to(socket, datagram),
                    true => {
                        self.messages.prepare_send(0, 0, socket, std::slice::from_ref(datagram), None);
                        self.messages.send_one(socket)
                    }
                }
            };
            // An ICMP answer to an earlier datagram is reported by the next call: so once more.
            let result = call().or_else(|errno| if is_blocked(errno) { Err(errno) } else { call() });
            match result {
                Err(errno) if is_blocked(errno) => return index,
                result => {
                    stats.tx_frames += u64::from(result.is_ok());
                    stats.tx_completed += u64::from(result.is_ok());
                    done(index, result.is_ok());
                }
            }
        }
        out.len()
    }
}
