//! One queue of one device.

use super::chain::Sent;
use super::plan::DevicePlan;
use super::receive::Receiving;
use super::steering::{Steerer, Steering};
use super::work::Work;
use super::{DpdkError, offload};
use crate::frame::{Burst, Frame, Ledger, Owner, Ownership, RawFrame, flag};
use crate::port::{Port, PortInfo, PortStats};
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use volley_dpdk::device::Stats;
use volley_dpdk::mbuf::{self, Timestamps, tx};
use volley_dpdk::mempool::HEADROOM;
use volley_dpdk::{Device, Mbuf, Mempool, Offloads, RxQueue, TxQueue};

/// A moment by a device's clock, in the device's own units and with its own beginning. For latency reports, after calibration;
/// never for deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceTime(
    /// Ticks.
    pub u64,
);

/// How long an idle worker may leave the queue alone: nobody wakes it. At 10 million packets a second a ring of 1,024 fills in
/// this time; shorter naps cost a core more, longer ones lose packets of a sudden burst.
const NAP_NS: u64 = 100_000;

/// Frames allocated in one call, before it is tried one by one.
const WHOLE: usize = mbuf::BURST;

/// Looks at the counters of the driver at most once in so many calls of [`Port::stats`], which come a hundred times a second: some
/// drivers read registers of the device for them, at a microsecond each.
const STATS_EVERY: u32 = 16;

/// A queue pair of a device, owned by one worker. See the module above.
pub struct DpdkPort {
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) pool: Mempool,
    pub(super) steering: Option<Steerer>,
    /// Tokens outside the port.
    pub(super) app: u64,
    pub(super) ownership: Ownership,
    /// What received frames are marked with besides what the device says of them.
    pub(super) trust: u8,
    pub(super) vlan: Option<u16>,
    /// The device puts the tag on.
    inserts: bool,
    offloads: Offloads,
    stopped: bool,
    /// The driver can say what it has sent.
    reaps: bool,
    closed: bool,
    pub(super) max_segments: usize,
    /// Received and not delivered: a chain that did not fit the burst, and what came behind it.
    pub(super) waiting: mbuf::Burst,
    pub(super) counts: PortStats,
    pub(super) work: Work,
    /// The mbufs that the driver has posted for receive, as seen when nothing had been sent.
    posted: u64,
    cold: Box<Cold>,
}

struct Cold {
    info: PortInfo,
    device: Device,
    /// The device's counters are told by one of its ports.
    tells: bool,
    seen: Cell<Stats>,
    up: Cell<bool>,
    calls: Cell<u32>,
    timestamps: Option<Timestamps>,
}

impl Cold {
    /// Asks the driver now and then.
    fn look(&self, always: bool) {
        let call = self.calls.get();
        self.calls.set(call.wrapping_add(1));
        if !self.tells || !(always || call.is_multiple_of(STATS_EVERY)) {
            return;
        }
        if let Some(now) = self.device.stats() {
            self.seen.set(now);
        }
        let up = self.device.link().up;
        if self.up.replace(up) != up {
            log::info!("{}: the link is {}", self.device.info().name, if up { "up" } else { "down" });
        }
    }
}

impl DpdkPort {
    pub(super) fn new(
        device: &Device,
        queue: u16,
        plan: &DevicePlan,
        steering: Option<&Steering>,
        timestamps: Option<Timestamps>,
    ) -> Result<DpdkPort, DpdkError> {
        let (rx, tx) = device.take(queue)?;
        let no_queue = || DpdkError::NoQueue { port: device.info().name.clone(), queue };
        let pool = device.pool(queue).ok_or_else(no_queue)?.clone();
        let info = plan.port_info(device.info(), queue);
        let posted = u64::from(pool.total() - pool.available());
        Ok(DpdkPort {
            rx,
            tx,
            steering: steering.map(Steering::steerer),
            app: 0,
            ownership: Ownership::new(pool.total() as usize),
            pool,
            trust: if plan.trust_checksums { flag::CHECKSUM_VERIFIED } else { 0 },
            vlan: plan.vlan,
            inserts: plan.offloads.has(Offloads::TX_VLAN_INSERT),
            offloads: plan.offloads,
            stopped: false,
            reaps: true,
            closed: false,
            max_segments: plan.max_segments,
            waiting: mbuf::Burst::new(),
            counts: PortStats::default(),
            work: Work::new(plan.time_work),
            posted,
            cold: Box::new(Cold {
                info,
                device: device.clone(),
                tells: queue == 0,
                seen: Cell::default(),
                up: Cell::new(device.link().up),
                timestamps,
                calls: Cell::new(0),
            }),
        })
    }

