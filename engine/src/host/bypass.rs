//! What steered packets never meet: XDP takes them before firewalls, tc and packet sockets see them.
//!
//! Nothing here is broken; it is what an operator has to know before game traffic goes another way.

use super::check::Check;
use super::netlink;
use super::process::holder_of_socket;
use super::tree::Tree;
use std::io;

/// Firewall tables, tc at the interface's ingress, packet sockets.
pub fn checks(tree: &Tree, interface: Option<&str>) -> Vec<Check> {
    let index = interface.and_then(|name| {
        netlink::interfaces().ok()?.into_iter().find(|found| found.name == name).map(|found| found.index)
    });
    let mut checks = vec![firewall(tree, netlink::nft_tables())];
    if let (Some(name), Some(index)) = (interface, index) {
        checks.push(tc(name, netlink::qdiscs(index)));
    }
    checks.push(captures(tree, index));
    checks
}

fn firewall(tree: &Tree, nft: io::Result<Vec<String>>) -> Check {
    const NAME: &str = "firewall";
    let (mut tables, failed) = match nft {
        Ok(tables) => (tables.iter().map(|table| format!("nft {table}")).collect::<Vec<_>>(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    for (file, command) in [("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables")] {
        let names = tree.text(&format!("proc/thread-self/net/{file}")).unwrap_or_default();
        tables.extend(names.split_whitespace().map(|table| format!("{command} {table}")));
    }
    match (&tables[..], failed) {
        ([], Some(error)) => {
            Check::unknown(NAME, format!("nftables cannot be listed: {error}"), "as root: nft list ruleset")
        }
        ([], None) => Check::open(NAME, "no tables"),
        (some, _) => Check::closed(
            NAME,
            format!("{}: steered packets never meet these", some.join(", ")),
            "let the steering rules say what must hold for them too (nft list ruleset, iptables-save show it)",
        ),
    }
}

fn tc(name: &str, qdiscs: io::Result<Vec<String>>) -> Check {
    const NAME: &str = "tc ingress";
    match qdiscs {
        Err(error) => {
            Check::unknown(NAME, format!("cannot be listed: {error}"), format!("tc qdisc show dev {name}"))
        }
        Ok(kinds) => match kinds.iter().find(|kind| matches!(&kind[..], "clsact" | "ingress")) {
            None => Check::open(NAME, "nothing there"),
            Some(kind) => Check::closed(
                NAME,
                format!("{kind}: steered packets never meet its filters"),
                format!("look whether they matter: tc filter show dev {name} ingress"),
            ),
        },
    }
}

/// The packet sockets of all interfaces or of interface `index`, as /proc/net/packet lists them.
fn captures(tree: &Tree, index: Option<u32>) -> Check {
    const NAME: &str = "captures";
    let Some(table) = tree.text("proc/thread-self/net/packet") else {
        return Check::unknown(NAME, "/proc/net/packet cannot be read", "ss --packet --processes");
    };
    let socket = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let bound: u32 = fields.get(4)?.parse().ok()?;
        let ours = bound == 0 || index.is_none_or(|index| index == bound);
        let holder = holder_of_socket(tree, fields.get(8)?.parse().ok()?);
        ours.then(|| {
            holder.map_or_else(|| "a process out of sight".to_owned(), |holder| holder.to_string())
        })
    };
    let mut holders: Vec<_> = table.lines().skip(1).filter_map(socket).collect();
    holders.sort();
    holders.dedup();
    match &holders[..] {
        [] => Check::open(NAME, "no packet sockets"),
        some => Check::closed(
            NAME,
            format!("{}: steered packets are invisible to them", some.join(", ")),
            "capture at the other end of the wire or on a mirror port",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::tree::recorded;
    use super::*;

    #[test]
    fn tables_of_every_firewall_are_named() {
        let (_dir, tree) = recorded(&[("proc/thread-self/net/ip_tables_names", "filter\nnat\n")]);
        let check = firewall(&tree, Ok(vec!["inet fw4".to_owned()]));
        assert_eq!((check.answer, check.needed), (Answer::Closed, false));
        assert!(check.found.starts_with("nft inet fw4, iptables filter, iptables nat:"), "{}", check.found);
        let (_dir, tree) = recorded(&[]);
        assert_eq!(firewall(&tree, Ok(Vec::new())).answer, Answer::Open);
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(firewall(&tree, Err(refused)).answer, Answer::Unknown);
    }

    #[test]
    fn filters_at_ingress_are_noticed() {
        assert_eq!(tc("eth0", Ok(vec!["noqueue".to_owned()])).answer, Answer::Open);
        let check = tc("eth0", Ok(vec!["fq".to_owned(), "clsact".to_owned()]));
        assert!(check.answer == Answer::Closed && check.remedy.unwrap().contains("dev eth0"));
    }

    #[test]
    fn packet_sockets_are_told_by_process_and_interface() {
        let table = "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n\
            0000000000000000 3      3    0003   2     1 0      0      4711\n\
            0000000000000000 3      3    0003   0     1 0      0      4712\n\
            0000000000000000 3      3    0003   9     1 0      0      4713\n";
        let (dir, tree) = recorded(&[
            ("proc/thread-self/net/packet", table),
            ("proc/812/comm", "tcpdump"),
            ("proc/812/fd/x", ""),
        ]);
        std::os::unix::fs::symlink("socket:[4711]", dir.path().join("proc/812/fd/3")).unwrap();
        let check = captures(&tree, Some(2));
        assert_eq!(check.answer, Answer::Closed);
        assert!(check.found.starts_with("a process out of sight, tcpdump (pid 812):"), "{}", check.found);
        assert!(!captures(&tree, Some(5)).found.contains("tcpdump"));
        let (_dir, tree) = recorded(&[("proc/thread-self/net/packet", "sk  RefCnt Type\n")]);
        assert_eq!(captures(&tree, None).answer, Answer::Open);
        assert_eq!(captures(&recorded(&[]).1, None).answer, Answer::Unknown);
    }
}
