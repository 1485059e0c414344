//! What the connections cost: kernel memory of the machine, user memory and descriptors of the processes.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// The machine's kernel memory at a moment, in bytes unless said otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kernel {
    /// All slab caches (/proc/meminfo).
    pub slab: u64,
    /// Socket buffers of TCP (/proc/net/sockstat, `mem`).
    pub tcp_buffers: u64,
    /// TCP sockets in use in this network namespace.
    pub tcp_sockets: u64,
    /// What programs could still have (/proc/meminfo, MemAvailable).
    pub available: u64,
    /// Live objects of each slab cache; empty without the privilege to read it.
    #[serde(skip)]
    caches: BTreeMap<String, u64>,
}

/// The number behind `name` in a text of names and numbers.
fn number(text: &str, name: &str) -> u64 {
    let mut words = text.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

impl Kernel {
    /// Looks.
    pub fn now() -> Kernel {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (meminfo, sockstat) = (read("/proc/meminfo"), read("/proc/thread-self/net/sockstat"));
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        Kernel {
            slab: number(&meminfo, "Slab:") << 10,
            tcp_buffers: number(tcp, "mem") * page as u64,
            tcp_sockets: number(tcp, "inuse"),
            available: number(&meminfo, "MemAvailable:") << 10,
            caches: caches(&read("/proc/slabinfo")),
        }
    }

    /// The slab caches that have grown most since `before`, by bytes of live objects.
    pub fn grown(&self, before: &Kernel, most: usize) -> Vec<(String, u64)> {
        let grown = |(name, bytes): (&String, &u64)| {
            let more = bytes.saturating_sub(before.caches.get(name).copied().unwrap_or(0));
            (name.clone(), more)
        };
        let mut grown: Vec<_> = self.caches.iter().map(grown).collect();
        grown.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        grown.truncate(most);
        grown
    }
}

/// Bytes of live objects of each cache in /proc/slabinfo.
fn caches(slabinfo: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let active: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        Some((name.to_owned(), active * size))
    };
    slabinfo.lines().filter_map(line).collect()
}

/// Some processes at a moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Processes {
    /// Proportional set size, all together, in bytes.
    pub pss: u64,
    /// Resident set size, all together, in bytes.
    pub rss: u64,
    /// Open descriptors, all together.
    pub descriptors: u64,
    /// Open descriptors of the one that has the most.
    pub most_descriptors: u64,
}

impl Processes {
    /// Looks.
    pub fn now(pids: impl IntoIterator<Item = u32>) -> Processes {
        let mut all = Processes::default();
        for pid in pids {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64);
            all.pss += number(&rollup, "Pss:") << 10;
            all.rss += number(&rollup, "Rss:") << 10;
            all.descriptors += descriptors;
            all.most_descriptors = all.most_descriptors.max(descriptors);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\nTCP 100 120 2368 13 8\nsock 3 4 10 1 1\n";
        let caches = caches(text);
        assert_eq!(caches.get("TCP"), Some(&236_800));
        assert_eq!((caches.get("sock"), caches.len()), (Some(&30), 2));
        let before = Kernel::default();
        let after = Kernel { caches, ..Kernel::default() };
        assert_eq!(after.grown(&before, 1), [("TCP".to_owned(), 236_800)]);
        assert_eq!(number("TCP: inuse 7 orphan 0 tw 0 alloc 9 mem 3", "mem"), 3);
        assert_eq!(number("", "mem"), 0);
        let here = Kernel::now();
        assert!(here.slab > 0 && here.available > 0);
        let me = Processes::now([std::process::id()]);
        assert!(
            me.pss > 0 && me.rss >= me.pss && me.descriptors == me.most_descriptors && me.descriptors > 2
        );
    }
}
