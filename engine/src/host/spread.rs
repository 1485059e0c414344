//! Where a NIC puts the game's packets: its receive rules and its RSS table, held against the queues that workers serve.
//!
//! An AF_XDP socket receives from its own queue only; a steered packet on another queue takes the way through the kernel.

use super::check::Check;
use super::ethtool::{Target, UdpRule};
use super::service::Service;
use std::collections::BTreeSet;
use std::io;

/// How a NIC distributes packets.
#[derive(Debug)]
pub struct Spread {
    /// Receive queues; `None` when the driver does not say.
    pub queues: Option<u32>,
    /// The queue for each value of the hash.
    pub rss: io::Result<Vec<u32>>,
    /// Receive rules for UDP.
    pub rules: Vec<UdpRule>,
}

impl Spread {
    /// Whether every packet for `service` arrives on a queue that a worker serves.
    pub fn check(&self, name: &str, service: &Service) -> Check {
        const NAME: &str = "steering";
        let Service { ports, .. } = service;
        let what = match ports.start() == ports.end() {
            true => format!("UDP {}", ports.start()),
            false => format!("UDP {}-{}", ports.start(), ports.end()),
        };
        let ours = |rule: &&UdpRule| ports.clone().any(|port| (port ^ rule.port) & rule.port_mask == 0);
        let rules: Vec<_> = self.rules.iter().filter(ours).collect();
        for rule in &rules {
            let family = if rule.ipv4 { "IPv4" } else { "IPv6" };
            let to = match rule.to {
                Target::Queue(queue) if service.serves(queue) => continue,
                Target::Queue(queue) => format!("to queue {queue}, which no worker serves"),
                Target::Dropped => "away".to_owned(),
                Target::Elsewhere => continue,
            };
            return Check::closed(
                NAME,
                format!("receive rule {} sends {what} over {family} {to}", rule.location),
                format!("ethtool -N {name} delete {}", rule.location),
            );
        }
        let covered = |ipv4: bool| {
            let whole = |rule: &&&UdpRule| rule.ipv4 == ipv4 && rule.any_peer;
            ports
                .clone()
                .all(|port| rules.iter().filter(whole).any(|rule| (port ^ rule.port) & rule.port_mask == 0))
        };
        if covered(true) && covered(false) {
            let queues = rules.iter().filter_map(|rule| match rule.to {
                Target::Queue(queue) => Some(queue),
                _ => None,
            });
            return Check::open(NAME, format!("receive rules send {what} to queues {}", list(queues)));
        }
        match (&self.rss, self.queues) {
            (Ok(table), _) if !table.is_empty() => {
                let unserved: BTreeSet<_> =
                    table.iter().copied().filter(|queue| !service.serves(*queue)).collect();
                match unserved.is_empty() {
                    true => Check::open(
                        NAME,
                        format!("RSS spreads over queues {}, all served", list(table.iter().copied())),
                    ),
                    false => Check::closed(
                        NAME,
                        format!(
                            "RSS spreads over queues {}, and no worker serves {}: their packets go through the kernel",
                            list(table.iter().copied()),
                            list(unserved)
                        ),
                        remedy(name, service),
                    ),
                }
            }
            (_, Some(queues)) => {
                let unserved: Vec<_> = (0..queues).filter(|queue| !service.serves(*queue)).collect();
                match unserved.is_empty() {
                    true => Check::open(NAME, "every queue is served"),
                    false => Check::closed(
                        NAME,
                        format!(
                            "no worker serves queues {}, and the driver does not say that it spares them: their packets go \
                             through the kernel",
                            list(unserved)
                        ),
                        remedy(name, service),
                    ),
                }
            }
            (_, None) => Check::open(NAME, "one queue, as far as the driver says"),
        }
    }
}

/// The command that brings the packets to the queues that are served.
fn remedy(name: &str, service: &Service) -> String {
    let served = service.queues.clone().unwrap_or_default();
    let first_ones = (0..).zip(&served).all(|(number, queue)| number == *queue);
    match first_ones && !served.is_empty() {
        true => format!("ethtool -X {name} equal {}   # or serve every queue", served.len()),
        false => {
            let (port, queue) = (service.ports.start(), served.first().copied().unwrap_or(0));
            let rule =
                |family| format!("ethtool -N {name} flow-type {family} dst-port {port} action {queue}");
            format!("{} && {}   # or serve every queue", rule("udp4"), rule("udp6"))
        }
    }
}

