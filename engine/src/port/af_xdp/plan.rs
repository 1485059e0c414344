//! What is decided about a device before anything is opened: from the configuration, the interface, and what the kernel
//! says the device can do. It changes nothing.

use super::config::{LINK_HEADER, MAX_FRAMES, MAX_SEGMENTS};
use super::{AfXdpConfig, AfXdpError, TxChecksum, ZeroCopy};
use crate::host::ethnl;
use crate::host::ethtool::Ethtool;
use crate::host::link::Link;
use crate::host::netdev::{Features, xdp, xsk};
use std::io;

/// Drivers of devices that count the bytes of a receive buffer in KiB (`SRRCTL.BSIZEPKT` of Intel's 1 and 10 Gbit/s
/// controllers; igb_main.c, igc_main.c, ixgbe_main.c). In zero-copy mode they round down what a chunk leaves, so that 1,792
/// bytes are 1,024 to them, and put the rest of a longer packet into the next chunk as if it were a packet of its own (seen
/// with igb on Linux 7.3). No netlink attribute says so.
const BUFFERS_IN_KIB: [&str; 3] = ["igb", "igc", "ixgbe"];
/// The larger chunk that the kernel takes.
const LARGE_CHUNK: u32 = 4096;

/// What is asked of the driver besides the netdev family.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    pub driver: String,
    /// Descriptors of a receive ring; 0 when it has none.
    pub rx_ring: u32,
}

impl Device {
    fn of(link: &Link) -> Device {
        let driver = Ethtool::new(&link.name).and_then(|ethtool| ethtool.driver());
        Device {
            driver: driver.map(|driver| driver.name).unwrap_or_default(),
            rx_ring: ethnl::rx_ring(link.index).unwrap_or(0),
        }
    }

    /// Bytes of a packet that zero-copy receive puts into one chunk of this size.
    fn room(&self, chunk: u32, config: &AfXdpConfig) -> u32 {
        let room = AfXdpConfig { chunk, ..config.clone() }.packet_room();
        if BUFFERS_IN_KIB.contains(&self.driver.as_str()) { room / 1024 * 1024 } else { room }
    }
}

/// How a device will be opened.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub link: Link,
    /// Ask for zero-copy.
    pub zero_copy: bool,
    /// A failed zero-copy bind is an error, not a reason to copy.
    pub insist: bool,
    /// Packets may take several frames.
    pub multi_buffer: bool,
    /// Frames a packet may take when zero-copy is on.
    pub zero_copy_segments: u32,
    /// The device (or the kernel in its place) finishes checksums that are marked so.
    pub tx_checksum: bool,
    /// Chunk size in bytes.
    pub chunk: u32,
    /// Descriptors of each of the device's receive rings, when it takes its frames from us (zero-copy), else 0.
    pub device_ring: u32,
}

