//! Counters that a worker publishes for others to read: plain numbers on its side, relaxed atomics on theirs.

use crate::datagram::{DatagramPort, DatagramStats};
use crate::frame::Ledger;
use crate::net::standalone::StandaloneStats;
use crate::port::PortStats;
use crate::stream::{StreamPort, StreamStats};
use crossbeam_utils::CachePadded;
use serde::Serialize;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a worker's loop did since it started.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LoopStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that found nothing to do.
    pub idle_turns: u64,
    /// Times the worker slept.
    pub sleeps: u64,
    /// Bursts received.
    pub bursts: u64,
    /// Frames (or kernel buffers) in those bursts.
    pub frames: u64,
    /// Events of streams.
    pub stream_events: u64,
    /// Ticks called.
    pub ticks: u64,
    /// Ticks that could not be called in time and were left out.
    pub ticks_skipped: u64,
    /// Worst lateness of a tick that was called, in ns.
    pub tick_late_max_ns: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Messages taken from other workers.
    pub posts: u64,
    /// Results taken from the helper thread.
    pub results: u64,
    /// Jobs that panicked on the helper thread.
    pub jobs_panicked: u64,
}

/// Everything one port counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortCounters {
    /// In datagrams.
    pub datagrams: DatagramStats,
    /// In frames, of the port below; zero for kernel sockets.
    pub port: PortStats,
    /// Where the frames are.
    pub ledger: Ledger,
    /// In streams, of ports that carry them.
    pub streams: StreamStats,
    /// In messages, of a port without a kernel behind it: ARP, neighbour discovery, echo, path MTUs.
    pub standalone: StandaloneStats,
}

impl PortCounters {
    /// What `port` counts now.
    pub fn of(port: &dyn DatagramPort) -> PortCounters {
        PortCounters {
            datagrams: port.stats(),
            port: port.port_stats(),
            ledger: port.ledger(),
            streams: port.stream_stats(),
            standalone: port.standalone_stats(),
        }
    }

    /// What a stream port counts now.
    pub fn of_streams(port: &dyn StreamPort) -> PortCounters {
        PortCounters { streams: port.stats(), ledger: port.ledger(), ..PortCounters::default() }
    }
}

/// A value made of `u64`s that one thread publishes and any thread reads, without a lock on either side.
///
/// A reader may see some numbers of this publication and some of the one before; each number on its own is whole.
pub struct Published<T> {
    lines: Box<[CachePadded<[AtomicU64; LINE]>]>,
    of: PhantomData<T>,
}

/// Counters to a padded line: 128 bytes, what `CachePadded` aligns to on x86-64 and arm64.
const LINE: usize = 16;

impl<T: FromBytes + IntoBytes + Immutable> Published<T> {
    /// All zero.
    pub fn new() -> Published<T> {
        const { assert!(size_of::<T>().is_multiple_of(8), "made of u64s") };
        let lines = (size_of::<T>() / 8).div_ceil(LINE);
        Published { lines: (0..lines).map(|_| CachePadded::default()).collect(), of: PhantomData }
    }

    /// Publishes `value`. For one thread only.
    pub fn set(&self, value: &T) {
        let words = value.as_bytes().chunks_exact(8);
        for (word, place) in words.zip(self.lines.iter().flat_map(|line| line.iter())) {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            place.store(word, Ordering::Relaxed);
        }
    }

    /// The last published value.
    pub fn get(&self) -> T {
        let mut value = T::new_zeroed();
        let places = self.lines.iter().flat_map(|line| line.iter());
        let mut bytes = Vec::with_capacity(size_of::<T>());
        for place in places.take(size_of::<T>() / 8) {
            bytes.extend_from_slice(&place.load(Ordering::Relaxed).to_ne_bytes());
        }
        if let Ok(read) = T::read_from_bytes(&bytes) {
            value = read;
        }
        value
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Default for Published<T> {
    fn default() -> Self {
        Published::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let board = Published::<PortCounters>::new();
        assert_eq!(board.get(), PortCounters::default());
        let mut counters = PortCounters::default();
        counters.datagrams.received = u64::MAX;
        counters.datagrams.dropped[3] = 7;
        counters.ledger.abandoned = 9;
        board.set(&counters);
        assert_eq!(board.get(), counters);
    }
}
