//! A port on which the same packets arrive again and again: the cheapest device there is, to measure what lies above it.
//!
//! ```text
//!   packets ──copied into free frames──► rx        tx ──► counted, frame free again
//! ```
//!
//! There are no rings and no other thread; `rx` fills every burst to the brim and `tx` takes whatever it gets.

use super::{Port, PortInfo, PortStats};
use crate::frame::{BURST, Burst, FramePool, Ledger, flag};
use volley_wire::ethernet::Mac;

/// How packets are replayed.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// How many times the list of packets arrives; `None` for ever.
    pub rounds: Option<u64>,
    /// Frames of the port.
    pub frames: u32,
    /// Bytes of a frame. A longer packet is spread over several.
    pub chunk: u32,
    /// Bytes kept free before each packet.
    pub headroom: u32,
    /// See [`PortInfo::mtu`].
    pub mtu: usize,
    /// See [`PortInfo::mac`].
    pub mac: Option<Mac>,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        // Frames: a burst with the app, a burst to send unasked; small enough that all stay in L2, as a warm UMEM would.
        ReplayConfig { rounds: None, frames: 128, chunk: 2048, headroom: 256, mtu: 1500, mac: None }
    }
}

/// See the module.
pub struct ReplayPort {
    packets: Vec<Vec<u8>>,
    next: usize,
    rounds_left: Option<u64>,
    pool: FramePool,
    stats: PortStats,
    info: PortInfo,
}

impl ReplayPort {
    /// A port on which `packets` arrive, in order.
    ///
    /// # Panics
    /// When a packet is longer than a burst of frames.
    pub fn new(packets: Vec<Vec<u8>>, config: &ReplayConfig) -> ReplayPort {
        let pool = FramePool::new(config.frames, config.chunk, config.headroom);
        let most = BURST.min(config.frames as usize) * pool.room();
        if let Some(long) = packets.iter().find(|packet| packet.len() > most) {
            panic!("a packet of {} bytes does not fit a burst of {}-byte frames", long.len(), pool.room());
        }
        let info = PortInfo {
            name: format!("replay of {} packets", packets.len()),
            mtu: config.mtu,
            mac: config.mac,
            queues: vec![0],
            tx_checksum: false,
            max_segments: packets.iter().map(|packet| segments(packet, pool.room())).max().unwrap_or(1),
        };
        ReplayPort { rounds_left: config.rounds, packets, next: 0, pool, stats: PortStats::default(), info }
    }

    /// True when every round is through (or receiving was stopped).
    pub fn is_finished(&self) -> bool {
        self.rounds_left == Some(0) || self.packets.is_empty()
    }

    /// Index of the packet that arrives next.
    pub fn position(&self) -> usize {
        self.next
    }

    pub(super) fn rename(&mut self, name: String) {
        self.info.name = name;
    }
}

/// Frames that a packet takes; no division for the common one.
#[inline(always)]
fn segments(packet: &[u8], room: usize) -> usize {
    if packet.len() <= room { 1 } else { packet.len().div_ceil(room) }
}

impl Port for ReplayPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn rx(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while !self.is_finished() {
            let packet = &self.packets[self.next];
            let segments = segments(packet, self.pool.room());
            let free = self.pool.ledger().free as usize;
            if segments > burst.remaining_capacity() || segments > free {
                break;
            }
            let mut rest = &packet[..];
            for left in (0..segments).rev() {
                let Some(mut frame) = self.pool.take(0) else { break };
                let (bytes, behind) = rest.split_at(rest.len().min(self.pool.room()));
                rest = behind;
                let fitted = frame.set_len(bytes.len());
                debug_assert!(fitted, "a segment is as long as a frame's room");
                frame.bytes_mut().copy_from_slice(bytes);
                frame.set_flags(if left > 0 { flag::MORE } else { 0 });
                burst.push(frame);
            }
            self.next += 1;
            if self.next == self.packets.len() {
                self.next = 0;
                self.rounds_left = self.rounds_left.map(|rounds| rounds - 1);
            }
        }
        let received = burst.len() - before;
        self.stats.rx_frames += received as u64;
        received
    }

    fn tx(&mut self, burst: &mut Burst) -> usize {
        let accepted = burst.len();
        self.stats.tx_frames += accepted as u64;
        self.stats.tx_completed += accepted as u64;
        self.free(burst);
        accepted
    }

    fn flush(&mut self) {}

    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        self.pool.fill(burst, want, 0)
    }

    fn free(&mut self, burst: &mut Burst) {
        burst.drain(..).for_each(|frame| self.pool.give(frame));
    }

    fn ledger(&self) -> Ledger {
        self.pool.ledger()
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn stop_rx(&mut self) {
        self.rounds_left = Some(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_in_order_again_and_again() {
        let packets = vec![vec![1; 60], vec![2; 3000], vec![3; 60]];
        let config = ReplayConfig { rounds: Some(2), chunk: 2048, headroom: 48, ..ReplayConfig::default() };
        let mut port = ReplayPort::new(packets, &config);
        assert_eq!(port.info().max_segments, 2);
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 8);
        let seen: Vec<_> = burst.iter().map(|f| (f.bytes()[0], f.len(), f.has(flag::MORE))).collect();
        let round = [(1, 60, false), (2, 2000, true), (2, 1000, false), (3, 60, false)];
        assert_eq!(seen, [round, round].concat());
        assert!(port.is_finished());
        assert_eq!(port.tx(&mut burst), 8);
        assert_eq!(port.rx(&mut burst), 0);
        assert_eq!((port.ledger().free, port.stats().tx_completed), (128, 8));
    }

    #[test]
    fn an_endless_replay_fills_every_burst_and_never_cuts_a_chain() {
        let mut port = ReplayPort::new(vec![vec![7; 5000]], &ReplayConfig::default());
        let mut burst = Burst::new();
        for _ in 0..10 {
            assert_eq!(port.rx(&mut burst), 63, "21 packets of three frames; a 22nd would not fit");
            assert!(!burst.last().unwrap().has(flag::MORE));
            port.free(&mut burst);
        }
        port.stop_rx();
        assert_eq!(port.rx(&mut burst), 0);
        assert!(port.ledger().balances());
    }
}