    /// When the device received a frame of this port, if it was told to note that and does. Good until the frame is sent or freed.
    pub fn arrived(&self, frame: &Frame) -> Option<DeviceTime> {
        let timestamps = self.cold.timestamps?;
        // SAFETY: the frame owns the mbuf, of which only this is read; the token is forgotten again.
        let mbuf = unsafe { Mbuf::from_raw(pointer(&frame.as_raw())) };
        let time = timestamps.of(&mbuf).map(DeviceTime);
        let _ = mbuf.into_raw();
        time
    }

    /// The device's clock now, for those that have one.
    pub fn device_time(&self) -> Option<DeviceTime> {
        self.cold.device.clock().map(DeviceTime)
    }

    /// Believes every checksum from now on, as the option does for all devices.
    pub fn trust_checksums(&mut self) {
        self.trust = flag::CHECKSUM_VERIFIED;
    }

    /// What steering has counted here; `None` without rules.
    pub fn steerer(&self) -> Option<&Steerer> {
        self.steering.as_ref()
    }

    /// The mbuf's number, for the ownership check of debug builds.
    #[inline(always)]
    fn number(mbuf: &Mbuf) -> usize {
        if cfg!(debug_assertions) { mbuf.index() as usize } else { 0 }
    }

    /// The token for an mbuf of ours that was the driver's.
    #[inline(always)]
    fn hand_out(&mut self, mbuf: Mbuf, flags: u8) -> Frame {
        self.app += 1;
        self.token(mbuf, flags)
    }

    /// As [`DpdkPort::hand_out`], for callers that count by the burst. Whatever may panic comes before it: a frame that is dropped
    /// is an mbuf lost.
    #[inline(always)]
    pub(super) fn token(&mut self, mbuf: Mbuf, flags: u8) -> Frame {
        self.ownership.transfer(Self::number(&mbuf), Owner::Free, Owner::App);
        let (chunk, capacity) = (mbuf.buffer(), u32::from(mbuf.capacity()));
        let (offset, len) = (u32::from(mbuf.data_off()), u32::from(mbuf.data_len()));
        let queue = self.queue();
        let token = mbuf.into_raw().as_ptr() as u64;
        // SAFETY: the buffer of an mbuf that this port owns alone (it came from the driver, or from the pool), and which stays
        // with the token until `take_back`; the pool is there for as long as an mbuf of it is out. DPDK keeps the packet within.
        unsafe { Frame::from_raw(RawFrame { chunk, token, capacity, offset, len, queue, flags }) }
    }

    #[inline(always)]
    fn queue(&self) -> u16 {
        self.rx.queue()
    }

    /// The mbuf of a token that comes back.
    #[inline(always)]
    pub(super) fn take_back(&mut self, frame: Frame) -> Mbuf {
        self.app -= 1;
        let raw = frame.into_raw();
        // SAFETY: the token is the address `hand_out` made it from, and it is gone now.
        let mbuf = unsafe { Mbuf::from_raw(pointer(&raw)) };
        debug_assert!(
            self.pool.owns(&mbuf),
            "frame {:#x} was given back to a port it does not come from",
            raw.token
        );
        self.ownership.transfer(Self::number(&mbuf), Owner::App, Owner::Free);
        mbuf
    }

    /// Gives mbufs back to the pool; all are single segments, since chains come apart on receive.
    #[inline]
    pub(super) fn put(&mut self, mbufs: &mut mbuf::Burst) {
        // SAFETY: ours, single, referred to once: `deliver` lets nothing else through, and sending puts back what it linked.
        unsafe { self.pool.put(mbufs) };
    }

