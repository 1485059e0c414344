//! One network interface: whether XDP and AF_XDP work on it, how well, and what spoils them.

use super::check::Check;
use super::ethtool::{Driver, Ethtool};
use super::link::Link;
use super::netdev::{Features, xdp};
use super::service::Service;
use super::spread::Spread;
use super::tree::{Tree, numbers};
use super::{ethnl, netlink, place};
use std::collections::BTreeMap;
use std::io;
use volley_xdp::Inspection;

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
    /// Where it puts packets.
    pub spread: Spread,
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

/// Everything about interface `name` of the calling thread's network namespace, for an engine that does `service` there.
pub fn checks(tree: &Tree, name: &str, service: &Service) -> Vec<Check> {
    match Device::find(name) {
        Ok(device) => device.checks(tree, service),
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
                    Peer::Here(peer.name.clone(), ethnl::features(peer.index).unwrap_or_default())
                })
            }
        };
        Ok(Device {
            driver: ethtool.driver().unwrap_or_default(),
            offloads: ethnl::features(link.index).unwrap_or_default(),
            features: Features::of(link.index),
            spread: Spread {
                queues: link.queues,
                rss: ethnl::rss(link.index),
                rules: ethtool.udp_rules().unwrap_or_default(),
            },
            program: Program::on(name),
            peer,
            link,
        })
    }

    /// What it means for an engine that does `service` here.
    pub fn checks(&self, tree: &Tree, service: &Service) -> Vec<Check> {
        let bus = &self.driver.bus;
        let mut checks = vec![self.interface(), self.native(), self.zero_copy(), self.queues(tree)];
        checks.push(self.spread.check(&self.link.name, service));
        checks.extend([self.mtu(service), self.offloads(), self.gro()]);
        checks.extend(self.peer());
        checks.push(self.program());
        checks.extend([place::numa(tree, bus, service), place::interrupts(tree, bus, service)]);
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

    fn mtu(&self, service: &Service) -> Check {
        const NAME: &str = "mtu";
        let Link { name, mtu, .. } = &self.link;
        let most = service.one_frame();
        let chains = self.features.as_ref().map(|features| features.has(xdp::RX_SG));
        match chains {
            _ if *mtu <= most => {
                Check::open(NAME, format!("{mtu}: a packet fits one frame of {} bytes", service.chunk))
            }
            Ok(true) => Check::open(
                NAME,
                format!("{mtu}: packets above {most} bytes are spread over several frames"),
            ),
            Ok(false) => Check::closed(
                NAME,
                format!("{mtu}, and the driver takes no packet of several frames: longer ones are lost"),
                format!("ip link set dev {name} mtu {most}"),
            ),
            Err(error) => Check::unknown(
                NAME,
                format!("{mtu}; whether the driver takes packets of several frames: {error}"),
                format!("to be safe: ip link set dev {name} mtu {most}"),
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

    /// Merging in software: it happens behind native XDP, but before generic XDP, and what it merges reaches the engine's
    /// companion sockets as one. A veth has its receive rings (NAPI) from it, and XDP switches it on there.
    fn gro(&self) -> Check {
        const NAME: &str = "gro";
        let name = &self.link.name;
        let spoil = [
            ("rx-gro", "gro off"),
            ("rx-gro-list", "rx-gro-list off"),
            ("rx-udp-gro-forwarding", "rx-udp-gro-forwarding off"),
        ];
        let on: Vec<_> = spoil.iter().filter(|(offload, _)| is_on(&self.offloads, offload)).collect();
        match self.offloads.is_empty() {
            true => Check::unknown(NAME, "the kernel does not list offloads", format!("ethtool -k {name}")),
            false if self.driver.name == "veth" => {
                Check::open(NAME, "on a veth it is what gives it receive rings")
            }
            false if on.is_empty() => Check::open(NAME, "off"),
            false => Check::closed(
                NAME,
                format!(
                    "{} on: the kernel merges packets, in generic mode before XDP sees them, and looks for some in what XDP \
                     passes",
                    on.iter().map(|(offload, _)| *offload).collect::<Vec<_>>().join(", ")
                ),
                format!(
                    "ethtool -K {name} {}",
                    on.iter().map(|(_, off)| *off).collect::<Vec<_>>().join(" ")
                ),
            ),
        }
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
}

fn is_on(offloads: &BTreeMap<String, bool>, name: &str) -> bool {
    offloads.get(name).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests;