impl Plan {
    /// Looks at the interface and checks the configuration against it.
    pub fn make(config: &AfXdpConfig) -> Result<Plan, AfXdpError> {
        config.check()?;
        let interface = || config.interface.clone();
        let link = Link::find(&config.interface).map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV) => {
                AfXdpError::NoInterface { interface: interface(), present: Link::names().join(", ") }
            }
            _ => AfXdpError::Refused { doing: format!("asking about {}", config.interface), source },
        })?;
        if let Some(available) = link.queues
            && let Some(&queue) = config.queues.iter().find(|queue| u32::from(**queue) >= available)
        {
            return Err(AfXdpError::NoQueue { interface: interface(), queue, available });
        }
        if !link.up {
            log::warn!("{0} is down: nothing arrives before `ip link set {0} up`", config.interface);
        }
        let features = Features::of(link.index);
        let device = Device::of(&link);
        Plan::decide(config, link, features, &device)
    }

    /// The configuration as this device needs it.
    pub fn fit(&self, config: &AfXdpConfig) -> AfXdpConfig {
        // What lies in the device's own rings is neither posted nor with us.
        let device_rings = self.device_ring.saturating_mul(config.queues.len() as u32);
        let frames = config.frames.saturating_add(device_rings).min(MAX_FRAMES).max(config.frames);
        AfXdpConfig { chunk: self.chunk, frames, ..config.clone() }
    }

    /// The decision itself, given what the kernel says about the device.
    pub fn decide(
        config: &AfXdpConfig,
        link: Link,
        features: io::Result<Features>,
        device: &Device,
    ) -> Result<Plan, AfXdpError> {
        let interface = || config.interface.clone();
        let (packet, needed) = (link.mtu + LINK_HEADER, config.segments(link.mtu));
        let multi_buffer = needed > 1;
        if needed as usize > MAX_SEGMENTS {
            return Err(AfXdpError::ChainTooLong {
                interface: interface(),
                mtu: link.mtu,
                chunk: config.chunk,
                needed,
                most: MAX_SEGMENTS,
            });
        }
        if let Ok(features) = &features
            && multi_buffer
            && !features.has(xdp::RX_SG)
        {
            return Err(AfXdpError::MtuTooLarge {
                interface: interface(),
                mtu: link.mtu,
                chunk: config.chunk,
                room: config.packet_room() - LINK_HEADER,
            });
        }
        // Why it cannot, when it cannot.
        let refusal = match &features {
            Err(error) => Some(format!("the kernel does not say what it can: {error}")),
            Ok(features) if !features.has(xdp::XSK_ZEROCOPY) => {
                Some(format!("its driver offers only: {features}"))
            }
            Ok(features) if multi_buffer && features.zero_copy_max_segments < needed => Some(format!(
                "MTU {} needs {needed} frames for a packet, zero-copy takes {}",
                link.mtu, features.zero_copy_max_segments
            )),
            Ok(_) if !multi_buffer && device.room(LARGE_CHUNK, config) < packet => Some(format!(
                "MTU {} needs {packet} bytes, and {} takes {} of the largest chunk",
                link.mtu,
                device.driver,
                device.room(LARGE_CHUNK, config)
            )),
            Ok(_) => None,
        };
        let zero_copy = match (config.zero_copy, refusal) {
            (ZeroCopy::Never, _) | (ZeroCopy::Auto, Some(_)) => false,
            (ZeroCopy::Auto | ZeroCopy::Require, None) => true,
            (ZeroCopy::Require, Some(why)) => {
                return Err(AfXdpError::NoZeroCopy { interface: interface(), why });
            }
        };
        let room = device.room(config.chunk, config);
        let chunk = if zero_copy && !multi_buffer && room < packet { LARGE_CHUNK } else { config.chunk };
        if chunk != config.chunk {
            log::info!(
                "{}: {} takes {room} bytes of a {}-byte chunk, a packet has up to {packet}: using {chunk}-byte ones",
                config.interface,
                device.driver,
                config.chunk
            );
        }
        let features = features.unwrap_or_default();
        let tx_checksum = match config.tx_checksum {
            TxChecksum::Auto => features.xsk & xsk::TX_CHECKSUM != 0,
            // It computes while it copies a packet's first frame, and sums no others (Linux 6.18).
            TxChecksum::Kernel => !zero_copy && !multi_buffer,
            TxChecksum::Never => false,
        };
        Ok(Plan {
            link,
            zero_copy,
            insist: config.zero_copy == ZeroCopy::Require,
            multi_buffer,
            zero_copy_segments: features.zero_copy_max_segments,
            tx_checksum,
            chunk,
            device_ring: if zero_copy { device.rx_ring } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(mtu: u32, zero_copy: ZeroCopy, features: io::Result<Features>) -> Result<Plan, AfXdpError> {
        decide_for("virtio_net", mtu, zero_copy, features)
    }

    fn decide_for(
        driver: &str,
        mtu: u32,
        zero_copy: ZeroCopy,
        features: io::Result<Features>,
    ) -> Result<Plan, AfXdpError> {
        let link = Link { name: "eth9".into(), index: 9, mtu, mac: [2; 6], queues: Some(4), up: true };
        let mut config = AfXdpConfig::new("eth9", [0]);
        config.zero_copy = zero_copy;
        let device = Device { driver: driver.into(), rx_ring: 512 };
        Plan::decide(&config, link, features, &device)
    }

    fn offers(xdp: u64) -> io::Result<Features> {
        Ok(Features { xdp, zero_copy_max_segments: 4, ..Features::default() })
    }

    #[test]
    fn zero_copy_is_taken_only_where_the_kernel_says_so() {
        let all = xdp::BASIC | xdp::XSK_ZEROCOPY;
        assert!(decide(1500, ZeroCopy::Auto, offers(all)).unwrap().zero_copy);
        assert!(!decide(1500, ZeroCopy::Never, offers(all)).unwrap().zero_copy);
        assert!(!decide(1500, ZeroCopy::Auto, offers(xdp::BASIC)).unwrap().zero_copy);
        let unknown = || Err(io::Error::from(io::ErrorKind::Unsupported));
        assert!(!decide(1500, ZeroCopy::Auto, unknown()).unwrap().zero_copy);
        for features in [offers(xdp::BASIC), unknown()] {
            let error = decide(1500, ZeroCopy::Require, features).unwrap_err();
            assert!(matches!(error, AfXdpError::NoZeroCopy { .. }), "{error}");
        }
    }

    #[test]
    fn checksums_are_left_to_who_offers_to_finish_them() {
        let can = |xsk| {
            Ok(Features { xdp: xdp::BASIC | xdp::XSK_ZEROCOPY | xdp::RX_SG, xsk, ..Features::default() })
        };
        let finished_at = |mtu, asked, zero_copy, xsk| {
            let link = Link { name: "eth9".into(), index: 9, mtu, mac: [2; 6], queues: None, up: true };
            let config = AfXdpConfig { tx_checksum: asked, zero_copy, ..AfXdpConfig::new("eth9", [0]) };
            Plan::decide(&config, link, can(xsk), &Device::default()).unwrap().tx_checksum
        };
        let finished = |asked, zero_copy, xsk| finished_at(1500, asked, zero_copy, xsk);
        use TxChecksum::{Auto, Kernel, Never};
        assert!(finished(Auto, ZeroCopy::Auto, xsk::TX_CHECKSUM | xsk::TX_TIMESTAMP));
        assert!(!finished(Auto, ZeroCopy::Auto, xsk::TX_TIMESTAMP));
        assert!(!finished(Never, ZeroCopy::Auto, xsk::TX_CHECKSUM));
        assert!(finished(Kernel, ZeroCopy::Never, 0));
        assert!(!finished_at(9000, Kernel, ZeroCopy::Never, 0), "it sums no chains");
        assert!(finished_at(9000, Auto, ZeroCopy::Never, xsk::TX_CHECKSUM), "a device does");
        assert!(
            !finished(Kernel, ZeroCopy::Auto, 0),
            "in zero-copy mode the kernel does not see the packet"
        );
    }

    #[test]
    fn a_large_mtu_needs_multi_buffer_and_short_enough_chains() {
        assert!(decide(9000, ZeroCopy::Auto, offers(xdp::RX_SG)).unwrap().multi_buffer);
        assert!(!decide(1500, ZeroCopy::Auto, offers(xdp::RX_SG)).unwrap().multi_buffer);
        let error = decide(9000, ZeroCopy::Auto, offers(xdp::BASIC)).unwrap_err();
        assert!(error.to_string().contains("mtu 1770"), "{error}");
        let error = decide(65535, ZeroCopy::Auto, offers(xdp::RX_SG)).unwrap_err();
        assert!(matches!(error, AfXdpError::ChainTooLong { needed: 37, most: 17, .. }), "{error}");
        // Six frames for a packet, but zero-copy takes only four.
        let both = xdp::RX_SG | xdp::XSK_ZEROCOPY;
        assert!(!decide(9000, ZeroCopy::Auto, offers(both)).unwrap().zero_copy);
        assert!(decide(9000, ZeroCopy::Require, offers(both)).is_err());
    }

    #[test]
    fn a_device_that_counts_in_kib_gets_chunks_it_can_use() {
        let all = || offers(xdp::BASIC | xdp::XSK_ZEROCOPY);
        let chunk = |driver, mtu, zero_copy| decide_for(driver, mtu, zero_copy, all()).unwrap().chunk;
        assert_eq!(chunk("igb", 1500, ZeroCopy::Auto), 4096);
        assert_eq!((chunk("igb", 1002, ZeroCopy::Auto), chunk("igb", 1003, ZeroCopy::Auto)), (2048, 4096));
        // The kernel copies into whole chunks, and others take every byte.
        assert_eq!(chunk("igb", 1500, ZeroCopy::Never), 2048);
        assert_eq!(chunk("ice", 1500, ZeroCopy::Auto), 2048);
        // 3,840 bytes of a large chunk are three KiB to it.
        let link =
            || Link { name: "eth9".into(), index: 9, mtu: 3500, mac: [2; 6], queues: None, up: true };
        let config = AfXdpConfig { chunk: 4096, ..AfXdpConfig::new("eth9", [0]) };
        let device = |driver: &str| Device { driver: driver.into(), rx_ring: 0 };
        assert!(!Plan::decide(&config, link(), all(), &device("igb")).unwrap().zero_copy);
        assert!(Plan::decide(&config, link(), all(), &device("ice")).unwrap().zero_copy);
        let config = AfXdpConfig { zero_copy: ZeroCopy::Require, ..config };
        let error = Plan::decide(&config, link(), all(), &device("igb")).unwrap_err().to_string();
        assert!(error.contains("3522") && error.contains("3072"), "{error}");
    }

    #[test]
    fn a_zero_copy_device_gets_frames_for_its_own_rings() {
        let config = AfXdpConfig::new("eth9", [0, 1]);
        let all = || offers(xdp::BASIC | xdp::XSK_ZEROCOPY);
        let plan = decide(1500, ZeroCopy::Auto, all()).unwrap();
        assert_eq!((plan.device_ring, plan.fit(&config).frames), (512, 8192 + 1024));
        let plan = decide(1500, ZeroCopy::Never, all()).unwrap();
        assert_eq!((plan.device_ring, plan.fit(&config).frames), (0, 8192));
    }

    #[test]
    fn a_wrong_interface_is_named_beside_the_right_ones() {
        let error = Plan::make(&AfXdpConfig::new("no-such-if", [0])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no-such-if") && text.contains("lo"), "{text}");
    }
}
