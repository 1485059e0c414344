//! What a device can do, and so how it is set up. The decisions are a pure function of what the driver says.

use crate::engine::config::{Dpdk as Options, Rss};
use crate::port::PortInfo;
use crate::port::dpdk::DpdkError;
use volley_dpdk::mempool::HEADROOM;
use volley_dpdk::{BURST, Device, Hash, Info, Offloads};
use volley_wire::rss::SYMMETRIC_KEY;

/// Bytes of a frame around its IP packet: Ethernet and two VLAN tags.
const LINK_HEADER: u32 = 14 + 2 * 4;

/// Checksums a device may verify, and compute.
const RX_CHECKSUMS: Offloads =
    Offloads::RX_IPV4_CHECKSUM.with(Offloads::RX_UDP_CHECKSUM).with(Offloads::RX_TCP_CHECKSUM);
const TX_CHECKSUMS: Offloads =
    Offloads::TX_IPV4_CHECKSUM.with(Offloads::TX_UDP_CHECKSUM).with(Offloads::TX_TCP_CHECKSUM);

/// How one device is set up.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Queues it gets.
    pub queues: u16,
    /// Descriptors of a receive and of a transmit queue.
    pub descriptors: (u16, u16),
    /// Bytes of each mbuf's buffer.
    pub room: u16,
    /// What it takes over.
    pub offloads: Offloads,
    /// What its hash is over.
    pub hash: Hash,
    /// Key of the hash; empty: the driver's.
    pub hash_key: Vec<u8>,
    /// Most mbufs a packet may be spread over.
    pub max_segments: usize,
    /// MTU.
    pub mtu: u16,
    /// The VLAN its frames are in.
    pub vlan: Option<u16>,
    /// Every checksum is believed.
    pub trust_checksums: bool,
    /// Packets for any MAC are taken.
    pub promiscuous: bool,
    symmetric: bool,
    /// How long bursts take above the driver is measured.
    pub time_work: bool,
}

impl DevicePlan {
    /// How a device is set up for `wished` queues.
    ///
    /// # Errors
    /// When a packet of the MTU fits neither one mbuf nor a chain of them.
    pub fn make(info: &Info, options: &Options, wished: u16) -> Result<DevicePlan, DpdkError> {
        let refuse = |what, remedy| Err(DpdkError::Setting { port: info.name.clone(), what, remedy });
        let queues = wished.min(info.max_queues.0.min(info.max_queues.1)).max(1);
        let mtu = options.mtu.unwrap_or(info.mtu);
        if options.chunk <= HEADROOM {
            return refuse(
                format!("mbufs of {} bytes hold nothing behind {HEADROOM} of headroom", options.chunk),
                "choose 2176, or more".to_owned(),
            );
        }
        let frame = u32::from(mtu) + LINK_HEADER;
        let room = u32::from(options.chunk - HEADROOM);
        let needed = frame.div_ceil(room);
        let mut offloads = Offloads::NONE;
        let mut max_segments = 1;
        if needed > 1 {
            let both = Offloads::RX_SCATTER.with(Offloads::TX_MULTI_SEGMENT);
            let most = if info.max_segments == 0 { BURST as u32 } else { u32::from(info.max_segments) };
            if needed > most || needed > BURST as u32 {
                return refuse(
                    format!(
                        "MTU {mtu} needs {needed} mbufs of {} bytes for a packet, and it takes {most}",
                        options.chunk
                    ),
                    format!(
                        "lower --mtu, or give larger mbufs (--chunk {})",
                        (frame + u32::from(HEADROOM)).min(65535)
                    ),
                );
            }
            // Drivers in memory (memif) chain without saying so; a NIC that cannot would lose every long packet.
            if !info.offloads.has(both) && !info.is_virtual() {
                return refuse(
                    format!(
                        "MTU {mtu} does not fit an mbuf of {} bytes, and {} spreads no packets",
                        options.chunk, info.driver
                    ),
                    format!("give larger mbufs: --chunk {}", (frame + u32::from(HEADROOM)).min(65535)),
                );
            }
            offloads = offloads.with(both.among(info.offloads));
            max_segments = needed as usize;
        }
        if options.checksum_offload && !options.trust_checksums {
            offloads = offloads.with(RX_CHECKSUMS.among(info.offloads));
        }
        if options.checksum_offload && info.offloads.has(Offloads::TX_UDP_CHECKSUM) {
            offloads = offloads.with(TX_CHECKSUMS.among(info.offloads));
        }
        if options.vlan.is_some() {
            offloads =
                offloads.with(Offloads::RX_VLAN_STRIP.with(Offloads::TX_VLAN_INSERT).among(info.offloads));
        }
        if options.timestamps {
            offloads = offloads.with(Offloads::RX_TIMESTAMP.among(info.offloads));
        }
        if max_segments == 1 && !offloads.has(Offloads::TX_MULTI_SEGMENT) {
            // Every queue sends from one pool, single segments only: what fast free asks for.
            offloads = offloads.with(Offloads::TX_FAST_FREE.among(info.offloads));
        }
        let wanted = match options.rss {
            Rss::Addresses | Rss::Symmetric => Hash::ADDRESSES,
            Rss::Flows => Hash::FLOWS,
        };
        let symmetric = options.rss == Rss::Symmetric && queues > 1;
        // The owner function's key, so that the device gives each client to its owner. It repeats itself every 16 bits, which hashes
        // both directions alike on any device that takes keys, and lets it go on for as long as a device wants.
        let ours =
            options.rss != Rss::Flows && queues > 1 && usize::from(info.key_len) >= SYMMETRIC_KEY.len();
        let key = SYMMETRIC_KEY.into_iter().cycle().take(usize::from(info.key_len));
        Ok(DevicePlan {
            queues,
            descriptors: (
                volley_dpdk::port::descriptors(
                    options.rx_ring,
                    info.default_descriptors.0,
                    info.rx_descriptors,
                ),
                volley_dpdk::port::descriptors(
                    options.tx_ring,
                    info.default_descriptors.1,
                    info.tx_descriptors,
                ),
            ),
            room: options.chunk,
            offloads,
            hash: wanted.among(info.hash),
            hash_key: if ours { key.collect() } else { Vec::new() },
            max_segments,
            mtu,
            vlan: options.vlan,
            trust_checksums: options.trust_checksums,
            promiscuous: options.promiscuous,
            symmetric,
            time_work: options.time_work,
        })
    }

