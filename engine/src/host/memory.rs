//! Huge pages.

use super::check::Check;
use super::tree::Tree;

/// 2 MiB pages that one worker's UMEM takes: 4,096 frames of 2 KiB, and a page to spare.
const PAGES_A_WORKER: u64 = 5;

/// Free 2 MiB pages, 1 GiB pages, and where they are.
pub fn checks(tree: &Tree) -> Vec<Check> {
    const NAME: &str = "huge pages";
    let pool = |place: &str, kib: u64, what: &str| {
        tree.number(&format!("{place}/hugepages/hugepages-{kib}kB/{what}_hugepages"))
    };
    let machine = |kib, what| pool("sys/kernel/mm", kib, what);
    let Some(total) = machine(2048, "nr") else {
        let found = "the kernel offers none of 2 MiB: plain pages are used";
        return vec![Check::closed(NAME, found, "boot a kernel with CONFIG_HUGETLBFS")];
    };
    let free = machine(2048, "free").unwrap_or(0);
    let nodes = tree.names("sys/devices/system/node");
    let nodes: Vec<_> = nodes.iter().filter(|name| is_node(name)).collect();
    let mut found = format!("{free} of {total} of 2 MiB free");
    if nodes.len() > 1 {
        let free_on =
            |node: &&String| pool(&format!("sys/devices/system/node/{node}"), 2048, "free").unwrap_or(0);
        let list: Vec<_> = nodes.iter().map(|node| format!("{node}: {}", free_on(node))).collect();
        found += &format!(" ({})", list.join(", "));
    }
    if let Some(giant) = machine(1_048_576, "nr").filter(|n| *n > 0) {
        found += &format!(", {} of {giant} of 1 GiB free", machine(1_048_576, "free").unwrap_or(0));
    }
    vec![if free >= PAGES_A_WORKER {
        Check::open(NAME, found)
    } else {
        let wanted = total + PAGES_A_WORKER - free;
        let found = format!("{found}; a worker takes {PAGES_A_WORKER}, else plain pages are used");
        Check::closed(
            NAME,
            found,
            format!("sysctl vm.nr_hugepages={wanted}   # {PAGES_A_WORKER} more for each further worker"),
        )
    }]
}

fn is_node(name: &str) -> bool {
    name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::tree::recorded;
    use super::*;

    #[test]
    fn free_pages_are_counted_per_node() {
        let at = |place: &str, what| format!("sys/{place}/hugepages/hugepages-2048kB/{what}_hugepages");
        let (nr, free) = (at("kernel/mm", "nr"), at("kernel/mm", "free"));
        let (one, two) = (at("devices/system/node/node0", "free"), at("devices/system/node/node1", "free"));
        let (_dir, tree) = recorded(&[
            (&nr, "64\n"),
            (&free, "40\n"),
            (&one, "30"),
            (&two, "10"),
            ("sys/devices/system/node/online", "0-1"),
        ]);
        let check = &checks(&tree)[0];
        assert_eq!(check.answer, Answer::Open);
        assert_eq!(check.found, "40 of 64 of 2 MiB free (node0: 30, node1: 10)");

        let (_dir, tree) = recorded(&[(&nr, "64"), (&free, "2")]);
        let check = &checks(&tree)[0];
        assert_eq!((check.answer, check.needed), (Answer::Closed, false));
        assert!(check.remedy.as_ref().unwrap().starts_with("sysctl vm.nr_hugepages=67 "));
        assert_eq!(checks(&recorded(&[]).1)[0].answer, Answer::Closed);
    }
}
