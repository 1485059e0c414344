//! A running device: what all its queues share.

use crate::error::Error;
use crate::flow::Rules;
use crate::gate::Gate;
use crate::info::{Hash, Info, Offloads, text};
use crate::mempool::Mempool;
use crate::port::{Port, Setup};
use crate::queue::{RxQueue, TxQueue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use volley_dpdk_sys as sys;

/// A running device. Clones are the same device; it is stopped and closed with the last clone and queue.
#[derive(Clone, Debug)]
pub struct Device(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    // In the order of their end: rules, the port, then the pools its queues drew from.
    rules: Mutex<Rules>,
    port: Port,
    pools: Vec<Mempool>,
    rx_taken: Vec<AtomicBool>,
    tx_taken: Vec<AtomicBool>,
    offloads: Offloads,
    removed: Arc<AtomicBool>,
    /// Statistics are read by one thread at a time.
    reading: Mutex<()>,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Mbit/s, when the device knows.
    pub mbps: Option<u32>,
}

/// Counters of a device since it was started, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
    /// Lost because a receive queue was full.
    pub rx_missed: u64,
    /// Bad ones.
    pub rx_errors: u64,
    /// Lost, or receive descriptors not refilled, for want of mbufs.
    pub rx_no_mbuf: u64,
    /// Not sent.
    pub tx_errors: u64,
}

/// Flags by port number, set by EAL's interrupt thread when a device is unplugged. A device's flag is found by its number.
static REMOVED: Mutex<Vec<(u16, Arc<AtomicBool>)>> = Mutex::new(Vec::new());

extern "C" fn removed(port: u16) {
    let Ok(flags) = REMOVED.lock() else { return };
    for (_, flag) in flags.iter().filter(|(id, _)| *id == port) {
        flag.store(true, Ordering::Release);
    }
}

fn link(port: u16) -> Link {
    let mut link = sys::volley_link::default();
    // SAFETY: a place to write.
    let failed = unsafe { sys::volley_link_get(port, &mut link) };
    let known = failed == 0 && link.mbps != 0 && link.mbps != u32::MAX;
    Link { up: failed == 0 && link.up != 0, mbps: known.then_some(link.mbps) }
}

impl Device {
    pub(crate) fn new(port: Port, setup: &Setup) -> Device {
        let queues = setup.pools.len();
        let taken = || (0..queues).map(|_| AtomicBool::new(false)).collect();
        let flag = Arc::new(AtomicBool::new(false));
        let id = port.info().id;
        if let Ok(mut flags) = REMOVED.lock() {
            flags.retain(|(other, _)| *other != id);
            flags.push((id, Arc::clone(&flag)));
        }
        // SAFETY: the function lives as long as the program. Without support for it, nobody calls.
        unsafe { sys::volley_on_removal(id, Some(removed)) };
        port.runs();
        Device(Arc::new(Inner {
            rules: Mutex::new(Rules::new(id)),
            port,
            pools: setup.pools.clone(),
            rx_taken: taken(),
            tx_taken: taken(),
            offloads: setup.offloads,
            removed: flag,
            reading: Mutex::new(()),
        }))
    }

    /// What it is and offers.
    pub fn info(&self) -> &Info {
        self.0.port.info()
    }

    /// What it was told to take over.
    pub fn offloads(&self) -> Offloads {
        self.0.offloads
    }

    /// Its queues of either kind.
    pub fn queues(&self) -> u16 {
        self.0.pools.len() as u16
    }

    /// The pool of a queue.
    pub fn pool(&self, queue: u16) -> Option<&Mempool> {
        self.0.pools.get(usize::from(queue))
    }

    /// The pools of all queues.
    pub fn pools(&self) -> &[Mempool] {
        &self.0.pools
    }

    /// Both ends of queue `queue`, for one thread to have until it drops them.
    ///
    /// # Errors
    /// When there is none, or somebody has it.
    pub fn take(&self, queue: u16) -> Result<(RxQueue, TxQueue), Error> {
        let none = || Error::NoQueue { port: self.info().name.clone(), queue };
        let index = usize::from(queue);
        let (rx, tx) = self.0.rx_taken.get(index).zip(self.0.tx_taken.get(index)).ok_or_else(none)?;
        if rx.swap(true, Ordering::AcqRel) {
            return Err(none());
        }
        if tx.swap(true, Ordering::AcqRel) {
            rx.store(false, Ordering::Release);
            return Err(none());
        }
        let pass = || self.0.port.gate().map(Gate::pass);
        Ok((RxQueue::new(self.clone(), queue, pass()), TxQueue::new(self.clone(), queue, pass())))
    }

    pub(crate) fn give_back(&self, queue: u16, receive: bool) {
        let taken = if receive { &self.0.rx_taken } else { &self.0.tx_taken };
        taken[usize::from(queue)].store(false, Ordering::Release);
    }