    /// What is only possible once the device runs. A refusal costs spreading, not packets: it is said once. Says how many entries of
    /// the RSS table are ours then.
    pub fn finish(&self, device: &Device) -> u16 {
        let info = device.info();
        if self.queues < 2 {
            return 0;
        }
        if self.hash.is_empty() {
            log::warn!(
                "{}: {} has no RSS: how packets reach its {} queues is its other end's choice",
                info.name,
                info.driver,
                self.queues
            );
            return 0;
        }
        let mut set = 0;
        if info.indirection > 0 {
            let table: Vec<u16> = (0..info.indirection).map(|entry| entry % self.queues).collect();
            match device.set_indirection(&table) {
                Ok(()) => set = info.indirection,
                Err(error) => log::warn!("{error}: packets are spread as the driver likes"),
            }
        }
        if self.symmetric
            && self.hash_key.is_empty()
            && let Err(error) = device.set_symmetric()
        {
            log::warn!("{error}: the two directions of a conversation may meet different workers");
        }
        set
    }

    /// What the port of a queue says of itself.
    pub fn port_info(&self, info: &Info, queue: u16) -> PortInfo {
        let every = self.promiscuous || info.mac == [0; 6];
        PortInfo {
            name: format!("dpdk {} queue {queue} ({})", info.name, info.driver),
            mtu: usize::from(self.mtu),
            mac: (!every).then_some(info.mac),
            queues: vec![queue],
            tx_checksum: self.offloads.has(Offloads::TX_UDP_CHECKSUM),
            max_segments: self.max_segments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(key_len: u8) -> Info {
        Info {
            id: 0,
            name: "0000:01:00.0".into(),
            driver: "net_ixgbe".into(),
            mac: [2; 6],
            mtu: 1500,
            mtus: (68, 9710),
            max_frame: 15_872,
            node: 0,
            max_queues: (128, 64),
            rx_descriptors: (32, 4096),
            tx_descriptors: (32, 4096),
            default_descriptors: (512, 512),
            max_segments: 40,
            offloads: Offloads::NONE,
            hash: Hash::FLOWS,
            indirection: 128,
            key_len,
        }
    }

    #[test]
    fn the_hash_is_the_owner_functions_unless_it_is_over_ports() {
        let plan = |rss, key_len, queues| {
            let options = Options { rss, ..Options::default() };
            DevicePlan::make(&info(key_len), &options, queues).unwrap()
        };
        for rss in [Rss::Addresses, Rss::Symmetric] {
            let ours = plan(rss, 40, 4);
            assert_eq!((ours.hash, &ours.hash_key[..]), (Hash::ADDRESSES, &SYMMETRIC_KEY[..]));
            // Longer keys are the same, gone on with; shorter ones and none at all are the driver's.
            assert_eq!(plan(rss, 52, 4).hash_key, [&SYMMETRIC_KEY[..], &SYMMETRIC_KEY[..12]].concat());
            assert!(plan(rss, 0, 4).hash_key.is_empty() && plan(rss, 40, 1).hash_key.is_empty());
        }
        let flows = plan(Rss::Flows, 40, 4);
        assert_eq!((flows.hash, flows.hash_key.len()), (Hash::FLOWS, 0));
    }

    #[test]
    fn a_long_mtu_needs_a_device_that_spreads_packets_or_large_mbufs() {
        let refused = |options: &Options| DevicePlan::make(&info(40), options, 1).unwrap_err().to_string();
        let text = refused(&Options { mtu: Some(9000), ..Options::default() });
        assert!(text.contains("MTU 9000") && text.contains("--chunk 9150"), "{text}");
        let plan = |offloads, chunk| {
            let info = Info { offloads, ..info(40) };
            DevicePlan::make(&info, &Options { mtu: Some(9000), chunk, ..Options::default() }, 1).unwrap()
        };
        assert_eq!(plan(Offloads::NONE, 9150).max_segments, 1);
        let both = Offloads::RX_SCATTER.with(Offloads::TX_MULTI_SEGMENT);
        let spread = plan(both, 2176);
        assert!(spread.max_segments == 5 && spread.offloads.has(both));
    }
}
