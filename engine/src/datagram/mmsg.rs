//! Batches: one `recvmmsg` and one `sendmmsg` per burst; UDP GRO and GSO as options.
//!
//! The companion of every steered port, what the engine falls back to without XDP, and the peer that shows what batching alone
//! buys. With GSO, answers in a row that go to one peer and have one length (the last may be shorter) leave as one message.

use super::readiness::{Calls, Received};
use super::socket::{Arrived, MAX_ERRORS, Messages, Out, Socket, SocketConfig, is_blocked};
use crate::frame::{BURST, Burst, FramePool};
use crate::port::PortStats;

/// Most segments of one GSO message: UDP_MAX_SEGMENTS of the kernels before 6.8 (128 since).
const GSO_SEGMENTS: usize = 64;
/// Most bytes of one GSO message: a UDP payload over IPv4.
const GSO_BYTES: usize = 65_507;

/// One call a burst. See the module.
pub struct Batched {
    rx: Messages,
    tx: Messages,
    gro: bool,
    /// Longest datagram that is sent as a segment, in bytes; 0: GSO is off. Lowered by what the kernel refuses.
    gso_limit: usize,
}

/// How many datagrams at the front of `out` can leave as one message.
fn group(out: &[Out<'_>], gso_limit: usize) -> usize {
    let first = &out[0];
    let segment = first.bytes.len();
    if segment == 0 || segment > gso_limit {
        return 1;
    }
    let (mut count, mut bytes) = (1, segment);
    for next in out[1..].iter().take(GSO_SEGMENTS - 1) {
        let len = next.bytes.len();
        let fits = len > 0 && len <= segment && bytes + len <= GSO_BYTES;
        if !fits || next.path != first.path || next.socket != first.socket {
            break;
        }
        (count, bytes) = (count + 1, bytes + len);
        if len < segment {
            break;
        }
    }
    count
}

impl Calls for Batched {
    fn new(config: &SocketConfig) -> Self {
        let gso_limit = if config.gso { usize::from(u16::MAX) } else { 0 };
        Batched { rx: Messages::new(), tx: Messages::new(), gro: config.gro, gso_limit }
    }

    fn name(&self) -> Option<&'static str> {
        Some(if self.gro || self.gso_limit > 0 { "gso" } else { "mmsg" })
    }

    fn wants_gro(&self) -> bool {
        self.gro
    }

    fn receive(
        &mut self,
        socket: &Socket,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) -> Received {
        let before = frames.len();
        let asked = pool.fill(frames, BURST, socket.bound.template.queue());
        if asked == 0 {
            return Received::More;
        }
        let control = self.gro || socket.bound.wildcard;
        for (n, frame) in frames[before..].iter_mut().enumerate() {
            self.rx.prepare_receive(n, frame, control);
        }
        let (mut errors, mut got, mut outcome) = (0, 0, Received::More);
        loop {
            stats.wakeups += 1;
            match self.rx.receive_many(socket, asked) {
                Ok(count) => {
                    got = count;
                    // Fewer than asked for: the queue was empty, or an error waits that the next call will report.
                    break;
                }
                Err(libc::EAGAIN) => {
                    outcome = Received::Drained;
                    break;
                }
                Err(_) => errors += 1,
            }
            if errors >= MAX_ERRORS {
                break;
            }
        }
        for (n, frame) in frames[before..before + got].iter_mut().enumerate() {
            let (len, what) = self.rx.received(n, socket);
            let fits = frame.set_len(len.min(frame.len() + frame.tailroom()));
            debug_assert!(fits, "no longer than the frame's room");
            arrived[before + n] = what;
        }
        frames.drain(before + got..).for_each(|frame| pool.give(frame));
        if got > 0 && got < asked { Received::Drained } else { outcome }
    }

    fn transmit(
        &mut self,
        sockets: &[Socket],
        out: &[Out<'_>],
        stats: &mut PortStats,
        mut done: impl FnMut(usize, bool),
    ) -> usize {
        let (mut at, mut retried) = (0, false);
        while at < out.len() {
            let index = out[at].socket;
            let socket = &sockets[index as usize];
            // Messages of one socket, as many as follow each other; `ends` is where each ends in `out`.
            let (mut count, mut end, mut iovec) = (0, at, 0);
            let mut ends = [0u8; BURST];
            while end < out.len() && out[end].socket == index {
                let size = group(&out[end..], self.gso_limit);
                let segment = (size > 1).then_some(out[end].bytes.len() as u16);
                iovec = self.tx.prepare_send(count, iovec, socket, &out[end..end + size], segment);
                end += size;
                ends[count] = end as u8;
                count += 1;
            }
            stats.wakeups += 1;
            match self.tx.send_many(socket, count) {
                Ok(taken) => {
                    let end = ends[taken.max(1) - 1] as usize;
                    (at..end).for_each(|index| done(index, true));
                    stats.tx_frames += (end - at) as u64;
                    stats.tx_completed += (end - at) as u64;
                    (at, retried) = (end, false);
                }
                Err(errno) if is_blocked(errno) => return at,
                Err(errno) if ends[0] as usize > at + 1 => self.less_gso(errno, out[at].bytes.len()),
                // An ICMP answer to an earlier datagram is reported by the next call: so once more.
                Err(_) if !retried => retried = true,
                Err(_) => {
                    done(at, false);
                    (at, retried) = (at + 1, false);
                }
            }
        }
        out.len()
    }
}

impl Batched {
    /// A message of several segments was refused: either they are longer than the path's MTU allows, or the device cannot at all.
    fn less_gso(&mut self, errno: i32, segment: usize) {
        let too_long = matches!(errno, libc::EINVAL | libc::EMSGSIZE);
        self.gso_limit = if too_long { segment - 1 } else { 0 };
        if !too_long {
            log::warn!(
                "UDP GSO is switched off: the device refused it ({})",
                nix::errno::Errno::from_raw(errno).desc()
            );
        }
    }
}