    /// The link's state, as last heard.
    pub fn link(&self) -> Link {
        link(self.info().id)
    }

    /// False when the device's memory cannot be taken back while the process lives, since its driver cannot be stopped safely (a
    /// virtio-user device whose vhost is gone).
    pub fn can_stop(&self) -> bool {
        !self.0.cannot_stop()
    }

    /// Counters, unless another thread is just reading them.
    pub fn stats(&self) -> Option<Stats> {
        let _alone = self.0.reading.try_lock().ok()?;
        let mut stats = sys::volley_stats::default();
        // SAFETY: a place to write.
        let failed = unsafe { sys::volley_stats_get(self.info().id, &mut stats) };
        (failed == 0).then_some(Stats {
            rx: stats.rx_packets,
            tx: stats.tx_packets,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            rx_no_mbuf: stats.rx_no_mbuf,
            tx_errors: stats.tx_errors,
        })
    }

    /// Everything the driver counts, by its own names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let Ok(_alone) = self.0.reading.lock() else { return Vec::new() };
        let id = self.info().id;
        // SAFETY: without a place, only their number is asked for.
        let there = unsafe { sys::volley_xstats_get(id, std::ptr::null_mut(), 0) };
        let mut xstats = vec![sys::volley_xstat::default(); there.max(0) as usize];
        // SAFETY: as many places as are said.
        let got = unsafe { sys::volley_xstats_get(id, xstats.as_mut_ptr(), xstats.len() as u32) };
        xstats.truncate(got.max(0) as usize);
        xstats.iter().map(|one| (text(&one.name), one.value)).collect()
    }

    /// True once the device was unplugged.
    pub fn is_removed(&self) -> bool {
        self.0.removed.load(Ordering::Acquire)
    }

    /// Which queue takes which hash: entry n of the table, for packets whose hash is n modulo the table's length.
    ///
    /// # Errors
    /// When the device has no such table, or not of this length.
    pub fn set_indirection(&self, table: &[u16]) -> Result<(), Error> {
        // SAFETY: a table of that length.
        match unsafe { sys::volley_reta_set(self.info().id, table.as_ptr(), table.len() as u16) } {
            0 => Ok(()),
            code => Err(Error::of(&self.info().name, "setting the RSS indirection table", code)),
        }
    }

    /// Hashes both directions of a flow alike (symmetric Toeplitz).
    ///
    /// # Errors
    /// When the device does not know that function.
    pub fn set_symmetric(&self) -> Result<(), Error> {
        // SAFETY: a plain number.
        match unsafe { sys::volley_symmetric_toeplitz(self.info().id) } {
            0 => Ok(()),
            code => Err(Error::of(&self.info().name, "choosing the symmetric hash", code)),
        }
    }

    /// Sends packets for a port to queues of the device, by a rule of the device itself. Among several queues the hash chooses, with a
    /// key of its own or, if that is empty, the driver's: some drivers (igb) take it for all packets then. Rules end with the device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn add_rule(&self, rule: &crate::flow::Rule, hash: Hash, key: &[u8]) -> Result<(), Error> {
        let mut rules = self.0.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rules.add(&self.info().name, rule, (hash, key))
    }

    /// Reads the device's clock, in its own units.
    pub fn clock(&self) -> Option<u64> {
        let mut clock = 0;
        // SAFETY: a place to write.
        let failed = unsafe { sys::volley_read_clock(self.info().id, &mut clock) };
        (failed == 0).then_some(clock)
    }
}

impl Inner {
    /// True for a virtio-user device whose vhost is gone. Its driver (seen in 22.11) has closed the connection without taking it
    /// out of what EAL's interrupt thread watches, and stopping the device makes that thread look: it then ends the process. So
    /// such a device is neither stopped nor closed, and EAL not cleaned up; the process's end does both.
    fn cannot_stop(&self) -> bool {
        self.port.info().driver == "net_virtio_user" && !link(self.port.info().id).up
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let id = self.port.info().id;
        if let Ok(rules) = self.rules.get_mut() {
            rules.clear();
        }
        if self.cannot_stop() {
            // What it would unlink itself.
            log::debug!("{}: its other end is gone; it is left as it is", self.port.info().name);
            return self.port.abandon();
        }
        self.port.ends();
        // SAFETY: no queue of it is left.
        let failed = unsafe { sys::rte_eth_dev_stop(id) };
        if failed != 0 {
            log::debug!("{}: stopping it: {}", self.port.info().name, crate::error::Errno(failed));
        }
        if let Ok(mut flags) = REMOVED.lock() {
            flags.retain(|(other, _)| *other != id);
        }
        // The port closes next, and with it the driver gives back what it holds of the pools, which end last.
    }
}
