//! Packets that are no datagrams for the app: who gets them, in this order.
//!
//! ```text
//!   TCP that is steered here ─► our TCP, if there is one
//!   ARP, NDP, ICMP ───────────► the port's own answers, where no kernel stands behind it ── not ours ─┐
//!   everything else ──────────────────────────────────────────────────────────────────────────────────┴─► exception path,
//!                                                                                     else dropped with its reason
//! ```
//!
//! With none of them, as over AF_XDP without TCP, each is dropped with the reason the parser gave.

use super::exception::Exception;
use super::segment;
use super::standalone::{Outcome, Standalone, StandaloneConfig, StandaloneStats};
use super::{Net, Path};
use crate::frame::{BURST, Burst, Frame, flag};
use crate::port::Port;
use volley_wire::DropReason;
use volley_wire::ipv4::protocol;

/// Who gets what is no datagram.
#[derive(Default)]
pub(super) struct Other {
    pub(super) standalone: Option<Box<Standalone>>,
    pub(super) exception: Option<Box<Exception>>,
    /// Frames of the burst that have become answers, a bit each, and how many packets those are.
    pub(super) answers: u64,
    pub(super) answered: usize,
}

impl Other {
    pub(super) fn new(
        standalone: Option<StandaloneConfig>,
        mac: Option<volley_wire::ethernet::Mac>,
    ) -> Other {
        let mut other = Other::default();
        if let Some(mut config) = standalone {
            other.exception = config.exception.take().map(|port| Box::new(Exception::new(port)));
            let mac = config.mac.or(mac);
            other.standalone = mac.map(|mac| Box::new(Standalone::new(&mut config, mac)));
        }
        other
    }

    /// True when somebody wants to see what is no datagram.
    #[inline(always)]
    pub(super) fn is_there(&self) -> bool {
        self.standalone.is_some() || self.exception.is_some()
    }
}

/// Tells segments and questions from what was parsed in vain for another reason.
fn may_be_other(reason: DropReason) -> bool {
    use DropReason::{EtherType, Fragment, NotSteered, NotUdp, NotUnicast};
    matches!(reason, NotUdp | EtherType | NotUnicast | NotSteered | Fragment)
}

impl<P: Port + ?Sized> Net<P> {
    /// A packet, in the frames from `first` to before `end`, is no datagram for the app because of `reason`.
    #[inline(never)]
    pub(super) fn turn_away(&mut self, frames: &mut Burst, first: usize, end: usize, reason: DropReason) {
        let outcome = match (self.other.is_there() || self.tcp.is_some()) && may_be_other(reason) {
            true => self.offer_packet(frames, first, end, reason),
            false => Err(reason),
        };
        if let Err(reason) = outcome {
            self.stats.drop(reason);
        }
    }

    fn offer_packet(
        &mut self,
        frames: &mut Burst,
        first: usize,
        end: usize,
        reason: DropReason,
    ) -> Result<(), DropReason> {
        if reason == DropReason::NotUdp && self.offer_tcp(&frames[first..end], first) {
            self.stats.handled += 1;
            return Ok(());
        }
        let chain = &mut frames[first..end];
        let outcome = match &mut self.other.standalone {
            Some(standalone) => standalone.handle(chain, self.now),
            None => Outcome::NotOurs,
        };
        match outcome {
            Outcome::Answered => {
                self.other.answers |= (u64::MAX >> (BURST - (end - first))) << first;
                self.other.answered += 1;
                Ok(())
            }
            Outcome::Handled => {
                self.stats.handled += 1;
                Ok(())
            }
            Outcome::Learned if self.other.exception.is_some() => self.except(&frames[first..end], reason),
            Outcome::Learned => {
                self.stats.handled += 1;
                Ok(())
            }
            Outcome::NotOurs => self.except(&frames[first..end], reason),
            Outcome::Drop(reason) => Err(reason),
        }
    }

    /// Offers a packet to our TCP: segments that steering lets it have, and ICMP errors about its own. False when it is none of
    /// TCP's.
    fn offer_tcp(&mut self, chain: &[Frame], index: usize) -> bool {
        let (Some(tcp), [frame, ..]) = (&mut self.tcp, chain) else { return false };
        let arrival = super::parse::Arrival { verify: false, ..self.arrival };
        let total = chain.iter().map(Frame::len).sum();
        let left_to_kernel = frame.has(flag::NOT_STEERED)
            && segment::find(frame.bytes(), total, &arrival)
                .is_none_or(|found| found.protocol == protocol::TCP);
        !left_to_kernel && tcp.take(index, chain, total, &self.arrival)
    }

