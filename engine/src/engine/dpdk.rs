//! An engine's devices over DPDK: opened before its workers, closed after them.

use super::config::{Config, LinkAddress, Steering};
use super::error::StartError;
use super::front;
use super::plan::{self, Share};
use super::ports::OpenPorts;
use super::report::{self, Report};
use super::seat::Role;
use super::streams::Own;
use crate::datagram::DatagramPort;
use crate::net::standalone::siblings::Place;
use crate::net::standalone::{Gateway, LocalAddress, StandaloneConfig};
use crate::net::{Net, NetConfig};
use crate::port::Port;
use crate::port::dpdk::{Dpdk, DpdkError, Probed};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use volley_steer::abi::Counter;

/// Most rules put into a device: beyond, it is the workers' steering alone. A NIC's table holds some thousands, and each rule
/// takes a call of milliseconds on some.
const FLOW_RULES_MAX: usize = 256;

impl From<DpdkError> for StartError {
    fn from(error: DpdkError) -> StartError {
        match error {
            DpdkError::GivenUp { .. } => StartError::GivenUp { why: error.to_string() },
            _ => StartError::Dpdk(error.to_string()),
        }
    }
}

/// The devices, and the rules packets are steered by.
pub(super) struct Host {
    dpdk: Arc<Dpdk>,
    rules: Vec<String>,
    config: Config,
    tcp: Option<Own>,
    /// The places of each device's queues.
    places: Vec<Vec<Place>>,
}

impl Host {
    /// Starts EAL and the devices of `config`, and deals their queues to workers.
    ///
    /// # Errors
    /// When EAL or a device does not start, or queues and cores do not fit.
    pub fn start(config: &Config, allowed: &[usize]) -> Result<(Host, Vec<Share>), StartError> {
        if config.dpdk.devices().next().is_none() {
            return Err(StartError::NoDevice);
        }
        let tcp = Own::of(config)?;
        if config.tcp.is_some() && tcp.is_none() {
            return Err(StartError::KernelTcp);
        }
        let rules: Vec<_> = std::iter::once(front::rule(config)).chain(front::tcp_rules(config)).collect();
        let table = volley_xdp::rule_table(rules.iter()).map_err(|e| StartError::Dpdk(e.to_string()))?;
        let answers = !config.dpdk.addresses.is_empty() || config.dpdk.exception.is_some();
        if answers {
            standalone(config, None, 0).check().map_err(|e| StartError::Dpdk(e.to_string()))?;
        }
        let probed = Probed::new(&config.dpdk)?;
        let wished = config.queues.as_ref().map(|queues| queues.0.len() as u16).or(config.workers);
        // A queue left out would fill and stay full: what is hashed to it would be lost.
        let named = config.queues.iter().flat_map(|queues| &queues.0);
        if let Some(&queue) = named.clone().find(|queue| usize::from(**queue) >= named.clone().count()) {
            return Err(StartError::QueueGap { queue });
        }
        let queues = probed.queues(wished, allowed.len())?;
        let rule_queues = rule_queues(config, queues)?;
        let shares = plan::shares(config, Some(u32::from(queues)), allowed)?;
        let node = |queue: u16| {
            let share = shares.iter().find(|share| share.queues.contains(&queue))?;
            numa_node(share.core?)
        };
        let nodes: Vec<Option<i32>> = (0..queues).map(node).collect();
        let dpdk = Arc::new(probed.start(&nodes, Some(table))?);
        if !answers {
            log::warn!(
                "no address with its link is given (--address 10.0.0.1/24): nobody's ARP is answered"
            );
        }
        if config.dpdk.steering == Steering::Auto {
            add_flow_rules(&dpdk, config, &rule_queues);
        }
        let rules = rules.iter().map(ToString::to_string).collect();
        let mesh = |device| Place::mesh(usize::from(dpdk.queues(device)));
        let places = (0..dpdk.devices()).map(mesh).collect();
        Ok((Host { dpdk, rules, config: config.clone(), tcp, places }, shares))
    }

