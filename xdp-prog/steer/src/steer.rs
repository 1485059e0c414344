//! The decision.

use core::cell::Cell;

use crate::abi::{Counter, RuleList};
use crate::bucket;
use crate::headers::{self, Datagram};
use crate::packet::Packet;
use crate::rules::{Action, Protocol, Unbound};

/// Where the packet goes. The numbers are the kernel's `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// Away.
    Drop = 1,
    /// To the kernel.
    Pass = 2,
    /// To the socket of the receiving queue, which there is.
    Redirect = 4,
}

/// What a decision needs besides the packet.
pub trait Env {
    /// The rules of a destination port; `None` when it has none.
    fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList>;

    /// Hands the packet to the socket of the receiving queue: [`Verdict::Redirect`]; without one, what `unbound` says.
    fn redirect(&self, unbound: Unbound) -> Verdict;

    /// Nanoseconds since some moment; never runs backwards. Asked only for SYNs under a limit.
    fn now_ns(&self) -> u64;

    /// This CPU's token bucket of that number; without one there is no limit.
    fn bucket(&self, number: u32) -> Option<&Cell<u64>>;

    /// Counts the packet. Called exactly once per packet.
    fn count(&self, counter: Counter);
}

/// Decides where a packet goes, and counts it.
#[inline(always)]
pub fn steer<P: Packet + ?Sized, E: Env>(packet: &P, env: &E) -> Verdict {
    // The short way has its own copy of the decision, in which the protocol and the IP version are constants:
    // together they save a third of the time.
    let (verdict, counter) = match headers::find_plain(packet) {
        Some(datagram) => decide(packet, &datagram, env),
        None => match headers::find(packet) {
            Ok(datagram) => decide(packet, &datagram, env),
            Err(counter) => (Verdict::Pass, counter),
        },
    };
    env.count(counter);
    verdict
}

#[inline(always)]
fn decide<P: Packet + ?Sized, E: Env>(packet: &P, to: &Datagram, env: &E) -> (Verdict, Counter) {
    let Some(rules) = env.rules(to.protocol, to.destination_port) else {
        return (Verdict::Pass, if to.error { Counter::OtherProtocol } else { Counter::NoRule });
    };
    if to.protocol == Protocol::Tcp && !to.error && is_syn(packet, to) && !admits(rules, to, env) {
        return (Verdict::Drop, Counter::SynLimited);
    }
    match rules.find(&to.destination) {
        None if to.error => (Verdict::Pass, Counter::OtherProtocol),
        None => (Verdict::Pass, Counter::AddressMismatch),
        Some(Action::Pass) => (Verdict::Pass, Counter::RulePass),
        Some(Action::Drop) => (Verdict::Drop, Counter::RuleDrop),
        Some(Action::Redirect { unbound }) => {
            let verdict = env.redirect(unbound);
            let counter = match verdict {
                Verdict::Redirect if to.error => Counter::IcmpRedirected,
                Verdict::Redirect => Counter::Redirected,
                Verdict::Pass => Counter::NoSocketPass,
                Verdict::Drop => Counter::NoSocketDrop,
            };
            (verdict, counter)
        }
    }
}

/// A segment that opens a connection: SYN without ACK (RFC 9293, section 3.1).
#[inline(always)]
fn is_syn<P: Packet + ?Sized>(packet: &P, to: &Datagram) -> bool {
    const FLAGS: usize = 13;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    match packet.load::<u8>(to.offset + FLAGS) {
        Some(flags) => flags & (SYN | ACK) == SYN,
        None => false,
    }
}

/// Whether the rule that matches lets one more SYN through.
#[inline(always)]
fn admits<E: Env>(rules: &RuleList, to: &Datagram, env: &E) -> bool {
    match rules.find_limit(&to.destination) {
        Some((interval_ns, burst, number)) if interval_ns != 0 => match env.bucket(number) {
            Some(word) => bucket::admit(word, env.now_ns(), interval_ns, burst),
            None => true,
        },
        _ => true,
    }
}
