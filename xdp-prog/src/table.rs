//! From rules to the table that the program reads: ranges are expanded, equal lists shared.
//!
//! The ports are cut where any rule begins or ends. Between two cuts every port has the same rules, so each
//! such piece needs one list, whatever its width:
//!
//! ```text
//! rule A   |-------------|
//! rule B          |-------------|
//! lists    |  A   | A, B |  B   |
//! ```

use std::collections::{BTreeSet, HashMap};

use volley_steer::abi::{MAX_BUCKETS, MAX_LISTS, MAX_RULES_PER_PORT, RuleEntry, RuleList, RuleTable};
use zerocopy::FromZeros;

use crate::rule::{Protocol, Rule};

/// Why rules cannot be put into the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A range that ends before it begins.
    #[error("rule `{rule}` has no ports: its range ends before it begins")]
    NoPorts {
        /// The rule.
        rule: Box<Rule>,
    },
    /// More address matches at a port than the program tries.
    #[error(
        "port {port} would need {needed} address matches, at most {MAX_RULES_PER_PORT} are tried per port: join \
         addresses into prefixes, or give up one of {}",
        rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ")
    )]
    TooManyPerPort {
        /// The first such port.
        port: u16,
        /// Address matches needed there.
        needed: usize,
        /// The rules that meet there.
        rules: Vec<Rule>,
    },
    /// More rules with a limit on SYNs than there are buckets.
    #[error("more than {MAX_BUCKETS} rules limit SYNs: use fewer, wider port ranges")]
    TooManyLimits,
    /// More different lists than the table holds.
    #[error("the rules need more than {} different lists of matches: use fewer, wider port ranges", MAX_LISTS - 1)]
    TooManyLists,
}

/// The table for these rules, as `volley_steer` reads it. Where several match a packet, the first decides.
///
/// # Errors
/// When they do not fit.
pub fn build<'a>(rules: impl Iterator<Item = &'a Rule>) -> Result<Box<RuleTable>, TableError> {
    // Each rule with a limit has a bucket of its own; the numbers follow the rules' order.
    let mut limited = 0;
    let rules: Vec<(&Rule, u32)> = rules
        .map(|rule| {
            limited += u32::from(rule.syn_limit.is_some());
            (rule, limited.saturating_sub(1))
        })
        .collect();
    if limited > MAX_BUCKETS {
        return Err(TableError::TooManyLimits);
    }
    if let Some(rule) = rules.iter().map(|(rule, _)| *rule).find(|rule| rule.ports.is_empty()) {
        return Err(TableError::NoPorts { rule: Box::new(rule.clone()) });
    }
    let mut table = RuleTable::new_box_zeroed().expect("half a megabyte of memory");
    let mut numbers = HashMap::new();
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let rules: Vec<(&Rule, u32)> =
            rules.iter().copied().filter(|(rule, _)| rule.protocol == protocol).collect();
        let cuts: BTreeSet<u32> = rules
            .iter()
            .flat_map(|(rule, _)| [u32::from(*rule.ports.start()), u32::from(*rule.ports.end()) + 1])
            .collect();
        let cuts: Vec<u32> = cuts.into_iter().collect();
        for piece in cuts.windows(2) {
            let first = piece[0] as u16;
            let here: Vec<(&Rule, u32)> =
                rules.iter().copied().filter(|(rule, _)| rule.ports.contains(&first)).collect();
            if here.is_empty() {
                continue;
            }
            let entries = entries(first, &here)?;
            let fresh = numbers.len() + 1; // list 0 means none
            let number = *numbers.entry(key(&entries)).or_insert(fresh);
            if number >= MAX_LISTS {
                return Err(TableError::TooManyLists);
            }
            table.lists[number] = entries;
            let ports = match protocol {
                Protocol::Udp => &mut table.udp,
                Protocol::Tcp => &mut table.tcp,
            };
            ports[piece[0] as usize..piece[1] as usize].fill(number as u16);
        }
    }
    Ok(table)
}

fn entries(port: u16, rules: &[(&Rule, u32)]) -> Result<RuleList, TableError> {
    let mut list = RuleList::default();
    let all: Vec<RuleEntry> = rules
        .iter()
        .flat_map(|(rule, bucket)| {
            let limited = |entry: RuleEntry| match rule.syn_limit {
                Some(limit) => entry.syn_limit(limit.per_second, limit.burst, *bucket),
                None => entry,
            };
            let any = rule.addresses.is_empty().then(|| RuleEntry::any(rule.action));
            let some = rule.addresses.iter().map(|prefix| {
                RuleEntry::prefix(prefix.address(), prefix.bits(), rule.action).expect("a valid prefix")
            });
            any.into_iter().chain(some).map(limited)
        })
        .collect();
    if all.len() > MAX_RULES_PER_PORT {
        let rules = rules.iter().map(|(rule, _)| (*rule).clone()).collect();
        return Err(TableError::TooManyPerPort { port, needed: all.len(), rules });
    }
    list.rules[..all.len()].copy_from_slice(&all);
    Ok(list)
}

