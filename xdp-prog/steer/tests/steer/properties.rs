//! What must hold for every packet and every rule, not only for the fixtures.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use volley_steer::abi::{Counter, RuleEntry, RuleList, family};
use volley_steer::{Action, Address, Unbound, Verdict, headers};

use crate::fixtures::{Fixture, Host, all, rules};

/// A fixture's frame with a few bytes changed, cut or lengthened: near enough to a valid packet to get far.
fn nearly(fixtures: Vec<Fixture>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (any::<Index>(), changes, prop::option::of(any::<Index>()), prop::collection::vec(any::<u8>(), 0..8))
        .prop_map(move |(which, changes, cut, more)| {
            let mut frame = which.get(&fixtures).frame.clone();
            for (at, value) in changes {
                if !frame.is_empty() {
                    let at = at.index(frame.len());
                    frame[at] = value;
                }
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len() + 1));
            }
            frame.extend(more);
            frame
        })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

/// Bits of an address, from the most significant, and how many there are.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// `Host::run` itself checks that exactly one reason is counted; here, that reason and verdict go together.
    #[test]
    fn verdict_follows_from_counter(frame in nearly(all()), socket: bool) {
        let (verdict, counter) = Host::run(&rules(), socket, &frame);
        let expected = match counter {
            Counter::Redirected | Counter::IcmpRedirected => Verdict::Redirect,
            Counter::NoSocketDrop | Counter::RuleDrop | Counter::SynLimited => Verdict::Drop,
            _ => Verdict::Pass,
        };
        prop_assert_eq!(verdict, expected);
        prop_assert!(socket || verdict != Verdict::Redirect);
    }

    /// What is malformed or not ours does not depend on the rules.
    #[test]
    fn only_found_datagrams_meet_a_rule(frame in nearly(all())) {
        let (_, counter) = Host::run(&rules(), true, &frame);
        match headers::find(&frame[..]) {
            Ok(found) if found.error => prop_assert!(
                counter != Counter::Redirected
                    && (counter < Counter::NoRule
                        || matches!(counter, Counter::IcmpRedirected | Counter::OtherProtocol))
            ),
            Ok(_) => prop_assert!(counter <= Counter::AddressMismatch || counter == Counter::SynLimited),
            Err(reason) => prop_assert_eq!(counter, reason),
        }
    }

    /// The short way finds what the long way finds, or nothing.
    #[test]
    fn short_way_agrees_with_the_long_one(frame in nearly(all())) {
        if let Some(plain) = headers::find_plain(&frame[..]) {
            prop_assert_eq!(Ok(plain), headers::find(&frame[..]));
        }
    }

    #[test]
    fn prefix_matches_like_arithmetic(network in address(), len in 0u8..=128, to in address(), near: bool) {
        let (network_bits, width) = bits(network);
        let Some(entry) = RuleEntry::prefix(network, len, Action::Pass) else {
            prop_assert!(u32::from(len) > width);
            return Ok(());
        };
        prop_assert!(u32::from(len) <= width);
        // An address picked at random is seldom under a long prefix: take the network with its last bit flipped.
        let to = match (near, network) {
            (false, _) => to,
            (true, IpAddr::V4(address)) => IpAddr::from((u32::from(address) ^ 1).to_be_bytes()),
            (true, IpAddr::V6(address)) => IpAddr::from((u128::from(address) ^ 1).to_be_bytes()),
        };
        let (to_bits, to_width) = bits(to);
        let same = len == 0 || (network_bits ^ to_bits) >> (128 - u32::from(len)) == 0;
        prop_assert_eq!(entry.matches(&Address::from(to)), to_width == width && same);
    }

    #[test]
    fn any_matches_everything(to in address()) {
        let entry = RuleEntry::any(Action::Drop);
        prop_assert!(entry.matches(&Address::from(to)));
        prop_assert_eq!(entry.family, family::ANY);
    }

    #[test]
    fn an_unused_entry_matches_nothing(to in address()) {
        prop_assert_eq!(RuleList::default().find(&Address::from(to)), None);
    }
}

#[test]
fn actions_survive_the_table() {
    for action in [
        Action::Pass,
        Action::Drop,
        Action::Redirect { unbound: Unbound::Pass },
        Action::Redirect { unbound: Unbound::Drop },
    ] {
        assert_eq!(RuleEntry::any(action).action(), Some(action));
    }
}
