//! From the driver's mbufs to frames.
//!
//! As a rule a burst is mbufs of ours, a packet in each: then it goes through in passes, each a short loop that does one thing for all
//! of them, so that what it needs stays in registers. Else packet by packet.
//!
//! ```text
//!   driver ──► mbufs ──► prefetch ──► glance: all plain, ours? ──► steer all ──► tokens
//!                                        │ no
//!                                        └──► one by one: chains, mbufs of others, tags ([`super::chain`])
//! ```

use super::offload;
use super::port::DpdkPort;
use super::steering::Steered;
use crate::frame::{Burst, Frame, flag};
use volley_dpdk::mbuf::{self, Glance, rx};
use volley_dpdk::{Mbuf, mbuf::glance};
use volley_steer::Verdict;

/// A receive under way. What it has put into the burst is the app's when it ends, also by a panic; the mbufs that it has not come
/// to are freed then.
pub(super) struct Receiving<'r> {
    port: &'r mut DpdkPort,
    burst: &'r mut Burst,
    before: usize,
}

impl Drop for Receiving<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let received = (self.burst.len() - self.before) as u64;
        self.port.app += received;
        self.port.counts.rx_frames += received;
    }
}

impl<'r> Receiving<'r> {
    /// Into the room left in `burst`.
    #[inline(always)]
    pub fn into(burst: &'r mut Burst, port: &'r mut DpdkPort) -> Receiving<'r> {
        Receiving { before: burst.len(), port, burst }
    }

    /// Receives a burst, and says how many frames that were.
    #[inline(always)]
    pub fn receive(mut self) -> usize {
        let Receiving { port, burst, before } = &mut self;
        let mut mbufs = mbuf::Burst::new();
        if port.waiting.is_empty() {
            port.work.end();
            port.rx.receive(&mut mbufs, burst.remaining_capacity());
            port.work.begin(mbufs.len());
        } else {
            std::mem::swap(&mut mbufs, &mut port.waiting);
        }
        if mbufs.is_empty() {
            return 0;
        }
        for mbuf in &mbufs {
            mbuf.prefetch_packet();
        }
        let seen = glance(&mbufs, &port.pool);
        if seen.plain && port.vlan.is_none() && mbufs.len() <= burst.remaining_capacity() {
            port.deliver_all(&mut mbufs, seen, burst);
        } else {
            port.deliver_each(mbufs, burst);
        }
        burst.len() - *before
    }
}

impl DpdkPort {
    /// Delivers mbufs that all are plain, for which there is room.
    #[inline(always)]
    fn deliver_all(&mut self, mbufs: &mut mbuf::Burst, seen: Glance, burst: &mut Burst) {
        super::may_panic();
        let steered = match &self.steering {
            Some(steering) => steering.steer_all(mbufs.iter().map(Mbuf::bytes)),
            None => Steered { passed: 0, dropped: 0 },
        };
        super::may_panic();
        if steered.passed | steered.dropped != 0 || seen.flags & rx::L4_MASK != 0 {
            return self.deliver_some(mbufs, steered, burst);
        }
        let trust = self.trust;
        for mbuf in mbufs.drain(..) {
            let frame = self.token(mbuf, trust);
            burst.push(frame);
        }
    }

    /// As [`DpdkPort::deliver_all`], when not all are alike.
    #[inline(never)]
    fn deliver_some(&mut self, mbufs: &mut mbuf::Burst, steered: Steered, burst: &mut Burst) {
        let Steered { passed, dropped } = steered;
        let mut gone = mbuf::Burst::new();
        for (at, mbuf) in mbufs.drain(..).enumerate() {
            if dropped >> at & 1 != 0 {
                gone.push(mbuf);
                continue;
            }
            let not_steered = if passed >> at & 1 != 0 { flag::NOT_STEERED } else { 0 };
            let flags = offload::received(&mbuf, mbuf.flags()) | self.trust | not_steered;
            let frame = self.token(mbuf, flags);
            burst.push(frame);
        }
        super::may_panic();
        // They have not been the app's.
        self.put(&mut gone);
    }

    /// Delivers what comes as it may.
    #[inline(never)]
    fn deliver_each(&mut self, mbufs: mbuf::Burst, burst: &mut Burst) {
        let mut dropped = mbuf::Burst::new();
        let mut mbufs = mbufs.into_iter();
        while let Some(mbuf) = mbufs.next() {
            // As many as there was room for came, and chains take more room than that.
            if burst.is_full() || !(mbuf.is_plain() && self.pool.owns(&mbuf)) {
                if let Err(mbuf) = self.unusual(mbuf, burst) {
                    // No room for it in this burst: it begins the next.
                    self.waiting.push(mbuf);
                    self.waiting.extend(mbufs);
                    break;
                }
                continue;
            }
            if let Some(frame) = self.deliver(mbuf, &mut dropped) {
                burst.push(frame);
            }
        }
        super::may_panic();
        // They have not been the app's.
        self.put(&mut dropped);
    }

    /// A plain mbuf as a frame, which is steered; what steering drops is `None` and lies in `dropped`. [`Receiving`] counts the
    /// frame as the app's.
    #[inline(always)]
    fn deliver(&mut self, mut mbuf: Mbuf, dropped: &mut mbuf::Burst) -> Option<Frame> {
        super::may_panic();
        let seen = mbuf.flags();
        if let Some(vlan) = self.vlan
            && offload::untag(&mut mbuf, seen, vlan).is_none()
        {
            self.counts.rx_dropped += 1;
            dropped.push(mbuf);
            return None;
        }
        let mut flags = offload::received(&mbuf, seen) | self.trust;
        if let Some(steering) = &self.steering {
            match steering.steer(mbuf.bytes()) {
                Verdict::Redirect => {}
                Verdict::Pass => flags |= flag::NOT_STEERED,
                Verdict::Drop => {
                    dropped.push(mbuf);
                    return None;
                }
            }
        }
        super::may_panic();
        Some(self.token(mbuf, flags))
    }
}