fn key(list: &RuleList) -> Vec<u8> {
    zerocopy::IntoBytes::as_bytes(list).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Action, Unbound};
    use std::net::IpAddr;
    use std::ops::RangeInclusive;
    use volley_steer::Address;

    const REDIRECT: Action = Action::Redirect { unbound: Unbound::Pass };

    fn rule(protocol: Protocol, ports: RangeInclusive<u16>, addresses: &[&str], action: Action) -> Rule {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Rule { protocol, ports, addresses, action, syn_limit: None }
    }

    fn find(table: &RuleTable, protocol: Protocol, port: u16, to: &str) -> Option<Action> {
        table.rules(protocol, port)?.find(&Address::from(to.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn ranges_meet_where_they_overlap_and_the_first_rule_decides() {
        let rules = [
            rule(Protocol::Udp, 7000..=7999, &["10.0.0.0/8"], REDIRECT),
            rule(Protocol::Udp, 7500..=65535, &[], Action::Drop),
            rule(Protocol::Tcp, 0..=0, &["::/0"], Action::Pass),
        ];
        let table = build(rules.iter()).unwrap();
        let udp = |port, to| find(&table, Protocol::Udp, port, to);
        assert_eq!(udp(6999, "10.0.0.1"), None);
        assert_eq!(udp(7000, "10.0.0.1"), Some(REDIRECT));
        assert_eq!(udp(7499, "11.0.0.1"), None);
        assert_eq!(udp(7500, "10.0.0.1"), Some(REDIRECT));
        assert_eq!(udp(7500, "11.0.0.1"), Some(Action::Drop));
        assert_eq!(udp(7999, "fd77::1"), Some(Action::Drop));
        assert_eq!(udp(8000, "10.0.0.1"), Some(Action::Drop));
        assert_eq!(udp(65535, "10.0.0.1"), Some(Action::Drop));
        assert_eq!(find(&table, Protocol::Tcp, 0, "fd77::1"), Some(Action::Pass));
        assert_eq!(find(&table, Protocol::Tcp, 0, "10.0.0.1"), None);
        assert_eq!(find(&table, Protocol::Tcp, 7000, "10.0.0.1"), None);
    }

    #[test]
    fn equal_lists_are_shared() {
        let rules: Vec<Rule> =
            (0..2000).map(|i| rule(Protocol::Udp, i * 2..=i * 2, &[], REDIRECT)).collect();
        let table = build(rules.iter()).unwrap();
        assert_eq!((table.udp[0], table.udp[1], table.udp[3998]), (1, 0, 1));
    }

    #[test]
    fn five_matches_at_a_port_name_the_port_and_the_rules() {
        let rules = [
            rule(Protocol::Udp, 1..=100, &["10.0.0.1", "10.0.0.2", "10.0.0.3"], REDIRECT),
            rule(Protocol::Udp, 90..=200, &["10.0.0.4", "10.0.0.5"], REDIRECT),
        ];
        let error = build(rules.iter()).unwrap_err();
        assert_eq!(error, TableError::TooManyPerPort { port: 90, needed: 5, rules: rules.to_vec() });
        let text = error.to_string();
        assert!(text.contains("port 90") && text.contains("`udp 90-200 to 10.0.0.4, 10.0.0.5"), "{text}");
        let four = rule(Protocol::Udp, 1..=1, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], REDIRECT);
        build([four].iter()).unwrap();
    }

    #[test]
    fn more_lists_than_there_is_room_for() {
        let many = |n: u16| -> Vec<Rule> {
            (0..n)
                .map(|i| rule(Protocol::Udp, i..=i, &[&format!("10.0.{}.{}", i / 256, i % 256)], REDIRECT))
                .collect()
        };
        build(many(1023).iter()).unwrap();
        assert_eq!(build(many(1024).iter()).unwrap_err(), TableError::TooManyLists);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn a_backward_range_is_refused() {
        let backward = rule(Protocol::Udp, 10..=9, &[], REDIRECT);
        assert!(matches!(build([backward].iter()), Err(TableError::NoPorts { .. })));
    }
}
