//! What an engine over DPDK is told.

use super::Numbers;
use super::numbers::{NumberOrText, as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// DPDK: devices, memory, and what the devices take over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dpdk {
    /// PCI devices, by address, with driver arguments: `"0000:01:00.0"`.
    pub pci: Vec<String>,
    /// Virtual devices, by name, with their arguments: `"net_memif0,role=client,socket=/run/x.sock"`.
    pub vdev: Vec<String>,
    /// Where packet memory comes from.
    pub memory: Memory,
    /// MiB taken at the start; without huge pages this is all there is.
    pub megabytes: Option<u32>,
    /// Sets this engine apart from other DPDK processes; `None`: by its process number.
    pub file_prefix: Option<String>,
    /// Further arguments of EAL's own.
    pub eal: Vec<String>,
    /// Mbufs of each queue's pool.
    pub frames: u32,
    /// Bytes of an mbuf's buffer, 128 of headroom included.
    pub chunk: u16,
    /// Descriptors of each receive queue; `None`: the driver's choice.
    pub rx_ring: Option<u16>,
    /// Descriptors of each transmit queue; `None`: the driver's choice.
    pub tx_ring: Option<u16>,
    /// MTU; `None`: the device's.
    pub mtu: Option<u16>,
    /// Let the device verify and compute checksums where it can.
    pub checksum_offload: bool,
    /// Believe every checksum: for a link that is memory, whose other end computes none.
    pub trust_checksums: bool,
    /// Where packets for the game ports are told from the rest.
    pub steering: Steering,
    /// Queues to which the device's own rules send the game ports; `None`: all. Other packets keep to the RSS table.
    pub rule_queues: Option<Numbers>,
    /// What the device's RSS hash is over, with several queues.
    pub rss: Rss,
    /// The device is in this VLAN: other packets are dropped, its tag comes off and goes on, by the device where it can.
    pub vlan: Option<u16>,
    /// Let the device note when packets came, where it can: what `DpdkPort::arrived` then tells.
    pub timestamps: bool,
    /// Take packets for any MAC address.
    pub promiscuous: bool,
    /// Measure how long bursts take above the driver, and report it: for benches.
    pub time_work: bool,
    /// Our addresses on the devices' links: `"10.0.0.1/24"`, `"fd00::1/64"`, `"10.0.0.1/24@5"` in VLAN 5. Without any, nobody who asks
    /// for us (ARP, neighbour discovery, echo) is answered.
    pub addresses: Vec<LinkAddress>,
    /// Routers on those links: the first of each family is the way to everybody else.
    pub gateways: Vec<IpAddr>,
    /// A virtual device with a kernel behind it, for packets that are not ours: `"net_tap0,iface=volley0"`. Off by default.
    pub exception: Option<String>,
    /// Set by whoever wants a start given up that waits for the other end of a device. Not of a file.
    #[serde(skip)]
    pub give_up: Option<Arc<AtomicBool>>,
}

impl Default for Dpdk {
    fn default() -> Self {
        Dpdk {
            pci: Vec::new(),
            vdev: Vec::new(),
            memory: Memory::default(),
            megabytes: None,
            file_prefix: None,
            eal: Vec::new(),
            // Two full rings of 1,024, the cache of a worker (512, and half as much again), bursts on their way, and as much
            // again, so that a slow peer is felt by its ring and not by an empty pool. More is memory that leaves the cache.
            frames: 8192,
            // What holds a frame of MTU 1500 with two tags and the headroom, in DPDK's own default size.
            chunk: 2048 + 128,
            rx_ring: None,
            tx_ring: None,
            mtu: None,
            checksum_offload: true,
            trust_checksums: false,
            steering: Steering::default(),
            rule_queues: None,
            rss: Rss::default(),
            vlan: None,
            timestamps: false,
            promiscuous: false,
            time_work: false,
            addresses: Vec::new(),
            gateways: Vec::new(),
            exception: None,
            give_up: None,
        }
    }
}

impl Dpdk {
    /// All devices, as EAL is to be asked for them.
    pub fn devices(&self) -> impl Iterator<Item = &String> {
        self.pci.iter().chain(&self.vdev)
    }
}

/// An address with the link it is on: `10.0.0.1/24`, `10.0.0.1/24@5`; the link may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// Leading bits that its link's hosts share; `None`: only the address was given.
    pub prefix_len: Option<u8>,
    /// The VLAN its link is.
    pub vlan: Option<u16>,
}

impl FromStr for LinkAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<LinkAddress, String> {
        let wrong =
            || format!("{text:?} is no address: write 10.0.0.1, 10.0.0.1/24, or 10.0.0.1/24@5 in VLAN 5");
        let (rest, vlan) = match text.split_once('@') {
            Some((rest, vlan)) => (rest, Some(vlan.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (address, prefix_len) = match rest.split_once('/') {
            Some((address, len)) => (address, Some(len.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match prefix_len.is_some_and(|len| len > most) || (vlan.is_some() && prefix_len.is_none()) {
            true => Err(wrong()),
            false => Ok(LinkAddress { address, prefix_len, vlan }),
        }
    }
}

as_text!(LinkAddress);

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(len) = self.prefix_len {
            write!(f, "/{len}")?;
        }
        if let Some(vlan) = self.vlan {
            write!(f, "@{vlan}")?;
        }
        Ok(())
    }
}

/// Where packet memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Huge pages that no file names: nothing stays behind, however the process ends.
    #[default]
    Huge,
    /// Huge pages with files under the file prefix, for DPDK tools that join as a second process.
    HugeFiles,
    /// Ordinary pages: slower, and for virtual devices only.
    NoHuge,
}

/// Where packets for the game ports are told from the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    /// By the worker, with the rules of the XDP program; besides, by rules in the device where it takes them, so that game
    /// traffic is spread over the queues as configured.
    #[default]
    Auto,
    /// By the worker alone.
    Software,
}

/// What the device's RSS hash is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rss {
    /// Addresses alone: a client's UDP, TCP and fragments meet on one worker.
    #[default]
    Addresses,
    /// Addresses and ports: spreads better, when few addresses have many clients.
    Flows,
    /// Addresses alone, with the symmetric function: both directions of a conversation meet.
    Symmetric,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["10.0.0.1", "10.0.0.1/24", "10.0.0.1/24@5", "fd00::1/64", "fd00::1/64@4094"] {
            assert_eq!(text.parse::<LinkAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "10.0.0", "10.0.0.1/33", "fd00::1/129", "10.0.0.1@5", "10.0.0.1/x", "10.0.0.1/24@x"]
        {
            assert!(bad.parse::<LinkAddress>().is_err(), "{bad:?}");
        }
    }
}