    /// Writes a frame's place and length into its mbuf, with what the device is to do. `None` when it cannot be sent at all. The
    /// mbuf stays the frame's: whoever keeps the frame forgets it.
    #[inline(always)]
    pub(super) fn ready(&mut self, frame: &mut Frame, offloaded: &mut bool) -> Option<Mbuf> {
        let mut lent = self.plain(frame);
        let mbuf = &mut *lent;
        super::may_panic();
        if frame.has(flag::CHECKSUM_PARTIAL) {
            *offloaded = true;
            let flags = offload::checksum(frame, mbuf, self.offloads)?;
            mbuf.set_flags(flags);
        }
        if let Some(vlan) = self.vlan {
            if self.inserts {
                mbuf.set_vlan_tci(vlan);
                mbuf.set_flags(mbuf.flags() | tx::VLAN);
                *offloaded = true;
            } else if !offload::tag(mbuf, vlan) {
                return None;
            }
        }
        super::may_panic();
        Some(ManuallyDrop::into_inner(lent))
    }

    /// Undoes what [`DpdkPort::ready`] did to the packet's bytes.
    #[inline(always)]
    pub(super) fn unready(&self, mbuf: &mut Mbuf) {
        if self.vlan.is_some() && !self.inserts {
            offload::untag_again(mbuf);
        }
    }

    /// The driver's receive side and what it has not given back after transmit.
    fn with_driver(&self) -> (u64, u64) {
        let free = u64::from(self.pool.available());
        let out = u64::from(self.pool.total()) - free;
        let driver = out.saturating_sub(self.app + self.waiting.len() as u64);
        // What a driver that cannot say holds for transmit is not told from what it has posted.
        let tx = if self.reaps { driver.saturating_sub(self.posted) } else { 0 };
        (driver - tx, tx)
    }
}

/// Mbufs for the driver whose frames are there still, which own them until it has taken them. So they are forgotten and not freed,
/// also when something panics.
pub(super) type Lent = ManuallyDrop<mbuf::Burst>;

/// True when each frame is a whole packet, and nothing is to be done to any.
#[inline(always)]
fn are_ready(frames: &[Frame]) -> bool {
    let (mut flags, mut empty) = (0, false);
    for frame in frames {
        flags |= frame.flags();
        empty |= frame.len() == 0;
    }
    flags & (flag::MORE | flag::CHECKSUM_PARTIAL) == 0 && !empty
}

#[inline(always)]
fn pointer(raw: &RawFrame) -> NonNull<volley_dpdk::mbuf::Raw> {
    // SAFETY: `hand_out` made the token of a pointer that is not null.
    unsafe { NonNull::new_unchecked(raw.token as *mut volley_dpdk::mbuf::Raw) }
}

impl Port for DpdkPort {
    fn info(&self) -> &PortInfo {
        &self.cold.info
    }

    fn rx(&mut self, burst: &mut Burst) -> usize {
        if self.stopped {
            return 0;
        }
        Receiving::into(burst, self).receive()
    }

    fn tx(&mut self, burst: &mut Burst) -> usize {
        if self.closed || burst.is_empty() {
            return 0;
        }
        let mut mbufs = Lent::new(mbuf::Burst::new());
        let mut offloaded = false;
        if self.vlan.is_none() && are_ready(burst) {
            // As a rule: all there is to say is where each packet lies.
            mbufs.extend(burst.iter().map(|frame| ManuallyDrop::into_inner(self.plain(frame))));
            return self.send(burst, mbufs);
        }
        for frame in burst.iter_mut() {
            if frame.has(flag::MORE) || frame.len() == 0 {
                return self.send_unusual(burst, mbufs);
            }
            match self.ready(frame, &mut offloaded) {
                Some(mbuf) => mbufs.push(mbuf),
                None => return self.send_unusual(burst, mbufs),
            }
        }
        if offloaded && self.tx.prepare(&mut mbufs) < mbufs.len() {
            return self.send_unusual(burst, mbufs);
        }
        self.send(burst, mbufs)
    }