    /// How a worker opens its queues of every device.
    pub fn opener(&self, share: &Share) -> OpenPorts {
        let (dpdk, queues) = (Arc::clone(&self.dpdk), share.queues.clone());
        let (config, tcp, places) = (self.config.clone(), self.tcp.clone(), self.places.clone());
        Box::new(move |_| {
            let mut ports: Vec<(Role, Box<dyn DatagramPort>)> = Vec::new();
            for (device, places) in places.iter().enumerate() {
                for &queue in queues.iter().filter(|queue| **queue < dpdk.queues(device)) {
                    let port: Box<dyn Port> = Box::new(dpdk.port(device, queue)?);
                    // One kernel is enough for all devices, and it is the first one's.
                    let exception = if device == 0 { dpdk.exception(queue)? } else { None };
                    let alone = || StandaloneConfig {
                        mac: Some(dpdk.mac(device)).filter(|mac| *mac != [0; 6]),
                        siblings: places[usize::from(queue)].take(),
                        ..standalone(&config, exception.map(|port| Box::new(port) as Box<dyn Port>), queue)
                    };
                    let standalone = (!config.dpdk.addresses.is_empty()).then(alone);
                    let settings =
                        NetConfig { index: ports.len() as u8, standalone, ..NetConfig::default() };
                    let mut net = Net::new(port, settings);
                    if let Some(tcp) = &tcp {
                        net = tcp
                            .over(net)
                            .map_err(|e| StartError::Dpdk(format!("no entropy for TCP: {e}")))?;
                    }
                    ports.push((Role::Dpdk, Box::new(net)));
                }
            }
            Ok(ports)
        })
    }

    /// For reports, while the devices run.
    pub fn report(&self) -> report::Dpdk {
        let steered = self.dpdk.steered();
        report::Dpdk {
            version: volley_dpdk::version(),
            devices: self.dpdk.reports(),
            rules: self.rules.clone(),
            steered: Counter::ALL.iter().map(|counter| (counter.as_str(), steered.get(*counter))).collect(),
            mbufs_missing: None,
        }
    }

    /// Closes the devices, the workers having dropped their queues, and completes `report` with what that shows.
    pub fn close(self, report: &mut Report) {
        let Some(said) = &mut report.dpdk else { return };
        // Somebody else having it still would be a worker that is stuck; then nothing is closed under it.
        if let Some(dpdk) = Arc::into_inner(self.dpdk) {
            let missing = dpdk.close();
            said.mbufs_missing = Some(missing);
            if missing > 0 {
                log::error!("{missing} mbufs did not come back when the devices were closed");
            }
        }
    }
}

/// What the net layer answers for, where no kernel does.
fn standalone(config: &Config, exception: Option<Box<dyn Port>>, queue: u16) -> StandaloneConfig {
    let local = |link: &LinkAddress| LocalAddress {
        address: link.address,
        prefix_len: link.prefix_len.unwrap_or(0),
        vlan: link.vlan,
    };
    StandaloneConfig {
        addresses: config.dpdk.addresses.iter().map(local).collect(),
        gateways: config.dpdk.gateways.iter().copied().map(Gateway).collect(),
        seed: config.seed.unwrap_or_else(super::seed).wrapping_add(u64::from(queue)),
        exception,
        ..StandaloneConfig::default()
    }
}

/// The node whose memory is nearest to a core.
fn numa_node(core: usize) -> Option<i32> {
    let entries =
        std::fs::read_dir(Path::new("/sys/devices/system/cpu").join(format!("cpu{core}"))).ok()?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

/// The queues among `queues` to which rules send the game ports.
fn rule_queues(config: &Config, queues: u16) -> Result<Vec<u16>, StartError> {
    let Some(chosen) = &config.dpdk.rule_queues else { return Ok((0..queues).collect()) };
    match chosen.0.iter().find(|queue| **queue >= queues) {
        Some(queue) => Err(StartError::Dpdk(format!(
            "rules cannot send the game ports to queue {queue} of {queues} queues: choose --rule-queues from 0 to {}, or more --queues",
            queues - 1
        ))),
        None if chosen.0.is_empty() => Err(StartError::Dpdk(
            "no queue is named to which rules send the game ports: name one with --rule-queues".into(),
        )),
        None => Ok(chosen.0.clone()),
    }
}

/// Puts the game ports into each device's own table, where it has one. A refusal is said once for each device.
fn add_flow_rules(dpdk: &Dpdk, config: &Config, queues: &[u16]) {
    let ports = config.ports.0.clone();
    let families: Vec<(bool, Option<IpAddr>)> = match config.addresses.is_empty() {
        true => vec![(false, None), (true, None)],
        false => config.addresses.iter().map(|address| (address.is_ipv6(), Some(*address))).collect(),
    };
    let count = ports.len() * families.len();
    if count > FLOW_RULES_MAX {
        log::info!("{count} rules are too many for a device's own table: the workers steer alone");
        return;
    }
    for device in 0..dpdk.devices() {
        // One that has fewer queues than others is sent to those of them it has.
        let queues: Vec<u16> =
            queues.iter().copied().filter(|queue| *queue < dpdk.queues(device)).collect();
        if queues.is_empty() {
            continue;
        }
        let rules = families.iter().flat_map(|&(ipv6, address)| {
            let rule =
                volley_dpdk::flow::Rule { tcp: false, ipv6, address, port: 0, queues: queues.clone() };
            ports.clone().map(move |port| volley_dpdk::flow::Rule { port, ..rule.clone() })
        });
        dpdk.add_flow_rules(device, rules);
    }
}
