//! DPDK: a poll-mode driver owns the device, and its queues are the workers'.
//!
//! ```text
//!   Probed::new ─► devices, what they offer ─► start ─► Dpdk ── port(device, queue), on the worker's thread
//!                                                         │
//!                       mempool of the queue ◄── free ────┤
//!                          │ alloc                        ▼
//!   device ──► rx burst ──► steer ──► frames ──► app ──► tx burst ──► device
//! ```
//!
//! A frame is an mbuf: its token is the mbuf's address, its chunk the mbuf's buffer. Each queue has a pool of its own, on the
//! NUMA node of its worker's core, and each worker's thread is registered with EAL, so that its mbufs go round in a cache
//! nobody else touches.
//!
//! | module | what it is |
//! | --- | --- |
//! | `plan` | what a device can do, and so how it is set up |
//! | `port` | one queue of one device: receive, transmit, free |
//! | `chain` | packets over several mbufs, and mbufs of strange pools |
//! | `offload` | checksum flags and VLAN tags between frames and mbufs |
//! | `table` | what a device has, for people |
//! | `work` | how long bursts take above the driver, for benches |
//! | [`steering`] | the XDP program's rules, applied by the worker |
//!
//! It never parses beyond what steering and checksum offloads need, and answers nothing: the net layer does.

mod chain;
mod offload;
mod plan;
mod port;
mod receive;
pub mod steering;
mod table;
#[cfg(test)]
mod tests;
mod work;

/// Where tests have a port panic; nothing elsewhere.
#[inline(always)]
fn may_panic() {
    #[cfg(test)]
    tests::may_panic();
}

pub use plan::DevicePlan;
pub use port::{DeviceTime, DpdkPort};
pub use table::{Row, Table};
pub use volley_dpdk::Error as DpdkError;

use crate::engine::config::{Dpdk as Options, Memory};
use crate::engine::report;
use crate::frame::BURST;
use crate::worker::affinity;
use std::cell::RefCell;
use std::sync::OnceLock;
use steering::Steering;
use volley_dpdk::mbuf::Timestamps;
use volley_dpdk::{Device, Eal, EalArgs, Link, Mempool, Port as RawPort, Registered, Setup};
use volley_steer::abi::{Counters, RuleTable};

/// Devices found, not yet running.
pub struct Probed {
    eal: Eal,
    ports: Vec<RawPort>,
    exception: Option<RawPort>,
    options: Options,
}

