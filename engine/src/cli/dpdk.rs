//! The flags of a device over DPDK, the same for every subcommand that takes one.

use crate::engine::config::{Dpdk, Memory, Numbers, Rss, Steering};
use clap::Args;

/// Devices over DPDK, with `--io dpdk`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "DPDK")]
pub struct DpdkArgs {
    /// PCI device, by address (driver arguments may follow); several times for several
    #[arg(long, value_name = "ADDRESS")]
    pub pci: Vec<String>,

    /// Virtual device with its arguments, as in net_memif0,role=server,socket=/run/volley.memif
    #[arg(long, value_name = "DEVICE")]
    pub vdev: Vec<String>,

    /// Ordinary pages instead of huge ones: slower, and for virtual devices only
    #[arg(long)]
    pub no_huge: bool,

    /// MiB of packet memory taken at the start (without huge pages: all there is) [default there: 256]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,

    /// Name among DPDK processes; their files then stay findable for DPDK's own tools [default: none shared]
    #[arg(long, value_name = "NAME")]
    pub file_prefix: Option<String>,

    /// Argument for EAL itself; several times for several
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub eal: Vec<String>,

    /// MTU of the devices [default: as they are]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,

    /// Compute and verify checksums in software even where a device could
    #[arg(long)]
    pub no_checksum_offload: bool,

    /// Believe every checksum: for links that are memory
    #[arg(long)]
    pub trust_checksums: bool,

    /// Who tells game traffic from the rest [default: auto]
    #[arg(long, value_enum)]
    pub steering: Option<Steering>,

    /// Queues to which rules in the device send the game ports, where it takes such rules [default: all]
    #[arg(long, value_name = "QUEUES")]
    pub rule_queues: Option<Numbers>,

    /// What packets are spread over queues by [default: addresses]
    #[arg(long, value_enum)]
    pub rss: Option<Rss>,

    /// The devices are in this VLAN
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..4095))]
    pub vlan: Option<u16>,

    /// Router on the link of an address, for everybody who is on none; with `--address 10.0.0.1/24`
    #[arg(long, value_name = "IP")]
    pub gateway: Vec<std::net::IpAddr>,

    /// Virtual device with a kernel behind it, for packets that are not ours, as in net_tap0,iface=volley0 [default: none]
    #[arg(long, value_name = "DEVICE")]
    pub exception: Option<String>,

    /// Take packets for any MAC address
    #[arg(long)]
    pub promiscuous: bool,

    /// Measure how long packets take above the driver, and report it: for benches
    #[arg(long)]
    pub time_work: bool,
}

impl DpdkArgs {
    /// The flags, on top of what `config` says.
    pub fn apply(&self, config: &mut Dpdk) {
        if !self.pci.is_empty() || !self.vdev.is_empty() {
            config.pci.clone_from(&self.pci);
            config.vdev.clone_from(&self.vdev);
        }
        if let Some(prefix) = &self.file_prefix {
            config.file_prefix = Some(prefix.clone());
            config.memory = Memory::HugeFiles;
        }
        if self.no_huge {
            config.memory = Memory::NoHuge;
        }
        config.eal.extend(self.eal.iter().cloned());
        config.megabytes = self.memory.or(config.megabytes);
        if !self.gateway.is_empty() {
            config.gateways.clone_from(&self.gateway);
        }
        if self.exception.is_some() {
            config.exception.clone_from(&self.exception);
        }
        config.mtu = self.mtu.or(config.mtu);
        config.vlan = self.vlan.or(config.vlan);
        config.steering = self.steering.unwrap_or(config.steering);
        if self.rule_queues.is_some() {
            config.rule_queues.clone_from(&self.rule_queues);
        }
        config.rss = self.rss.unwrap_or(config.rss);
        config.checksum_offload &= !self.no_checksum_offload;
        config.trust_checksums |= self.trust_checksums;
        config.promiscuous |= self.promiscuous;
        config.time_work |= self.time_work;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_devices_and_keep_the_rest() {
        let mut config = Dpdk { vdev: vec!["net_null0".into()], mtu: Some(9000), ..Dpdk::default() };
        DpdkArgs { no_huge: true, ..DpdkArgs::default() }.apply(&mut config);
        assert_eq!((config.vdev.len(), config.memory, config.mtu), (1, Memory::NoHuge, Some(9000)));
        let args =
            DpdkArgs { pci: vec!["01:00.0".into()], file_prefix: Some("a".into()), ..DpdkArgs::default() };
        args.apply(&mut config);
        assert_eq!((config.pci.len(), config.vdev.len(), config.memory), (1, 0, Memory::HugeFiles));
    }
}
