//! How an AF_XDP port is opened, and the checks that need no kernel.

use super::AfXdpError;
use std::time::Duration;

/// Bytes the kernel keeps free before every received packet (`XDP_PACKET_HEADROOM` of linux/bpf.h).
pub const XDP_PACKET_HEADROOM: u32 = 256;

/// Bytes of link layer before the IP packet at most: Ethernet and two VLAN tags.
pub const LINK_HEADER: u32 = 14 + 8;

/// Frames of one packet at most: the kernel's `MAX_SKB_FRAGS`. A longer chain could not be sent in copy mode.
pub const MAX_SEGMENTS: usize = 17;

/// Chunks of a UMEM at most. Addresses are 64 bits, but the kernel counts chunks in u32 and we index them so.
pub(super) const MAX_FRAMES: u32 = 1 << 24;

/// Whether the device's DMA goes to the UMEM itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// When the device says it can (netdev netlink), else the kernel copies.
    #[default]
    Auto,
    /// Zero-copy or an error.
    Require,
    /// The kernel copies.
    Never,
}

/// Who finishes transport checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TxChecksum {
    /// The device, where the kernel says that it offers it for AF_XDP (`tx-checksum` of netdev's xsk-features); else we.
    #[default]
    Auto,
    /// The kernel, in copy mode with packets of one frame (`XDP_UMEM_TX_SW_CSUM`, Linux 6.8): slower than doing it ourselves, but
    /// the same way through the rings as with a device that can, for tests.
    Kernel,
    /// We.
    Never,
}

/// Polling the device's NAPI from our own system calls instead of from interrupts
/// (Documentation/networking/af_xdp.rst, "SO_PREFER_BUSY_POLL").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// µs one call may poll.
    pub usecs: u32,
    /// Packets one call may process. The kernel takes up to 64 from anybody; more needs CAP_NET_ADMIN.
    pub budget: u32,
}

impl Default for BusyPoll {
    /// 20 µs and 64 packets, the kernel documentation's own example: one burst.
    fn default() -> BusyPoll {
        BusyPoll { usecs: 20, budget: 64 }
    }
}

/// What to open and how.
#[derive(Clone, Debug)]
pub struct AfXdpConfig {
    /// The interface's name.
    pub interface: String,
    /// Its queues to serve, each once.
    pub queues: Vec<u16>,
    /// Chunks of the UMEM, shared by all queues. Enough is: for each queue one fill ring and what is on its way out.
    /// With fewer, bursts of arrivals are dropped (`fill_ring_empty`); more cost cache misses and memory. In zero-copy mode
    /// as many are added as the device's own receive rings hold.
    pub frames: u32,
    /// Bytes of a chunk: 2048 or 4096 (the kernel takes no others in aligned mode). 2048 holds packets up to 1792 bytes.
    /// Where a device could not use that much of it in zero-copy mode, 4096 is taken.
    pub chunk: u32,
    /// Bytes to keep free before a received packet, beyond the kernel's own 256.
    pub headroom: u32,
    /// Entries of each receive ring, a power of two. What arrives during one burst must fit.
    pub rx_ring: u32,
    /// Entries of each transmit ring, a power of two.
    pub tx_ring: u32,
    /// Entries of each fill ring, a power of two.
    pub fill_ring: u32,
    /// Entries of each completion ring, a power of two. Smaller than the transmit ring it stalls transmission.
    pub completion_ring: u32,
    /// Free frames that receiving never takes: what `alloc` finds when arrivals overrun us.
    pub tx_reserve: u32,
    /// See [`ZeroCopy`].
    pub zero_copy: ZeroCopy,
    /// See [`TxChecksum`].
    pub tx_checksum: TxChecksum,
    /// Off (`None`) by default: it pays on NICs whose interrupts land on the worker's core.
    pub busy_poll: Option<BusyPoll>,
    /// Frames that one copy-mode wakeup may transmit (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17). The kernel's own 32 costs a
    /// system call for every 32 frames; 512 gave 10 to 17 % more echoes on veth, and more gave nothing.
    pub tx_budget: u32,
    /// Ask for 2 MiB huge pages first: one TLB entry covers a thousand packets.
    pub huge_pages: bool,
    /// NUMA node to prefer for the UMEM; `None` takes the node of the thread that opens the port.
    pub numa_node: Option<u32>,
    /// How long a queue that is still bound (EBUSY) is tried again: the kernel frees a closed socket's queue some
    /// milliseconds late.
    pub bind_patience: Duration,
}

