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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{MmsgPort, SocketConfig, Verdict};
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    fn at(ns: u64) -> Now {
        Now { ns, unix_secs: 0 }
    }

    #[test]
    fn the_kernel_is_asked_now_and_then_and_at_once_again_while_it_has_something() {
        let sockets = MmsgPort::open(&["127.0.0.1:0".parse().unwrap()], &SocketConfig::default()).unwrap();
        let ours = sockets.local_addresses()[0];
        let mut companion = Companion::new(Box::new(sockets));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

        let mut batch = Batch::default();
        assert_eq!(companion.recv(&mut batch, at(0)), 0);
        client.send_to(b"hello", ours).unwrap();
        assert_eq!(companion.recv(&mut batch, at(LOOK_EVERY_NS - 1)), 0, "not yet time to look");
        // Loopback delivers in the sender's own call, but epoll may take a moment.
        let until = Instant::now() + Duration::from_secs(10);
        let mut now = LOOK_EVERY_NS;
        while companion.recv(&mut batch, at(now)) == 0 {
            assert!(Instant::now() < until, "nothing arrived");
            now += LOOK_EVERY_NS;
        }
        let mut datagrams = Datagrams::new();
        assert_eq!(companion.open(&mut batch, &mut datagrams), 1);
        drop(datagrams);
        let verdicts = Verdicts::from_iter([Verdict::Reply { len: 5, unchanged: true }]);
        companion.settle(&mut batch, &verdicts);
        companion.flush();
        let mut answer = [0; 16];
        assert_eq!(client.recv(&mut answer).unwrap(), 5);

        client.send_to(b"more", ours).unwrap();
        let received = companion.recv(&mut batch, at(now));
        assert_eq!(received, 1, "it had something, so it is asked again at once");
        let mut datagrams = Datagrams::new();
        companion.open(&mut batch, &mut datagrams);
        drop(datagrams);
        companion.settle(&mut batch, &Verdicts::from_iter([Verdict::Consume]));
        assert!(companion.is_drained() && companion.ledger().balances());
    }
}
