//! Ports: devices that do not run yet.

use crate::device::Device;
use crate::eal::Eal;
use crate::error::Error;
use crate::gate::Gate;
use crate::info::{Hash, Info, Offloads};
use crate::memif::Broker;
use crate::mempool::Mempool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use volley_dpdk_sys as sys;

/// How a port is set up. What the device does not offer is refused, not left out: look at [`Info`] first.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// A pool for each receive queue; there are as many transmit queues.
    pub pools: Vec<Mempool>,
    /// Descriptors of each receive queue; 0: the driver's choice, or 1024.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; 0: the driver's choice, or 1024.
    pub tx_descriptors: u16,
    /// MTU; 0: as it is.
    pub mtu: u16,
    /// What the device takes over.
    pub offloads: Offloads,
    /// What is hashed, over several queues.
    pub hash: Hash,
    /// Key of the hash; empty: the driver's.
    pub hash_key: Vec<u8>,
    /// Take packets for any MAC address.
    pub promiscuous: bool,
}

/// Descriptors when neither the caller nor the driver has an opinion: more than a millisecond of 64-byte packets at a million
/// a second. Fewer lose packets when the worker is held up; more push packets out of the cache before they are read.
pub const DESCRIPTORS: u16 = 1024;

/// A device that does not run yet. Closed when dropped.
#[derive(Debug)]
pub struct Port {
    info: Info,
    eal: Eal,
    /// A socket the driver listens at, and unlinks when it closes.
    socket: Option<String>,
    abandoned: AtomicBool,
    /// Between a memif driver and its other end; gone once the device is to be stopped.
    broker: Option<Arc<Broker>>,
}

impl Port {
    pub(crate) fn new(eal: Eal, id: u16, device: &str, broker: Option<Arc<Broker>>) -> Result<Port, Error> {
        let info =
            Info::of(id).map_err(|code| Error::of(&format!("port {id}"), "asking what it offers", code))?;
        let listens = device.contains("server=1");
        let path = device.split(',').find_map(|argument| argument.strip_prefix("path="));
        let socket = path.filter(|_| listens).map(str::to_owned);
        Ok(Port { info, eal, socket, abandoned: AtomicBool::new(false), broker })
    }

    /// What keeps workers out while the driver unmaps what they read, if it does.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.broker.as_ref().map(|broker| broker.gate())
    }

    /// The device runs: from now on it may be started anew.
    pub(crate) fn runs(&self) {
        if let Some(broker) = &self.broker {
            broker.runs(Some(self.info.id));
        }
    }

    /// The device is about to be stopped, with no worker in it. Its other end is hung up on.
    pub(crate) fn ends(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.runs(None);
        }
    }

    /// Leaves the device, and EAL with it, to the end of the process.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.eal.abandon();
        if let Some(socket) = &self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }

    /// What it is and offers.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Sets the port up and starts it.
    ///
    /// # Errors
    /// [`Error::Setting`] when the device cannot have what is asked for, or what its driver says.
    pub fn start(self, setup: &Setup) -> Result<Device, Error> {
        let info = &self.info;
        self.check(setup)?;
        let queues = setup.pools.len() as u16;
        let raw = sys::volley_setup {
            rx_queues: queues,
            tx_queues: queues,
            mtu: setup.mtu,
            offloads: setup.offloads.0,
            rss: if queues > 1 { setup.hash.0 } else { 0 },
            rss_key: if setup.hash_key.is_empty() { std::ptr::null() } else { setup.hash_key.as_ptr() },
            rss_key_len: setup.hash_key.len() as u8,
        };
        let done = |doing, code| match code {
            0 => Ok(()),
            code => Err(Error::of(&info.name, doing, code)),
        };
        crate::logs::forget();
        // SAFETY: all that `raw` points to lives for the call.
        done("configuring it", unsafe { sys::volley_device_configure(info.id, &raw) })?;
        let asked = |count| (count != 0).then_some(count);
        let rx = descriptors(asked(setup.rx_descriptors), info.default_descriptors.0, info.rx_descriptors);
        let tx = descriptors(asked(setup.tx_descriptors), info.default_descriptors.1, info.tx_descriptors);
        for (queue, pool) in setup.pools.iter().enumerate() {
            // SAFETY: the pools live as long as the device: it keeps them.
            let code =
                unsafe { sys::volley_rx_queue_setup(info.id, queue as u16, rx, info.node, pool.pool()) };
            done("setting up a receive queue", code)?;
            // SAFETY: plain numbers.
            done("setting up a transmit queue", unsafe {
                sys::volley_tx_queue_setup(info.id, queue as u16, tx, info.node)
            })?;
        }
        // SAFETY: configured above.
        done("starting it", unsafe { sys::rte_eth_dev_start(info.id) })?;
        if setup.promiscuous {
            // SAFETY: it runs. Drivers without such a mode take everything anyway.
            unsafe { sys::rte_eth_promiscuous_enable(info.id) };
        }
        // IPv6 neighbours ask by groups.
        // SAFETY: as above.
        unsafe { sys::rte_eth_allmulticast_enable(info.id) };
        Ok(Device::new(self, setup))
    }

    fn check(&self, setup: &Setup) -> Result<(), Error> {
        let info = &self.info;
        let refuse =
            |what: String, remedy: String| Err(Error::Setting { port: info.name.clone(), what, remedy });
        let most = info.max_queues.0.min(info.max_queues.1);
        let queues = setup.pools.len();
        if queues == 0 || queues > usize::from(most) {
            return refuse(
                format!("{queues} queues, and {} has 1 to {most}", info.driver),
                "choose as many with --queues".into(),
            );
        }
        let missing = setup.offloads.without(info.offloads);
        if !missing.is_empty() {
            return refuse(format!("{} does not offer {missing}", info.driver), "leave it off".into());
        }
        let (least, most) = info.mtus;
        if setup.mtu != 0 && !(least..=most.max(least)).contains(&setup.mtu) {
            return refuse(format!("MTU {} is not possible", setup.mtu), format!("{least} to {most} are"));
        }
        for (given, (least, most)) in
            [(setup.rx_descriptors, info.rx_descriptors), (setup.tx_descriptors, info.tx_descriptors)]
        {
            if given != 0 && (given < least || (most != 0 && given > most)) {
                return refuse(
                    format!("{given} descriptors in a queue"),
                    format!("choose {least} to {most}"),
                );
            }
        }
        Ok(())
    }
}

/// Descriptors a queue gets: as asked, else as the driver likes, else [`DESCRIPTORS`], within what the device can.
pub fn descriptors(asked: Option<u16>, drivers: u16, (least, most): (u16, u16)) -> u16 {
    let wanted = asked.unwrap_or(if drivers != 0 { drivers } else { DESCRIPTORS });
    wanted.clamp(least, if most == 0 { u16::MAX } else { most.max(least) })
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: stopped, if it ever ran: `Device` stops it before it drops the port.
        let failed = unsafe { sys::rte_eth_dev_close(self.info.id) };
        if failed != 0 {
            log::debug!("{}: closing it: {}", self.info.name, crate::error::Errno(failed));
        }
    }
}