/// "0-3,7".
fn list(numbers: impl IntoIterator<Item = u32>) -> String {
    let sorted: BTreeSet<u32> = numbers.into_iter().collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::*;

    fn rule(location: u32, ipv4: bool, to: Target) -> UdpRule {
        UdpRule { location, ipv4, port: 7777, port_mask: 0xffff, any_peer: true, to }
    }

    fn serving(queues: &[u16]) -> Service {
        Service { queues: Some(queues.to_vec()), ..Service::default() }
    }

    fn check(rss: Option<&[u32]>, rules: &[UdpRule], service: &Service) -> Check {
        let rss = rss.map(<[u32]>::to_vec).ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        Spread { queues: Some(8), rss, rules: rules.to_vec() }.check("eth1", service)
    }

    #[test]
    fn packets_on_queues_without_a_worker_are_noticed() {
        let all: Vec<u32> = (0..128).map(|n| n % 8).collect();
        let four: Vec<u32> = (0..128).map(|n| n % 4).collect();
        let v4 = |queue| rule(1, true, Target::Queue(queue));
        let v6 = |queue| rule(2, false, Target::Queue(queue));
        type Case<'c> = (&'c str, Option<&'c [u32]>, Vec<UdpRule>, &'c [u16], Answer, &'c str);
        let cases: [Case<'_>; 11] = [
            ("the table fits", Some(&four), vec![], &[0, 1, 2, 3], Answer::Open, "0-3, all served"),
            ("it is too wide", Some(&all), vec![], &[0, 1, 2, 3], Answer::Closed, "serves 4-7"),
            ("rules win over it", Some(&all), vec![v4(2), v6(3)], &[2, 3], Answer::Open, "to queues 2-3"),
            ("only one family has one", Some(&all), vec![v4(2)], &[2], Answer::Closed, "serves 0-1,3-7"),
            (
                "a rule goes astray",
                Some(&four),
                vec![v4(5), v6(0)],
                &[0, 1, 2, 3],
                Answer::Closed,
                "to queue 5",
            ),
            (
                "a rule drops",
                None,
                vec![rule(9, false, Target::Dropped)],
                &[0],
                Answer::Closed,
                "rule 9 sends",
            ),
            (
                "a context may spread",
                Some(&four),
                vec![rule(9, true, Target::Elsewhere)],
                &[0, 1, 2, 3],
                Answer::Open,
                "RSS",
            ),
            (
                "another port's rule",
                Some(&four),
                vec![UdpRule { port: 53, ..v4(7) }],
                &[0, 1, 2, 3],
                Answer::Open,
                "RSS",
            ),
            (
                "one peer's rule",
                Some(&all),
                vec![UdpRule { any_peer: false, ..v4(0) }, v6(0)],
                &[0],
                Answer::Closed,
                "RSS",
            ),
            ("no table told", None, vec![], &[1, 2], Answer::Closed, "queues 0,3-7"),
            ("no table, all served", None, vec![], &[0, 1, 2, 3, 4, 5, 6, 7], Answer::Open, "every queue"),
        ];
        for (what, rss, rules, queues, answer, part) in cases {
            let check = check(rss, &rules, &serving(queues));
            assert!(check.answer == answer && check.found.contains(part), "{what}: {check:?}");
            assert_eq!(check.remedy.is_some(), answer == Answer::Closed, "{what}");
        }
        assert_eq!(
            check(Some(&all), &[], &Service::default()).answer,
            Answer::Open,
            "all queues by default"
        );
    }

    #[test]
    fn the_remedy_fits_the_queues() {
        let all: Vec<u32> = (0..8).collect();
        let remedy = |queues: &[u16]| check(Some(&all), &[], &serving(queues)).remedy.unwrap();
        assert!(remedy(&[0, 1]).starts_with("ethtool -X eth1 equal 2 "));
        assert!(remedy(&[4, 5]).contains("flow-type udp6 dst-port 7777 action 4"));
        let rules = [rule(7, true, Target::Queue(6))];
        let check = check(Some(&all), &rules, &serving(&[0]));
        assert_eq!(check.remedy.as_deref(), Some("ethtool -N eth1 delete 7"));
    }

    #[test]
    fn a_range_of_ports_is_covered_by_masks_or_not_at_all() {
        let masked = |ipv4| UdpRule { port: 7776, port_mask: 0xfffc, ..rule(1, ipv4, Target::Queue(0)) };
        let service = Service { ports: 7776..=7779, ..serving(&[0]) };
        let open = check(Some(&[0, 1]), &[masked(true), masked(false)], &service);
        assert_eq!(open.answer, Answer::Open, "{open:?}");
        let wider = Service { ports: 7776..=7780, ..service };
        assert_eq!(check(Some(&[0, 1]), &[masked(true), masked(false)], &wider).answer, Answer::Closed);
    }
}