impl Probed {
    /// Starts EAL and finds every device of `options`.
    ///
    /// # Errors
    /// When EAL does not start, or a device is not there.
    pub fn new(options: &Options) -> Result<Probed, DpdkError> {
        let eal = Eal::start(&EalArgs {
            memory: match options.memory {
                Memory::Huge => volley_dpdk::Memory::Anonymous,
                Memory::HugeFiles => volley_dpdk::Memory::Files,
                Memory::NoHuge => volley_dpdk::Memory::NoHuge,
            },
            megabytes: options.megabytes,
            file_prefix: options.file_prefix.clone(),
            cores: affinity::allowed(),
            pci: options.pci.clone(),
            more: options.eal.clone(),
            give_up: options.give_up.clone(),
        })?;
        let ports: Vec<RawPort> =
            options.devices().map(|device| eal.probe(device)).collect::<Result<_, _>>()?;
        // The kernel behind it answers for the first device's MAC, so that is its, too.
        let with_mac = |device: &String| match ports.first().map(|port| port.info().mac) {
            Some([a, b, c, d, e, f]) if device.starts_with("net_tap") && !device.contains("mac=") => {
                format!("{device},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
            _ => device.clone(),
        };
        let exception =
            options.exception.as_ref().map(|device| eal.probe(&with_mac(device))).transpose()?;
        Ok(Probed { eal, ports, exception, options: options.clone() })
    }

    /// Queues each device will have: as many as wished for, or, with nothing said, one if all devices are virtual and else
    /// one for each of `cores`; of a device that has fewer, those.
    ///
    /// # Errors
    /// When no device has as many as wished for.
    pub fn queues(&self, wished: Option<u16>, cores: usize) -> Result<u16, DpdkError> {
        let offers = |port: &RawPort| port.info().max_queues.0.min(port.info().max_queues.1);
        let most = self.ports.iter().map(offers).max().unwrap_or(0);
        let only_virtual = self.ports.iter().all(|port| port.info().is_virtual());
        match wished {
            Some(wished) if wished == 0 || wished > most => {
                let names: Vec<&str> = self.ports.iter().map(|port| &port.info().name[..]).collect();
                Err(DpdkError::Setting {
                    port: names.join(", "),
                    what: format!("{wished} queues, where at most {most} are possible"),
                    remedy: "choose 1 or more of them with --queues or --workers".into(),
                })
            }
            Some(wished) => Ok(wished),
            None if only_virtual => Ok(1),
            None => Ok(most.min(cores as u16)),
        }
    }

    /// Sets the devices up with a queue for each of `nodes` (the NUMA nodes of the queues' workers, `None` when unknown), and
    /// starts them. With `rules`, packets are steered by them; without, everything is the net layer's.
    ///
    /// # Errors
    /// When a device cannot be set up as asked for.
    pub fn start(self, nodes: &[Option<i32>], rules: Option<Box<RuleTable>>) -> Result<Dpdk, DpdkError> {
        let Probed { eal, ports, exception, options } = self;
        let steering = rules.map(Steering::new);
        let timestamps = options.timestamps.then(|| Timestamps::reserve(&eal)).transpose()?;
        let start = |port: RawPort| {
            let plan = DevicePlan::make(port.info(), &options, nodes.len() as u16)?;
            let mut pools = Vec::new();
            for node in &nodes[..usize::from(plan.queues)] {
                // A pool near the worker; where that is unknown, near the device.
                let node = node.unwrap_or(port.info().node);
                pools.push(Mempool::new(&eal, &port.info().name, options.frames, plan.room, node)?);
            }
            let device = port.start(&Setup {
                pools,
                rx_descriptors: options.rx_ring.unwrap_or(0),
                tx_descriptors: options.tx_ring.unwrap_or(0),
                mtu: options.mtu.unwrap_or(0),
                offloads: plan.offloads,
                hash: plan.hash,
                hash_key: plan.hash_key.clone(),
                promiscuous: options.promiscuous,
            })?;
            enough(&device)?;
            let indirection = plan.finish(&device);
            Ok(Running { device, plan, indirection, rules: OnceLock::new() })
        };
        let devices = ports.into_iter().map(start).collect::<Result<_, DpdkError>>()?;
        let exception = exception.map(start).transpose()?;
        Ok(Dpdk { devices, exception, steering, timestamps, eal })
    }
}

/// Looks whether a device that has posted its receive buffers has left any to send from.
fn enough(device: &Device) -> Result<(), DpdkError> {
    let few = device.pools().iter().find(|pool| (pool.available() as usize) < BURST);
    few.map_or(Ok(()), |pool| {
        Err(DpdkError::Setting {
            port: device.info().name.clone(),
            what: format!(
                "{} of {} mbufs are left once {} has posted its receive buffers",
                pool.available(),
                pool.total(),
                device.info().driver
            ),
            remedy: "give it more with --frames, or fewer descriptors with --rx-ring".into(),
        })
    })
}

/// One running device.
struct Running {
    device: Device,
    plan: DevicePlan,
    /// Entries of the RSS table that were set.
    indirection: u16,
    /// Unset when none were tried.
    rules: OnceLock<Rules>,
}

/// What became of the rules for the device's own table.
struct Rules {
    accepted: usize,
    /// What the driver said of the first that it refused.
    refused: Option<String>,
}

/// EAL and the devices of an engine (or a generator). Ports hold what they need of it; the devices are closed and EAL is
/// cleaned up when it and all of them are gone.
pub struct Dpdk {
    devices: Vec<Running>,
    /// The device with a kernel behind it.
    exception: Option<Running>,
    steering: Option<Steering>,
    timestamps: Option<Timestamps>,
    eal: Eal,
}

thread_local! {
    /// This thread's registration, until it ends.
    static REGISTERED: RefCell<Option<Registered>> = const { RefCell::new(None) };
}

impl Dpdk {
    /// Opens devices outside an engine: as [`Probed::new`] and [`Probed::start`], with `queues` queues each, their pools near
    /// the device, and no steering.
    ///
    /// # Errors
    /// As those.
    pub fn open(options: &Options, queues: u16) -> Result<Dpdk, DpdkError> {
        Probed::new(options)?.start(&vec![None; usize::from(queues)], None)
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The queues of a device.
    pub fn queues(&self, device: usize) -> u16 {
        self.devices[device].device.queues()
    }

    /// The port of one queue of one device, for the calling thread, which is registered with EAL here: pin it before. The
    /// queue is taken until the port is dropped.
    ///
    /// # Errors
    /// When the queue is taken, or the thread cannot be registered.
    pub fn port(&self, device: usize, queue: u16) -> Result<DpdkPort, DpdkError> {
        self.register()?;
        let Running { device, plan, .. } = &self.devices[device];
        // Some drivers note the time without offering to (net_pcap): each mbuf says whether it has one.
        DpdkPort::new(device, queue, plan, self.steering.as_ref(), self.timestamps)
    }

    /// The port to the kernel for packets that are not ours, beside queue `queue`; `None` when there is none. As [`Dpdk::port`],
    /// without steering.
    ///
    /// # Errors
    /// As there.
    pub fn exception(&self, queue: u16) -> Result<Option<DpdkPort>, DpdkError> {
        self.register()?;
        let there = self.exception.as_ref().filter(|there| queue < there.device.queues());
        there.map(|there| DpdkPort::new(&there.device, queue, &there.plan, None, None)).transpose()
    }

    /// A device's own MAC.
    pub fn mac(&self, device: usize) -> volley_wire::ethernet::Mac {
        self.devices[device].device.info().mac
    }

    /// Registers the calling thread with EAL, for as long as it lives.
    fn register(&self) -> Result<(), DpdkError> {
        REGISTERED.with_borrow_mut(|registered| {
            if registered.is_none() {
                *registered = Some(Registered::this_thread(&self.eal)?);
            }
            Ok(())
        })
    }

    /// Packets by verdict of the rules, over all ports; all zero without rules.
    pub fn steered(&self) -> Counters {
        self.steering.as_ref().map_or_else(Counters::default, Steering::counters)
    }

    /// Puts rules into a device's own table. Of a family of which one was refused no more are tried; that is said.
    pub fn add_flow_rules(&self, device: usize, rules: impl Iterator<Item = volley_dpdk::flow::Rule>) {
        let Running { device, plan, rules: outcome, .. } = &self.devices[device];
        let mut taken = Rules { accepted: 0, refused: None };
        let mut refused = [false; 2];
        for rule in rules {
            if refused[usize::from(rule.ipv6)] {
                continue;
            }
            match device.add_rule(&rule, plan.hash, &plan.hash_key) {
                Ok(()) => taken.accepted += 1,
                Err(error) => {
                    refused[usize::from(rule.ipv6)] = true;
                    taken.refused.get_or_insert_with(|| error.to_string());
                }
            }
        }
        if let Some(error) = &taken.refused {
            let accepted = taken.accepted;
            log::info!(
                "{error}: rules for the game ports: {accepted} in the device, else the workers steer alone"
            );
        }
        let _ = outcome.set(taken);
    }

    /// Closes the devices, and says how many mbufs have not come back. Every port of theirs has been dropped before.
    pub fn close(self) -> u64 {
        let Dpdk { mut devices, exception, eal, .. } = self;
        devices.extend(exception);
        // Of a device that cannot be stopped, nobody can say; nor of one whose driver keeps what it has posted.
        let tells = |device: &Device| device.can_stop() && device.info().driver != "net_af_xdp";
        let told = devices.iter().filter(|Running { device, .. }| tells(device));
        let pools: Vec<Mempool> = told.flat_map(|Running { device, .. }| device.pools().to_vec()).collect();
        drop(devices);
        let missing = pools.iter().map(|pool| u64::from(pool.total() - pool.available())).sum();
        drop(pools);
        drop(eal);
        missing
    }

    /// A device's link.
    pub fn link(&self, device: usize) -> Link {
        self.devices[device].device.link()
    }

    /// What each device does.
    pub fn reports(&self) -> Vec<report::Device> {
        let report = |Running { device, plan, indirection, rules }: &Running| {
            let link = device.link();
            let counters = device.xstats().into_iter().filter(|(_, count)| *count > 0).collect();
            report::Device {
                name: device.info().name.clone(),
                driver: device.info().driver.clone(),
                link: if link.up { "up" } else { "down" },
                mbps: link.mbps,
                queues: device.queues(),
                offloads: plan.offloads.to_string(),
                hash: if plan.queues > 1 { plan.hash.to_string() } else { String::new() },
                indirection: *indirection,
                rules: rules.get().map_or(0, |rules| rules.accepted),
                rules_refused: rules.get().and_then(|rules| rules.refused.clone()),
                counters,
            }
        };
        self.devices.iter().chain(&self.exception).map(report).collect()
    }
}
