//! This crate as the server.

use crate::client::IP;
use crate::{BURST, Frame, MESSAGE, PORT, SERVER, Server};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use volley_tcp::{
    ChecksumStatus, Config, ConnectionOptions, Egress, EventKind, Instant, ListenOptions, ListenerId,
    SegmentIn, SegmentOut, Stack,
};

/// The server's transmit ring: one buffer a segment, used again for each burst.
struct Ring {
    buffers: Vec<[u8; 1536]>,
    sent: Vec<SegmentOut>,
}

impl Egress for Ring {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        self.buffers.get_mut(self.sent.len()).map(|b| &mut b[..segment.len])
    }
    fn commit(&mut self, segment: &SegmentOut) {
        self.sent.push(*segment);
    }
}

pub struct Ours {
    stack: Stack,
    ring: Ring,
    listener: ListenerId,
}

impl Ours {
    pub fn new(connections: usize) -> Ours {
        let config = Config {
            max_connections: connections as u32 + 1024,
            pool_bytes: (connections * 1024).max(16 << 20),
            max_segments_in_flight: (connections as u32 * 2).max(65_536),
            max_time_wait: 65_536,
            ..Config::default()
        };
        let mut stack = Stack::new(config, &[9; 64], Instant::from_millis(1_000));
        let options = ListenOptions { backlog: 4096, connection: ConnectionOptions::default() };
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(SERVER)), PORT);
        let listener = stack.listen(local, options).unwrap();
        let ring = Ring { buffers: vec![[0; 1536]; 4 * BURST], sent: Vec::with_capacity(4 * BURST) };
        Ours { stack, ring, listener }
    }
}

impl Server for Ours {
    fn expect(&mut self, _connections: usize) {}

    fn serve(&mut self, frames: &[Frame], now: Duration, answers: &mut Vec<Vec<u8>>) -> (u64, Duration) {
        let now = Instant::from_nanos(now.as_nanos() as u64);
        let destination = IpAddr::V4(Ipv4Addr::from(SERVER));
        // What the layer below hands over: addresses and segments.
        let inputs: Vec<SegmentIn<'_>> = frames
            .iter()
            .map(|frame| SegmentIn {
                source: IpAddr::from([frame.bytes[12], frame.bytes[13], frame.bytes[14], frame.bytes[15]]),
                destination,
                ecn: 0,
                checksum: ChecksumStatus::MustVerify,
                path: 0,
                bytes: &frame.bytes[IP..frame.len],
            })
            .collect();
        self.ring.sent.clear();
        let mut echoed = 0;
        let mut message = [0u8; 2048];
        let start = std::time::Instant::now();
        let mut burst = self.stack.receive_burst(now, &inputs);
        while let Some(event) = burst.next_event() {
            let id = event.connection;
            match event.kind {
                EventKind::Established => {
                    burst.accept(self.listener);
                }
                EventKind::Readable => loop {
                    let bytes = burst.peek(id).unwrap();
                    let n = bytes.len();
                    if n == 0 {
                        break;
                    }
                    message[..n].copy_from_slice(bytes);
                    burst.read(id, n).unwrap();
                    burst.write(id, &message[..n]).unwrap();
                    echoed += (n / MESSAGE) as u64;
                },
                EventKind::PeerClosed => burst.close(id).unwrap(),
                _ => {}
            }
        }
        drop(burst);
        if self.stack.next_deadline().is_some_and(|at| at <= now) {
            self.stack.timers(now);
        }
        self.stack.transmit(now, &mut self.ring);
        let spent = start.elapsed();
        for (sent, buffer) in self.ring.sent.iter().zip(&self.ring.buffers) {
            let IpAddr::V4(to) = sent.destination else { continue };
            answers.push([&to.octets()[..], &buffer[..sent.len]].concat());
        }
        (echoed, spent)
    }

    fn connections(&self) -> usize {
        self.stack.population().connections as usize
    }

    fn memory(&self) -> (usize, usize) {
        let memory = self.stack.memory();
        (memory.per_connection, memory.total)
    }
}
