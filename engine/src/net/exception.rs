//! The exception path: what is not ours goes to a kernel behind a second port, and what that sends goes out.
//!
//! ```text
//!   port.rx ──► not a datagram, no segment of ours, no question to us ── copied ──► exception.tx ──► kernel
//!   port.tx ◄────────────────────────────────────────────────────────── copied ──── exception.rx ◄── kernel
//! ```
//!
//! Frames never change ports, their bytes do. Each direction holds a burst; what does not fit is dropped and counted. It never looks
//! into a packet.

use super::queue::TxQueue;
use crate::datagram::RawFd;
use crate::frame::{Burst, Frame, flag};
use crate::port::Port;
use volley_wire::checksum::Sum;

/// Empty frames taken from the port at once.
const SPARE: usize = 32;

/// The kernel's side. See the module.
pub(super) struct Exception {
    port: Box<dyn Port>,
    tx: TxQueue,
    spare: Burst,
    /// The kernel's packets that have not been sent on yet.
    rx: Burst,
}

impl Exception {
    pub fn new(port: Box<dyn Port>) -> Exception {
        Exception { port, tx: TxQueue::default(), spare: Burst::new(), rx: Burst::new() }
    }

    /// Copies a packet for the kernel; false when there is no room for it.
    pub fn copy(&mut self, chain: &[Frame]) -> bool {
        if self.tx.is_full() {
            return false;
        }
        let total = chain.iter().map(Frame::len).sum();
        let Some(mut frame) = take_spare(&mut self.spare, &mut *self.port) else { return false };
        if !frame.set_len(total) {
            self.spare.push(frame);
            return false;
        }
        let mut at = 0;
        for part in chain {
            frame.bytes_mut()[at..at + part.len()].copy_from_slice(part.bytes());
            at += part.len();
        }
        frame.set_flags(0);
        frame.set_queue(self.port.info().queues.first().copied().unwrap_or(0));
        self.tx.push(frame);
        true
    }

    /// Offers what is for the kernel to its port: how many packets it took, and how many were dropped because it took no more.
    pub fn flush(&mut self) -> (u64, u64) {
        let mut taken = self.tx.offer(&mut *self.port);
        self.port.flush();
        let mut dropped = 0;
        if !self.tx.is_empty() {
            taken += self.tx.offer(&mut *self.port);
            self.port.flush();
            dropped = self.tx.abandon(&mut *self.port);
        }
        (taken as u64, dropped as u64)
    }

    /// Receives from the kernel, and gives its packets to `send` until that has no room (then it returns false). Packets in
    /// several frames are none of a kernel's that knows the MTU. Returns how many were sent, and how many were not.
    pub fn receive(&mut self, mut send: impl FnMut(&Frame) -> bool) -> (u64, u64) {
        self.port.rx(&mut self.rx);
        let (mut sent, mut dropped, mut inside) = (0, 0, false);
        for frame in &mut self.rx {
            let more = frame.has(flag::MORE);
            if more || inside {
                inside = more;
                dropped += u64::from(!more);
                continue;
            }
            finish_checksum(frame);
            match send(frame) {
                true => sent += 1,
                false => dropped += 1,
            }
        }
        if !self.rx.is_empty() {
            self.port.free(&mut self.rx);
        }
        (sent, dropped)
    }

    /// Stops taking packets of the kernel.
    pub fn stop(&mut self) {
        self.port.stop_rx();
    }

    /// Gives every frame back; returns how many packets were not sent.
    pub fn close(&mut self) -> u64 {
        let unsent = self.tx.abandon(&mut *self.port);
        self.port.free(&mut self.spare);
        self.port.free(&mut self.rx);
        unsent as u64
    }

    /// True when everything for the kernel has left.
    pub fn is_drained(&self) -> bool {
        self.tx.is_empty()
    }

    pub fn port(&self) -> &dyn Port {
        &*self.port
    }

    pub fn close_port(&mut self) {
        self.port.close();
    }

    pub fn poll_fds(&self) -> Vec<RawFd> {
        self.port.poll_fds()
    }
}

impl Drop for Exception {
    fn drop(&mut self) {
        self.close();
    }
}

fn take_spare(spare: &mut Burst, port: &mut dyn Port) -> Option<Frame> {
    if spare.is_empty() {
        port.alloc(spare, SPARE);
    }
    spare.pop()
}

/// Computes a checksum that the kernel has left to its device.
fn finish_checksum(frame: &mut Frame) {
    if let Some((start, field)) = frame.partial_checksum() {
        let (start, field) = (start as usize, start as usize + field as usize);
        let bytes = frame.bytes_mut();
        if let Some(covered) = bytes.get(start..) {
            let checksum = Sum::ZERO.bytes(covered).complement();
            if let Some(place) = bytes.get_mut(field..field + 2) {
                place.copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }
}
