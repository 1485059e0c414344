//! Cores: how many, which are isolated, which share a core's execution units.

use super::check::Check;
use super::tree::{Tree, numbers};

/// Count, isolation, siblings.
pub fn checks(tree: &Tree) -> Vec<Check> {
    let cpu = |file: &str| tree.text(&format!("sys/devices/system/cpu/{file}")).unwrap_or_default();
    let online = numbers(&cpu("online"));
    let siblings: Vec<String> = online
        .iter()
        .map(|n| cpu(&format!("cpu{n}/topology/thread_siblings_list")))
        .filter(|list| numbers(list).len() > 1)
        .collect();
    vec![count(&online), isolation(&online, &cpu("isolated"), &cpu("nohz_full")), smt(siblings)]
}

/// The NUMA node of a core; `None` on a machine without nodes.
pub fn node_of(tree: &Tree, core: usize) -> Option<u32> {
    let names = tree.names(&format!("sys/devices/system/cpu/cpu{core}"));
    names.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}

fn count(online: &[u32]) -> Check {
    const NAME: &str = "cores";
    match online.len() {
        0 => Check::unknown(NAME, "/sys/devices/system/cpu/online cannot be read", "nproc"),
        1 => Check::closed(
            NAME,
            "1: worker, kernel and everything else share it",
            "give the machine a second core",
        ),
        2 | 3 => Check::open(
            NAME,
            format!("{}: workers sleep when idle (spinning starts at four)", online.len()),
        ),
        many => Check::open(NAME, many.to_string()),
    }
}

fn isolation(online: &[u32], isolated: &str, nohz_full: &str) -> Check {
    const NAME: &str = "isolated cores";
    // A kernel without nohz_full prints "(null)".
    let nohz_full = if numbers(nohz_full).is_empty() { "none" } else { nohz_full };
    if numbers(isolated).is_empty() {
        let found = "none: the scheduler may put other work on a worker's core";
        // The upper half: core 0 is where interrupts and everything else start out.
        let upper: Vec<_> = online[online.len().div_ceil(2)..].iter().map(u32::to_string).collect();
        let list = upper.join(",");
        let remedy = match list.is_empty() {
            true => "give the machine a second core".to_owned(),
            false => {
                format!("on the kernel command line: isolcpus={list} nohz_full={list} rcu_nocbs={list}")
            }
        };
        return Check::closed(NAME, found, remedy);
    }
    Check::open(NAME, format!("{isolated} (without tick: {nohz_full})"))
}

fn smt(mut siblings: Vec<String>) -> Check {
    const NAME: &str = "smt siblings";
    siblings.sort();
    siblings.dedup();
    match &siblings[..] {
        [] => Check::open(NAME, "none"),
        pairs => {
            let found = format!("{}: two workers on one pair share its execution units", pairs.join(" "));
            Check::closed(
                NAME,
                found,
                "pin workers to one of each pair, or: echo off > /sys/devices/system/cpu/smt/control",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::tree::recorded;
    use super::*;

    #[test]
    fn a_tuned_and_an_untuned_machine() {
        let (_dir, tree) = recorded(&[
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/nohz_full", "2-3\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n"),
        ]);
        assert!(checks(&tree).iter().all(|check| check.answer == Answer::Open));
        let (_dir, tree) = recorded(&[
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            ("sys/devices/system/cpu/nohz_full", "  (null)\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n"),
        ]);
        let found = checks(&tree);
        assert_eq!([0, 1, 2].map(|n| found[n].answer), [Answer::Open, Answer::Closed, Answer::Closed]);
        assert!(found[1].remedy.as_ref().unwrap().contains("isolcpus=1 "));
        assert!(found[2].found.starts_with("0-1:") && found.iter().all(|check| !check.needed));
        assert_eq!(checks(&recorded(&[]).1)[0].answer, Answer::Unknown);
        let (_dir, tree) = recorded(&[("sys/devices/system/cpu/cpu5/node1/cpulist", "4-7")]);
        assert_eq!((node_of(&tree, 5), node_of(&tree, 6)), (Some(1), None));
    }
}
