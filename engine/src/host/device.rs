//! One network interface: whether XDP and AF_XDP work on it, how well, and what spoils them.

use super::check::Check;
use super::ethtool::{Driver, Ethtool};
use super::link::Link;
use super::netdev::{Features, xdp};
use super::netlink;
use super::process::processes;
use super::tree::{Tree, numbers};
use std::collections::BTreeMap;
use std::io;
use volley_xdp::Inspection;

/// Longest packet that one frame of the default 2 KiB holds, without its link header: 2,048 less the kernel's headroom of 256,
/// Ethernet and two VLAN tags.
const ONE_FRAME: u32 = 2048 - 256 - 14 - 8;

/// What the kernel says of an interface; what it means is [`Device::checks`].
#[derive(Debug)]
pub struct Device {
    /// Index, MTU, queues, up.
    pub link: Link,
    /// Who drives it.
    pub driver: Driver,
    /// Offloads by ethtool's names.
    pub offloads: BTreeMap<String, bool>,
    /// Features for XDP.
    pub features: io::Result<Features>,
    /// The program attached to it.
    pub program: Program,
    /// The other end, of a veth.
    pub peer: Peer,
}

/// The XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// There is none.
    None,
    /// Volley's own, and what it is.
    Ours(String),
    /// Somebody else's, and what it is.
    Foreign(String),
    /// It could not be told; why.
    Unknown(String),
}

impl Program {
    fn on(interface: &str) -> Program {
        match volley_xdp::inspect(interface) {
            Ok(Inspection::Nothing) => Program::None,
            // One of an engine that runs without pins, which this process may not look into.
            Ok(Inspection::Foreign(foreign)) if foreign.volley => Program::Ours(foreign.to_string()),
            Ok(Inspection::Foreign(foreign)) => Program::Foreign(foreign.to_string()),
            Ok(Inspection::Volley { info, .. }) => {
                let held = if info.pinned.is_some() {
                    "pinned by `volley load`"
                } else {
                    "held by a running engine"
                };
                Program::Ours(format!(
                    "XDP program {} of Volley, {} mode, {held}",
                    info.program_id, info.mode
                ))
            }
            Err(error) => Program::Unknown(error.to_string()),
        }
    }
}

/// The other end of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It has none, or it is a wire.
    None,
    /// In another network namespace.
    Elsewhere,
    /// In this one: its name and offloads.
    Here(String, BTreeMap<String, bool>),
}

/// Everything about interface `name` of the calling thread's network namespace.
pub fn checks(tree: &Tree, name: &str) -> Vec<Check> {
    match Device::find(name) {
        Ok(device) => device.checks(tree),
        Err(error) => {
            let found = format!("{name}: {error}");
            let remedy = format!("name one of: {}", Link::names().join(" "));
            vec![Check::closed("interface", found, remedy).needed()]
        }
    }
}

