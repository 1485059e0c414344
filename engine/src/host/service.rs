//! What an engine is going to do with a device: what the checks are measured against.

use std::ops::RangeInclusive;

/// What an engine serves, and where its workers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The queues that workers serve; `None`: all.
    pub queues: Option<Vec<u16>>,
    /// The cores workers are pinned to; none: not pinned, or not known yet.
    pub cores: Vec<u32>,
    /// The UDP ports.
    pub ports: RangeInclusive<u16>,
    /// Bytes of a frame.
    pub chunk: u32,
}

impl Default for Service {
    /// Every queue, unpinned, port 7777, frames of 2 KiB: what `volley run NIC` does.
    fn default() -> Self {
        Service { queues: None, cores: Vec::new(), ports: 7777..=7777, chunk: 2048 }
    }
}

impl Service {
    /// True when a worker serves `queue`.
    pub fn serves(&self, queue: u32) -> bool {
        self.queues.as_ref().is_none_or(|served| served.iter().any(|one| u32::from(*one) == queue))
    }

    /// Longest packet that one frame holds, without its link header: less the kernel's headroom of 256, Ethernet and two VLAN
    /// tags.
    pub fn one_frame(&self) -> u32 {
        self.chunk.saturating_sub(256 + 14 + 8)
    }
}
