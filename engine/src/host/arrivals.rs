//! Packets that a NIC says it received, queue by queue.
//!
//! Every driver names its counters in its own way; the names below are those of ice, ixgbe, igb, igc, i40e, mlx5, ena, gve,
//! virtio_net and veth. Where none is known, the interface's own count stands for every queue.

use super::ethtool::Ethtool;
use super::netlink;
use std::collections::BTreeMap;
use std::io;

/// What stands before and behind the queue's number.
const NAMES: [(&str, &str); 8] = [
    ("rx_queue_", "_packets"),
    ("rx_queue_", "_xdp_packets"),
    ("rx-", ".packets"),
    ("rx", "_packets"),
    ("rx", "_xsk_packets"),
    ("rx_packets[", "]"),
    ("queue_", "_rx_cnt"),
    ("rx_q", "_packets"),
];

/// Asks one interface again and again.
pub struct Arrivals {
    ethtool: Ethtool,
    index: u32,
    /// For each of the driver's counters the queue whose packets it counts.
    queues: Vec<Option<u32>>,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// The link is up and has a carrier.
    pub carrier: bool,
    /// All packets.
    pub interface: u64,
    /// Those of each queue that the driver counts.
    pub queues: BTreeMap<u32, u64>,
}

impl Arrived {
    /// Packets received on `queue`, as far as it is told.
    pub fn on(&self, queue: u32) -> u64 {
        self.queues.get(&queue).copied().unwrap_or(self.interface)
    }
}

impl Arrivals {
    /// For interface `name`, number `index`, of the calling thread's network namespace.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn of(name: &str, index: u32) -> io::Result<Arrivals> {
        let ethtool = Ethtool::new(name)?;
        let names = ethtool.counter_names().unwrap_or_default();
        Ok(Arrivals { ethtool, index, queues: names.iter().map(|name| queue(name)).collect() })
    }

    /// Asks. To be called by a thread of the same network namespace.
    ///
    /// # Errors
    /// rtnetlink's: the interface is gone, say.
    pub fn look(&mut self) -> io::Result<Arrived> {
        let link = netlink::carrier(self.index)?;
        let mut arrived = Arrived { carrier: link.up, interface: link.rx_packets, queues: BTreeMap::new() };
        if self.queues.iter().all(Option::is_none) {
            return Ok(arrived);
        }
        match self.ethtool.counters(self.queues.len()) {
            Ok(counters) => {
                for (queue, packets) in self.queues.iter().zip(counters) {
                    if let Some(queue) = queue {
                        *arrived.queues.entry(*queue).or_default() += packets;
                    }
                }
            }
            // The number of queues was changed: the next look knows them.
            Err(_) => {
                let names = self.ethtool.counter_names().unwrap_or_default();
                self.queues = names.iter().map(|name| queue(name)).collect();
            }
        }
        Ok(arrived)
    }
}

/// The queue whose received packets a counter of this name counts.
fn queue(name: &str) -> Option<u32> {
    let between = |(before, behind): &(&str, &str)| {
        let number = name.strip_prefix(before)?.strip_suffix(behind)?;
        number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse().ok())?
    };
    NAMES.iter().find_map(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_found_in_the_names_that_drivers_give() {
        for (name, expected) in [
            ("rx_queue_3_packets", Some(3)),
            ("rx_queue_12_xdp_packets", Some(12)),
            ("rx-7.packets", Some(7)),
            ("rx0_packets", Some(0)),
            ("rx5_xsk_packets", Some(5)),
            ("rx_packets[2]", Some(2)),
            ("queue_4_rx_cnt", Some(4)),
            ("rx_queue_3_bytes", None),
            ("rx_queue_0_xdp_drops", None),
            ("tx_queue_3_packets", None),
            ("rx_packets", None),
            ("rx_csum_offload_good_packets", None),
            ("", None),
        ] {
            assert_eq!(queue(name), expected, "{name}");
        }
    }

    #[test]
    fn where_no_queue_is_told_the_interface_stands_for_it() {
        let told = Arrived { carrier: true, interface: 9, queues: [(1, 4)].into() };
        assert_eq!((told.on(0), told.on(1)), (9, 4));
        let lo = Arrivals::of("lo", 1).unwrap().look().unwrap();
        assert!(lo.queues.is_empty() && lo.on(0) == lo.interface);
        assert!(Arrivals::of("no-such-if", u32::MAX >> 1).unwrap().look().is_err());
    }
}