impl Device {
    /// Asks the kernel about it.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn find(name: &str) -> io::Result<Device> {
        let link = Link::find(name)?;
        let ethtool = Ethtool::new(name)?;
        let all = netlink::interfaces().unwrap_or_default();
        let own = all.iter().find(|interface| interface.index == link.index).cloned().unwrap_or_default();
        let peer = match own.peer.filter(|_| own.kind.as_deref() == Some("veth")) {
            None => Peer::None,
            Some(_) if own.peer_elsewhere => Peer::Elsewhere,
            Some(peer) => {
                all.iter().find(|interface| interface.index == peer).map_or(Peer::Elsewhere, |peer| {
                    let offloads = Ethtool::new(&peer.name).and_then(|ethtool| ethtool.features());
                    Peer::Here(peer.name.clone(), offloads.unwrap_or_default())
                })
            }
        };
        Ok(Device {
            driver: ethtool.driver().unwrap_or_default(),
            offloads: ethtool.features().unwrap_or_default(),
            features: Features::of(link.index),
            program: Program::on(name),
            peer,
            link,
        })
    }

    /// What it means.
    pub fn checks(&self, tree: &Tree) -> Vec<Check> {
        let mut checks = vec![self.interface()];
        checks.extend([self.native(), self.zero_copy(), self.queues(tree), self.mtu(), self.offloads()]);
        checks.extend(self.peer());
        checks.extend([self.program(), self.numa(tree), self.interrupts(tree)]);
        checks
    }

    fn interface(&self) -> Check {
        let Link { name, index, up, .. } = &self.link;
        let driver = if self.driver.name.is_empty() { "unnamed" } else { &self.driver.name };
        match up {
            true => {
                Check::open("interface", format!("{name} (index {index}, driver {driver}) is up")).needed()
            }
            false => {
                Check::closed("interface", format!("{name} is down"), format!("ip link set dev {name} up"))
                    .needed()
            }
        }
    }

    fn native(&self) -> Check {
        const NAME: &str = "xdp";
        match &self.features {
            Ok(features) if features.has(xdp::BASIC | xdp::REDIRECT) => {
                Check::open(NAME, format!("native ({features})"))
            }
            Ok(features) => Check::closed(
                NAME,
                format!(
                    "the driver has no native XDP ({features}): generic mode, a copy and an skb per packet"
                ),
                "a NIC whose driver has it; the engine runs all the same",
            ),
            Err(error) => Check::unknown(
                NAME,
                error.to_string(),
                "Linux 6.3 or later tells; `volley run` says which mode it got",
            ),
        }
    }

    fn zero_copy(&self) -> Check {
        const NAME: &str = "zero-copy";
        match &self.features {
            Ok(features) if features.has(xdp::XSK_ZEROCOPY) => {
                let segments = features.zero_copy_max_segments.max(1);
                Check::open(NAME, format!("yes, packets of up to {segments} frames"))
            }
            Ok(_) => Check::closed(
                NAME,
                "the driver has none: the kernel copies each packet to and from the UMEM",
                "a NIC whose driver has it (ice, i40e, ixgbe, igc, mlx5, virtio-net with an IOMMU, …)",
            ),
            Err(error) => Check::unknown(NAME, error.to_string(), "Linux 6.3 or later tells"),
        }
    }

    fn queues(&self, tree: &Tree) -> Check {
        const NAME: &str = "queues";
        let name = &self.link.name;
        let cores =
            tree.text("sys/devices/system/cpu/online").map_or(0, |list| numbers(&list).len() as u32);
        match self.link.queues {
            None => Check::open(NAME, "the driver does not say; an AF_XDP socket can bind to queue 0"),
            Some(queues) if cores > 0 && queues > cores => Check::closed(
                NAME,
                format!(
                    "{queues}, on {cores} cores: what arrives on a queue without a worker goes through the kernel"
                ),
                format!("ethtool -L {name} combined {cores}   # or give workers several queues"),
            ),
            Some(queues) => Check::open(NAME, queues.to_string()),
        }
    }

    fn mtu(&self) -> Check {
        const NAME: &str = "mtu";
        let Link { name, mtu, .. } = &self.link;
        let chains = self.features.as_ref().map(|features| features.has(xdp::RX_SG));
        match chains {
            _ if *mtu <= ONE_FRAME => Check::open(NAME, format!("{mtu}: a packet fits one frame of 2 KiB")),
            Ok(true) => Check::open(
                NAME,
                format!("{mtu}: packets above {ONE_FRAME} bytes are spread over several frames"),
            ),
            Ok(false) => Check::closed(
                NAME,
                format!("{mtu}, and the driver takes no packet of several frames: longer ones are lost"),
                format!("ip link set dev {name} mtu {ONE_FRAME}"),
            ),
            Err(error) => Check::unknown(
                NAME,
                format!("{mtu}; whether the driver takes packets of several frames: {error}"),
                format!("to be safe: ip link set dev {name} mtu {ONE_FRAME}"),
            ),
        }
    }

    fn offloads(&self) -> Check {
        const NAME: &str = "offloads";
        let name = &self.link.name;
        if self.offloads.is_empty() {
            return Check::unknown(NAME, "the driver does not list them", format!("ethtool -k {name}"));
        }
        let spoil = [("rx-lro", "lro off"), ("rx-gro-hw", "rx-gro-hw off")];
        let on: Vec<_> = spoil.iter().filter(|(name, _)| is_on(&self.offloads, name)).collect();
        if on.is_empty() {
            return Check::open(NAME, "no merging of packets in hardware");
        }
        let list = |part: fn(&(&'static str, &'static str)) -> &'static str| {
            on.iter().map(|pair| part(pair)).collect::<Vec<_>>()
        };
        Check::closed(
            NAME,
            format!(
                "{} on: the NIC merges packets before XDP sees them, or refuses the program",
                list(|pair| pair.0).join(", ")
            ),
            format!("ethtool -K {name} {}", list(|pair| pair.1).join(" ")),
        )
    }

    /// A kernel that sends over a veth leaves checksums and segments unfinished unless its end is told not to.
    fn peer(&self) -> Option<Check> {
        const NAME: &str = "veth peer";
        let settings = "tx off tso off gso off";
        match &self.peer {
            Peer::None => None,
            Peer::Elsewhere => Some(Check::unknown(
                NAME,
                "in another namespace: if a kernel sends there with offloads on, its packets arrive unfinished",
                format!("in that namespace: ethtool -K PEER {settings}"),
            )),
            Peer::Here(name, offloads) => {
                let spoil = ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation"];
                let on: Vec<_> = spoil.into_iter().filter(|offload| is_on(offloads, offload)).collect();
                Some(match on.is_empty() {
                    true => Check::open(NAME, format!("{name} sends finished packets")),
                    false => Check::closed(
                        NAME,
                        format!(
                            "{name} has {} on: what a kernel sends there arrives unfinished",
                            on.join(", ")
                        ),
                        format!("ethtool -K {name} {settings}"),
                    ),
                })
            }
        }
    }

    fn program(&self) -> Check {
        const NAME: &str = "xdp program";
        let name = &self.link.name;
        match &self.program {
            Program::None => Check::open(NAME, "none attached").needed(),
            Program::Ours(what) => Check::open(NAME, what).needed(),
            Program::Foreign(what) => Check::closed(
                NAME,
                format!("{what}, is in the way"),
                format!("stop what attached it, or take its place: volley run {name} --replace"),
            )
            .needed(),
            Program::Unknown(why) => Check::unknown(NAME, why, format!("ip link show dev {name}")).needed(),
        }
    }

    fn numa(&self, tree: &Tree) -> Check {
        const NAME: &str = "numa node";
        let node = match &self.driver.bus[..] {
            "" => None,
            bus => tree
                .text(&format!("sys/bus/pci/devices/{bus}/numa_node"))
                .and_then(|node| node.parse::<u32>().ok()),
        };
        match node {
            None => Check::open(NAME, "none: any core is as near"),
            Some(node) => {
                let cores =
                    tree.text(&format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
                Check::open(NAME, format!("{node}: its cores are {cores}"))
            }
        }
    }

    /// Where the NIC's interrupts, and with them its softirqs, run.
    fn interrupts(&self, tree: &Tree) -> Check {
        const NAME: &str = "interrupts";
        let irqs = match &self.driver.bus[..] {
            "" => Vec::new(),
            bus => tree.names(&format!("sys/bus/pci/devices/{bus}/msi_irqs")),
        };
        if irqs.is_empty() {
            return Check::open(NAME, "none of its own");
        }
        let table = tree.text("proc/interrupts").unwrap_or_default();
        let named = |irq: &str| {
            let line =
                table.lines().find_map(|line| line.trim_start().strip_prefix(irq)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
        };
        let cores = |irq: &str| {
            let file =
                |file: &str| tree.text(&format!("proc/irq/{irq}/{file}")).filter(|list| !list.is_empty());
            file("effective_affinity_list")
                .or_else(|| file("smp_affinity_list"))
                .unwrap_or_else(|| "?".to_owned())
        };
        let placed: Vec<_> = irqs.iter().map(|irq| (irq, named(irq), cores(irq))).collect();
        let list: Vec<_> =
            placed.iter().map(|(irq, name, cores)| format!("{irq} {name} → {cores}")).collect();
        let found = list.join(", ");
        let isolated = numbers(&tree.text("sys/devices/system/cpu/isolated").unwrap_or_default());
        let disturbs = |cores: &str| numbers(cores).iter().any(|core| isolated.contains(core));
        if processes(tree).any(|process| process.name == "irqbalance") {
            let found = format!("{found}; irqbalance moves them");
            return Check::closed(NAME, found, "systemctl stop irqbalance");
        }
        match placed.iter().find(|(.., cores)| disturbs(cores)) {
            None => Check::open(NAME, found),
            Some((irq, ..)) => Check::closed(
                NAME,
                format!("{found}; irq {irq} runs on an isolated core"),
                format!(
                    "echo 0 > /proc/irq/{irq}/smp_affinity_list   # and so for the others; a core without a worker"
                ),
            ),
        }
    }
}

fn is_on(offloads: &BTreeMap<String, bool>, name: &str) -> bool {
    offloads.get(name).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests;