    /// Copies a packet to the exception path; without one, it is dropped for `reason`.
    fn except(&mut self, chain: &[Frame], reason: DropReason) -> Result<(), DropReason> {
        match &mut self.other.exception {
            None => Err(reason),
            // Counted when the port takes it.
            Some(exception) => match exception.copy(chain) {
                true => Ok(()),
                false => Err(DropReason::ExceptionFull),
            },
        }
    }

    /// What is due before a burst is received: packets of the kernel, solicitations and announcements.
    #[inline(never)]
    pub(super) fn attend(&mut self) {
        if let Some(mut exception) = self.other.exception.take() {
            let (sent, dropped) = exception.receive(|frame| self.forward(frame));
            self.other.exception = Some(exception);
            if let Some(standalone) = &mut self.other.standalone {
                standalone.stats_mut().forwarded += sent;
                standalone.stats_mut().forward_dropped += dropped;
            }
        }
        if let Some(standalone) = &mut self.other.standalone {
            standalone.hear_siblings(self.now.ns);
        }
        self.send_due();
    }

    /// Sends what the neighbour cache and the announcements want sent now.
    fn send_due(&mut self) {
        let Some(mut standalone) = self.other.standalone.take() else { return };
        while standalone.next_deadline() <= self.now.ns {
            let Some(mut frame) = self.frame_for_extra() else { break };
            frame.set_queue(self.tx_queue(0));
            if !standalone.next_output(&mut frame, self.now.ns) {
                self.spare.push(frame);
                break;
            }
            self.extra.push(frame);
        }
        self.other.standalone = Some(standalone);
    }

    /// Queues a copy of a packet of the kernel's.
    fn forward(&mut self, packet: &Frame) -> bool {
        let Some(mut frame) = self.frame_for_extra() else { return false };
        if !frame.set_len(packet.len()) {
            self.spare.push(frame);
            return false;
        }
        frame.bytes_mut().copy_from_slice(packet.bytes());
        frame.set_flags(0);
        frame.set_queue(self.tx_queue(0));
        self.extra.push(frame);
        true
    }

    /// An empty frame, when the queue it would go to has room.
    pub(super) fn frame_for_extra(&mut self) -> Option<Frame> {
        if self.extra.is_full() {
            self.extra.offer(&mut *self.port);
            if self.extra.is_full() {
                return None;
            }
        }
        self.empty_frame()
    }

    /// What goes out at the end of a turn besides datagrams.
    #[inline(never)]
    pub(super) fn flush_other(&mut self) {
        self.send_due();
        self.extra.offer(&mut *self.port);
        if let Some(exception) = &mut self.other.exception {
            let (passed, dropped) = exception.flush();
            self.stats.passed += passed;
            self.stats.dropped[DropReason::ExceptionFull as usize] += dropped;
        }
    }

    /// When [`Net::attend`] has something to do, besides what wakes it.
    pub(super) fn other_deadline(&self) -> Option<u64> {
        let standalone = self.other.standalone.as_ref().map(|standalone| standalone.next_deadline());
        let nap = self.other.exception.as_ref().and_then(|exception| exception.port().nap_ns());
        let nap = nap.map(|ns| self.now.ns + ns);
        [standalone.filter(|at| *at != u64::MAX), nap].into_iter().flatten().min()
    }

    /// What happened on a port without a kernel; `None` when one stands behind it.
    pub fn standalone_stats(&self) -> Option<StandaloneStats> {
        self.other.standalone.as_ref().map(|standalone| standalone.stats())
    }

    /// The kernel's port of the exception path.
    pub fn exception_port(&self) -> Option<&dyn Port> {
        self.other.exception.as_ref().map(|exception| exception.port())
    }

    /// Largest IP packet that reaches the peer of `path`, as far as is known, in bytes.
    pub fn path_mtu(&self, path: &Path) -> usize {
        match &self.other.standalone {
            Some(standalone) => standalone.path_mtu(path, self.mtu, self.now.ns),
            None => self.mtu,
        }
    }

    /// True when a datagram of `len` bytes, longer than every path carries, may go over this one.
    #[cold]
    pub(super) fn admits(&mut self, path: &Path, len: usize) -> bool {
        let headers = if path.is_ipv4() { 28 } else { 48 };
        match &mut self.other.standalone {
            Some(standalone) => standalone.admits(path, headers + len, self.mtu, self.now.ns),
            None => headers + len <= self.mtu,
        }
    }
}
