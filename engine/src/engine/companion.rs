//! The companion: kernel sockets beside an AF_XDP port, looked at now and then.
//!
//! Every steered address and port is also bound by a kernel socket of the engine. It reserves the port, keeps the kernel
//! from answering "port unreachable", and serves what reaches the kernel all the same: reassembled fragments,
//! packets on queues that no worker serves. That is little, so a busy worker asks the kernel about it only every so
//! often; a sleeping one is woken by it.

use crate::datagram::{Batch, DatagramPort, DatagramStats, Datagrams, SendError, Verdicts};
use crate::frame::Ledger;
use crate::net::Path;
use crate::port::PortStats;
use crate::time::Now;
use std::os::fd::RawFd;

/// Between two looks of a busy worker, in ns. Each costs a system call (some 300 ns): at 100 µs that is 0.3 % of a core.
/// Less would show in the packet rate, more in the latency of fragmented datagrams.
const LOOK_EVERY_NS: u64 = 100_000;

/// A datagram port that is asked for what it received at most every 100 µs, until it has something; then at once again.
pub struct Companion {
    sockets: Box<dyn DatagramPort>,
    next_look_ns: u64,
    /// Something was sent or answered since the last flush.
    dirty: bool,
}

impl Companion {
    /// Wraps kernel sockets.
    pub fn new(sockets: Box<dyn DatagramPort>) -> Companion {
        Companion { sockets, next_look_ns: 0, dirty: false }
    }
}

impl DatagramPort for Companion {
    fn name(&self) -> &str {
        self.sockets.name()
    }

    fn recv(&mut self, batch: &mut Batch, now: Now) -> usize {
        if now.ns < self.next_look_ns {
            return 0;
        }
        let received = self.sockets.recv(batch, now);
        if received == 0 {
            self.next_look_ns = now.ns + LOOK_EVERY_NS;
        }
        received
    }

    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        self.sockets.open(batch, out)
    }

    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts) {
        self.dirty = true;
        self.sockets.settle(batch, verdicts);
    }

    fn send(&mut self, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        self.dirty = true;
        self.sockets.send(path, len, fill)
    }

    fn flush(&mut self) {
        if self.dirty {
            self.sockets.flush();
            // What the kernel did not take yet is offered again with the next flush.
            self.dirty = !self.sockets.is_drained();
        }
    }

    fn stats(&self) -> DatagramStats {
        self.sockets.stats()
    }

    fn port_stats(&self) -> PortStats {
        self.sockets.port_stats()
    }

    fn ledger(&self) -> Ledger {
        self.sockets.ledger()
    }

    fn max_payload(&self, ipv4: bool) -> usize {
        self.sockets.max_payload(ipv4)
    }

    fn stop_rx(&mut self) {
        self.sockets.stop_rx();
    }

    fn is_drained(&self) -> bool {
        self.sockets.is_drained()
    }

    fn close(&mut self) -> Ledger {
        self.sockets.close()
    }

    fn failure(&self) -> Option<String> {
        self.sockets.failure()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        self.sockets.poll_fds()
    }

    fn next_deadline(&self) -> Option<u64> {
        self.sockets.next_deadline()
    }
}