    fn flush(&mut self) {
        if self.stopped && self.reaps {
            self.reaps = self.tx.reap();
        }
    }

    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        let want = want.min(burst.remaining_capacity()).min(WHOLE);
        let mut mbufs = mbuf::Burst::new();
        if !self.pool.take(&mut mbufs, want) {
            // Nearly exhausted: what there is.
            while mbufs.len() < want && self.pool.take(&mut mbufs, 1) {}
        }
        let taken = mbufs.len();
        for mut mbuf in mbufs {
            mbuf.prepare(HEADROOM, 0, 0);
            let frame = self.hand_out(mbuf, 0);
            burst.push(frame);
        }
        taken
    }

    fn free(&mut self, burst: &mut Burst) {
        let mut mbufs = mbuf::Burst::new();
        for frame in burst.drain(..) {
            let mbuf = self.take_back(frame);
            mbufs.push(mbuf);
        }
        self.put(&mut mbufs);
    }

    fn ledger(&self) -> Ledger {
        let (kernel_rx, kernel_tx) = self.with_driver();
        let (total, held) = (u64::from(self.pool.total()), self.waiting.len() as u64);
        let free = total - kernel_rx - kernel_tx - self.app - held;
        Ledger { total, free, kernel_rx, kernel_tx, app: self.app, held, abandoned: 0 }
    }

    fn stats(&self) -> PortStats {
        if let Some(steering) = &self.steering {
            steering.publish();
        }
        self.cold.look(self.stopped);
        let Stats { rx_missed, rx_errors, rx_no_mbuf, tx_errors, .. } = self.cold.seen.get();
        let (_, with_driver) = self.with_driver();
        let work = self.work.so_far();
        PortStats {
            tx_completed: self.counts.tx_frames.saturating_sub(with_driver),
            tx_dropped: self.counts.tx_dropped + tx_errors,
            rx_ring_full: rx_missed,
            rx_dropped: self.counts.rx_dropped + rx_errors,
            fill_ring_empty: self.counts.fill_ring_empty + rx_no_mbuf,
            work_ns: work.ns,
            work_frames: work.frames,
            work_bursts: work.bursts,
            ..self.counts
        }
    }

    fn stop_rx(&mut self) {
        self.stopped = true;
        self.waiting.clear();
    }

    fn close(&mut self) -> Ledger {
        self.stop_rx();
        self.flush();
        self.closed = true;
        self.ledger()
    }

    fn failure(&self) -> Option<String> {
        let Cold { device, info, .. } = &*self.cold;
        device.is_removed().then(|| format!("{}: the device was removed", info.name))
    }

    /// Steering has, and receive has fetched them.
    fn reads_headers(&self) -> bool {
        true
    }

    fn nap_ns(&self) -> Option<u64> {
        Some(NAP_NS)
    }
}

impl DpdkPort {
    /// Checksum flag of every received frame.
    pub(super) fn trust(&self) -> u8 {
        self.trust
    }

    /// A frame's place and length, written into its mbuf, which stays the frame's.
    #[inline(always)]
    pub(super) fn plain(&self, frame: &Frame) -> ManuallyDrop<Mbuf> {
        let raw = frame.as_raw();
        // SAFETY: the frame owns the mbuf, and the caller sees to it that one of the two is forgotten.
        let mut mbuf = ManuallyDrop::new(unsafe { Mbuf::from_raw(pointer(&raw)) });
        mbuf.prepare(raw.offset as u16, raw.len as u16, 0);
        mbuf
    }

    /// Offers one packet to the driver; it is gone from `packet` when it was taken.
    pub(super) fn offer(&mut self, packet: &mut mbuf::Burst, offloaded: bool) -> Sent {
        if offloaded && self.tx.prepare(packet) == 0 {
            return Sent::Never;
        }
        if self.tx.send(packet) == 1 { Sent::Yes } else { Sent::NotNow }
    }

    /// Offers the mbufs of all frames of `burst` to the driver, and returns how many it took.
    #[inline(always)]
    fn send(&mut self, burst: &mut Burst, mut mbufs: Lent) -> usize {
        super::may_panic();
        self.work.pause();
        let sent = self.tx.send(&mut mbufs);
        self.work.resume();
        // What was not taken is still its frame's.
        mbufs.iter_mut().for_each(|mbuf| self.unready(mbuf));
        if cfg!(debug_assertions) {
            burst.drain(..sent).for_each(|frame| self.release(frame));
        } else {
            // Nothing is looked at then, and the tokens vanish all at once.
            burst.drain(..sent);
            self.app -= sent as u64;
        }
        self.counts.tx_frames += sent as u64;
        sent
    }

    /// A frame the driver took.
    #[inline(always)]
    pub(super) fn release(&mut self, frame: Frame) {
        let number = if cfg!(debug_assertions) {
            // SAFETY: only its number is read, which never changes; the token is forgotten again.
            let mbuf = unsafe { Mbuf::from_raw(pointer(&frame.as_raw())) };
            let number = Self::number(&mbuf);
            let _ = mbuf.into_raw();
            number
        } else {
            0
        };
        let _ = frame.into_raw();
        self.ownership.transfer(number, Owner::App, Owner::Free);
        self.app -= 1;
    }
}
