//! What is decided about a device before anything is opened: from the configuration, the interface, and what the kernel
//! says the device can do. It changes nothing.

use super::config::{LINK_HEADER, MAX_SEGMENTS};
use super::{AfXdpConfig, AfXdpError, ZeroCopy};
use crate::host::link::Link;
use crate::host::netdev::{Features, xdp, xsk};
use std::io;

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
    /// The device finishes checksums.
    pub tx_checksum: bool,
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
        Plan::decide(config, link, features)
    }

    /// The decision itself, given what the kernel says about the device.
    pub fn decide(
        config: &AfXdpConfig,
        link: Link,
        features: io::Result<Features>,
    ) -> Result<Plan, AfXdpError> {
        let interface = || config.interface.clone();
        let needed = config.segments(link.mtu);
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
            Ok(_) => None,
        };
        let zero_copy = match (config.zero_copy, refusal) {
            (ZeroCopy::Never, _) | (ZeroCopy::Auto, Some(_)) => false,
            (ZeroCopy::Auto | ZeroCopy::Require, None) => true,
            (ZeroCopy::Require, Some(why)) => {
                return Err(AfXdpError::NoZeroCopy { interface: interface(), why });
            }
        };
        let features = features.unwrap_or_default();
        let tx_checksum = features.xsk & xsk::TX_CHECKSUM != 0;
        Ok(Plan {
            link,
            zero_copy,
            insist: config.zero_copy == ZeroCopy::Require,
            multi_buffer,
            zero_copy_segments: features.zero_copy_max_segments,
            tx_checksum,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(mtu: u32, zero_copy: ZeroCopy, features: io::Result<Features>) -> Result<Plan, AfXdpError> {
        let link = Link { name: "eth9".into(), index: 9, mtu, mac: [2; 6], queues: Some(4), up: true };
        let mut config = AfXdpConfig::new("eth9", [0]);
        config.zero_copy = zero_copy;
        Plan::decide(&config, link, features)
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
    fn a_wrong_interface_is_named_beside_the_right_ones() {
        let error = Plan::make(&AfXdpConfig::new("no-such-if", [0])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no-such-if") && text.contains("lo"), "{text}");
    }
}
