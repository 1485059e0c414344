//! Ports: bursts of frames in and out of a device.
//!
//! A port is used as `Box<dyn Port>`: the type is erased at burst granularity, one virtual call per burst and none
//! per packet, so that nothing above it depends on what it is made of.
//!
//! ```text
//!   rx(&mut burst)      device ──► frames we own
//!   tx(&mut burst)      frames we own ──► device           (what does not fit stays in the burst)
//!   flush()             one doorbell; completions and refills
//!   alloc / free        empty frames to send from, frames we are done with
//! ```
//!
//! A port never parses a packet and never decides what happens to one.

#[cfg(target_os = "linux")]
pub mod af_xdp;
#[cfg(all(target_os = "linux", feature = "dpdk"))]
pub mod dpdk;
mod memory;
mod pcap;
mod replay;

pub use memory::{MemoryConfig, MemoryPort, MemoryWire, Refused, Transmitted};
pub use pcap::{PcapError, PcapPort};
pub use replay::{ReplayConfig, ReplayPort};

use crate::datagram::RawFd;
use crate::frame::{Burst, Ledger};
use serde::Serialize;
use volley_wire::ethernet::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a port is and can do, fixed when it was opened.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// For messages: "af_xdp eth0 queues 0-3 (copy)", "memory".
    pub name: String,
    /// Largest IP packet the interface carries, in bytes.
    pub mtu: usize,
    /// The interface's own MAC; `None` when frames for any MAC are ours.
    pub mac: Option<Mac>,
    /// The queues this port serves, in the numbers of [`crate::frame::Frame::queue`].
    pub queues: Vec<u16>,
    /// The device finishes transport checksums marked [`crate::frame::flag::CHECKSUM_PARTIAL`].
    pub tx_checksum: bool,
    /// Most frames one packet may be spread over.
    pub max_segments: usize,
}

/// Counters of a port since it was opened. Packets unless said otherwise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames accepted for transmit.
    pub tx_frames: u64,
    /// Frames whose buffer came back after transmit. It does not say that they were sent.
    pub tx_completed: u64,
    /// Frames the driver dropped on transmit (EBUSY in AF_XDP copy mode), or that no device could send (empty, or in a chain
    /// longer than [`PortInfo::max_segments`]).
    pub tx_dropped: u64,
    /// Packets the kernel dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Packets the kernel dropped for other reasons (no memory, too long for a frame).
    pub rx_dropped: u64,
    /// Packets the kernel dropped because no frame was posted. (In zero-copy mode the device drops them, and its own statistics
    /// count them.)
    pub fill_ring_empty: u64,
    /// Received packets dropped because they were spread over more frames than [`PortInfo::max_segments`].
    pub chains_dropped: u64,
    /// Descriptors the kernel refused: always our fault.
    pub invalid_descriptors: u64,
    /// System calls made to wake the kernel.
    pub wakeups: u64,
    /// Nanoseconds a worker has been busy above the driver with the frames of [`PortStats::work_frames`]; measured over DPDK, when
    /// asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub work_ns: u64,
    /// The frames.
    #[serde(skip_serializing_if = "is_zero")]
    pub work_frames: u64,
    /// The bursts they came in.
    #[serde(skip_serializing_if = "is_zero")]
    pub work_bursts: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Counters of one queue since its port was opened: what tells whether it moves.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct QueueCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames accepted for transmit.
    pub tx_frames: u64,
    /// Frames whose buffer came back after transmit.
    pub tx_completed: u64,
    /// Times the device was asked to transmit.
    pub tx_wakeups: u64,
}

/// A queue pair, or several, of one device, owned by one worker.
pub trait Port: Send {
    /// What the port is.
    fn info(&self) -> &PortInfo;

    /// Receives into the room left in `burst` and returns how many frames were added. All frames of a chain
    /// ([`crate::frame::flag::MORE`]) arrive in one burst, next to each other; a chain that does not fit waits.
    fn rx(&mut self, burst: &mut Burst) -> usize;

    /// Takes frames from the front of `burst` for transmit, in order, each on its [`crate::frame::Frame::queue`], and returns
    /// how many. What stays was not accepted and is still the caller's. A chain is taken whole or not at all.
    fn tx(&mut self, burst: &mut Burst) -> usize;

    /// Ends a burst: reaps completions, posts free frames for receive, wakes the kernel if it asked for it.
    fn flush(&mut self);

    /// Adds up to `want` empty frames to `burst` and returns how many.
    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize;

    /// Takes back every frame of `burst`.
    fn free(&mut self, burst: &mut Burst);

    /// Where every frame is.
    fn ledger(&self) -> Ledger;

    /// Counters so far.
    fn stats(&self) -> PortStats;

    /// Counters of the queue at place `at` of [`PortInfo::queues`]; all zero for ports that do not tell.
    fn queue_counters(&self, at: usize) -> QueueCounters {
        let _ = at;
        QueueCounters::default()
    }

    /// True for a port that has looked into each packet it gives out, whose headers need not be fetched again.
    fn reads_headers(&self) -> bool {
        false
    }

    /// Stops receiving: nothing more is posted, what arrives from now on is the kernel's. Transmit goes on.
    fn stop_rx(&mut self);

    /// Closes the port and says where its frames ended: those still with the kernel for transmit are counted as abandoned.
    /// After it the port neither receives nor sends; frames that are out may still be freed.
    fn close(&mut self) -> Ledger {
        self.ledger()
    }

    /// The device is gone (unplugged, unregistered); the reason, once it is known.
    fn failure(&self) -> Option<String> {
        None
    }

    /// How long an idle worker may leave the port alone, in ns, when the device wakes nobody. `None`: its descriptors do.
    fn nap_ns(&self) -> Option<u64> {
        None
    }

    /// Descriptors to wait on when the worker sleeps. Called once, after opening.
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}