impl AfXdpConfig {
    /// The defaults for `queues` of `interface`.
    pub fn new(interface: impl Into<String>, queues: impl Into<Vec<u16>>) -> AfXdpConfig {
        let queues = queues.into();
        AfXdpConfig {
            interface: interface.into(),
            frames: 4096 * queues.len().max(1) as u32,
            queues,
            chunk: 2048,
            headroom: 0,
            rx_ring: 2048,
            tx_ring: 2048,
            fill_ring: 2048,
            completion_ring: 2048,
            tx_reserve: 256,
            zero_copy: ZeroCopy::Auto,
            tx_checksum: TxChecksum::Auto,
            busy_poll: None,
            tx_budget: 512,
            huge_pages: true,
            numa_node: None,
            bind_patience: Duration::from_secs(1),
        }
    }

    /// Bytes of a packet that fit into one chunk as received.
    pub fn packet_room(&self) -> u32 {
        self.chunk.saturating_sub(XDP_PACKET_HEADROOM + self.headroom)
    }

    /// Frames that a packet of an interface with this MTU may take.
    pub fn segments(&self, mtu: u32) -> u32 {
        (mtu + LINK_HEADER).div_ceil(self.packet_room().max(1))
    }

    /// Everything that can be said without asking the kernel.
    ///
    /// # Errors
    /// The first setting that cannot work, with what would.
    pub fn check(&self) -> Result<(), AfXdpError> {
        let bad = |setting, value: u64, remedy: String| Err(AfXdpError::Setting { setting, value, remedy });
        if self.queues.is_empty() {
            return Err(AfXdpError::NoQueues { interface: self.interface.clone() });
        }
        // A port names its queues in a byte; one worker serves a handful.
        if self.queues.len() > 254 {
            return bad(
                "queues",
                self.queues.len() as u64,
                "at most 254 fit one port: use more workers".into(),
            );
        }
        if let Some(n) = (1..self.queues.len()).find(|&n| self.queues[..n].contains(&self.queues[n])) {
            let remedy = "name each queue once".to_string();
            return bad("queues", u64::from(self.queues[n]), remedy);
        }
        if self.chunk != 2048 && self.chunk != 4096 {
            return bad("chunk", u64::from(self.chunk), "use 2048 or 4096 bytes".into());
        }
        // The smallest room that still holds the headers the layers above read from the first frame.
        const LEAST_ROOM: u32 = 256;
        if self.headroom > self.chunk - XDP_PACKET_HEADROOM - LEAST_ROOM {
            let most = self.chunk - XDP_PACKET_HEADROOM - LEAST_ROOM;
            let remedy = format!("at most {most} bytes fit beside a packet in a {}-byte chunk", self.chunk);
            return bad("headroom", u64::from(self.headroom), remedy);
        }
        for (setting, size) in [
            ("rx_ring", self.rx_ring),
            ("tx_ring", self.tx_ring),
            ("fill_ring", self.fill_ring),
            ("completion_ring", self.completion_ring),
        ] {
            if !size.is_power_of_two() || size > 1 << 20 {
                let near = size.clamp(1, 1 << 20).next_power_of_two();
                return bad(
                    setting,
                    u64::from(size),
                    format!("use a power of two up to 1048576, such as {near}"),
                );
            }
        }
        let least = u64::from(self.tx_reserve) + self.queues.len() as u64;
        if u64::from(self.frames) <= least {
            let remedy =
                format!("more than {least} are needed: the transmit reserve and one for each queue");
            return bad("frames", u64::from(self.frames), remedy);
        }
        if self.frames > MAX_FRAMES {
            return bad("frames", u64::from(self.frames), format!("at most {MAX_FRAMES}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut AfXdpConfig)) -> String {
        let mut config = AfXdpConfig::new("eth9", [0, 1]);
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_accepted() {
        let config = AfXdpConfig::new("eth9", [0, 1]);
        config.check().unwrap();
        assert_eq!((config.frames, config.packet_room()), (8192, 1792));
        assert_eq!((config.segments(1500), config.segments(1770), config.segments(1771)), (1, 1, 2));
        assert_eq!(config.segments(9000), 6);
    }

    #[test]
    fn each_bad_setting_is_named_with_its_remedy() {
        assert!(refused(|c| c.chunk = 3072).contains("2048 or 4096"));
        assert!(refused(|c| c.rx_ring = 1000).contains("such as 1024"));
        assert!(refused(|c| c.tx_ring = 0).contains("tx_ring 0"));
        assert!(refused(|c| c.headroom = 1800).contains("at most 1536"));
        assert!(refused(|c| c.frames = 258).contains("more than 258"));
        assert!(refused(|c| c.queues = vec![1, 1]).contains("each queue once"));
        assert!(refused(|c| c.queues.clear()).contains("eth9"));
    }
}
