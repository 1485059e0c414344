//! What the two benches of the net layer share: an echo over ports that cost as little as possible.

use arrayvec::ArrayVec;
use std::os::fd::RawFd;
use volley::datagram::{Batch, DatagramPort, Datagrams, Verdicts};
use volley::frame::{BURST, Burst, FramePool, Ledger};
use volley::net::packet::Packet;
use volley::port::{Port, PortInfo, PortStats};
use volley::time::Now;

/// A port that receives what was sent over it last: its packets go round for ever, since the echo of an echo is
/// the packet itself. Moving the tokens is all it does, so what is measured is the work above the port.
pub struct Carousel {
    info: PortInfo,
    pool: FramePool,
    round: Burst,
}

impl Carousel {
    /// A burst of UDP packets of `len` bytes on the wire (without frame check sequence), IPv4 or IPv6.
    pub fn new(len: usize, ipv4: bool) -> Carousel {
        let mut pool = FramePool::new(BURST as u32, 2048, 256);
        let mut round = Burst::new();
        pool.fill(&mut round, BURST, 0);
        for (n, frame) in round.iter_mut().enumerate() {
            let bytes = packet(len, ipv4, n as u8);
            assert!(frame.set_len(bytes.len()), "the packet fits a frame");
            frame.bytes_mut().copy_from_slice(&bytes);
        }
        let info = PortInfo {
            name: "carousel".into(),
            mtu: 1500,
            mac: None,
            queues: vec![0],
            tx_checksum: false,
            max_segments: 1,
        };
        Carousel { info, pool, round }
    }
}

impl Drop for Carousel {
    fn drop(&mut self) {
        self.round.drain(..).for_each(|frame| self.pool.give(frame));
    }
}

impl Port for Carousel {
    fn info(&self) -> &PortInfo {
        &self.info
    }
    fn rx(&mut self, burst: &mut Burst) -> usize {
        let received = self.round.len();
        burst.extend(self.round.drain(..));
        received
    }
    fn tx(&mut self, burst: &mut Burst) -> usize {
        let sent = burst.len();
        self.round.extend(burst.drain(..));
        sent
    }
    fn flush(&mut self) {}
    fn alloc(&mut self, _: &mut Burst, _: usize) -> usize {
        0
    }
    fn free(&mut self, burst: &mut Burst) {
        self.round.extend(burst.drain(..));
    }
    fn ledger(&self) -> Ledger {
        self.pool.ledger()
    }
    fn stats(&self) -> PortStats {
        PortStats::default()
    }
    fn stop_rx(&mut self) {}
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

/// A UDP packet of `len` bytes on the wire.
pub fn packet(len: usize, ipv4: bool, n: u8) -> Vec<u8> {
    let (source, destination, headers) = match ipv4 {
        true => ([10, 1, 0, n].into(), [10, 1, 1, 1].into(), 42),
        false => {
            let ip = |last| std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
            (ip(0x100 + u16::from(n)), ip(1), 62)
        }
    };
    let payload: ArrayVec<u8, 1500> = (headers..len).map(|at| at as u8).collect();
    let packet = Packet::new(
        std::net::SocketAddr::new(source, 5000),
        std::net::SocketAddr::new(destination, 7777),
        &payload,
    );
    packet.build()
}

/// One burst: received, parsed, verified, echoed. Returns how many were answered.
#[inline(never)]
pub fn echo<D: DatagramPort + ?Sized>(port: &mut D, batch: &mut Batch, verdicts: &mut Verdicts) -> usize {
    port.recv(batch, Now::default());
    let mut views = Datagrams::new();
    let opened = port.open(batch, &mut views);
    verdicts.clear();
    for view in &mut views {
        view.reply(view.payload().len());
        verdicts.push(view.verdict());
    }
    drop(views);
    port.settle(batch, verdicts);
    port.flush();
    opened
}
