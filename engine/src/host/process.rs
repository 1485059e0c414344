//! This process and others: capabilities, locked memory, who has which socket open.

use super::check::Check;
use super::tree::Tree;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::path::Path;

/// The least set, by bit number (linux/capability.h), and what each is for.
const CAPABILITIES: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "attaching XDP"),
    (39, "CAP_BPF", "loading BPF"),
    (13, "CAP_NET_RAW", "AF_XDP sockets"),
];
const CAP_IPC_LOCK: u32 = 14;
/// Stands in for CAP_BPF, as it did before Linux 5.8.
const CAP_SYS_ADMIN: u32 = 21;
/// Memory that one worker locks: 4,096 frames of 2 KiB and its rings come to some 9 MiB.
const LOCKED: u64 = 16 << 20;

/// Capabilities and locked memory.
pub fn checks(tree: &Tree) -> Vec<Check> {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    vec![capabilities(effective(tree)), memlock(effective(tree), limit)]
}

/// The calling thread's effective capabilities.
fn effective(tree: &Tree) -> Option<u64> {
    let status = tree.text("proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn capabilities(effective: Option<u64>) -> Check {
    const NAME: &str = "capabilities";
    let Some(effective) = effective else {
        return Check::unknown(NAME, "/proc/thread-self/status does not say", "capsh --print").needed();
    };
    let has = |bit: u32| effective >> bit & 1 == 1;
    let lacks = |(bit, ..): &&(u32, &str, &str)| !(has(*bit) || (*bit == 39 && has(CAP_SYS_ADMIN)));
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(lacks).map(|(_, name, what)| format!("{name} ({what})")).collect();
    if missing.is_empty() {
        return Check::open(NAME, "CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW").needed();
    }
    let remedy = "run as root, or: sudo setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock+ep $(command -v volley)";
    Check::closed(NAME, format!("missing: {}", missing.join(", ")), remedy).needed()
}

fn memlock(effective: Option<u64>, limit: u64) -> Check {
    const NAME: &str = "locked memory";
    if effective.is_some_and(|effective| effective >> CAP_IPC_LOCK & 1 == 1) {
        Check::open(NAME, "CAP_IPC_LOCK: no limit").needed()
    } else if limit == RLIM_INFINITY {
        Check::open(NAME, "no limit").needed()
    } else if limit >= LOCKED {
        Check::open(NAME, format!("limit {} MiB, one worker locks about 9", limit >> 20)).needed()
    } else {
        let found = format!("limit {} KiB without CAP_IPC_LOCK; one worker locks about 9 MiB", limit >> 10);
        Check::closed(NAME, found, "give it CAP_IPC_LOCK, or: ulimit -l unlimited").needed()
    }
}

/// A process that has something open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process identifier.
    pub pid: u32,
    /// Its name, as in /proc/PID/comm.
    pub name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The process that has the socket with this inode open; `None` also when it is not ours to see.
pub fn holder_of_socket(tree: &Tree, inode: u64) -> Option<Holder> {
    let socket = format!("socket:[{inode}]");
    processes(tree).find(|holder| {
        let files = format!("proc/{}/fd", holder.pid);
        let holds =
            |file: &String| tree.link(&tree.path(&files).join(file)).as_deref() == Some(Path::new(&socket));
        tree.names(&files).iter().any(holds)
    })
}

/// Every process in sight.
pub fn processes(tree: &Tree) -> impl Iterator<Item = Holder> {
    tree.names("proc").into_iter().filter_map(|pid| {
        let name = tree.text(&format!("proc/{pid}/comm"));
        Some(Holder { pid: pid.parse().ok()?, name: name? })
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::tree::recorded;
    use super::*;

    #[test]
    fn the_least_set_is_enough_and_each_of_it_is_missed() {
        let least: u64 = 1 << 12 | 1 << 13 | 1 << 39;
        assert_eq!(capabilities(Some(least)).answer, Answer::Open);
        assert_eq!(
            capabilities(Some(1 << 12 | 1 << 13 | 1 << 21)).answer,
            Answer::Open,
            "as before Linux 5.8"
        );
        for (bit, name, _) in CAPABILITIES {
            let check = capabilities(Some(least & !(1 << bit)));
            assert!(
                check.is_fatal() && check.found.contains(name) && check.remedy.unwrap().contains("setcap")
            );
        }
        assert_eq!(capabilities(None).answer, Answer::Unknown);
    }

    #[test]
    fn memory_is_locked_by_right_or_by_limit() {
        assert_eq!(memlock(Some(1 << 14), 0).answer, Answer::Open);
        assert_eq!(memlock(Some(0), RLIM_INFINITY).answer, Answer::Open);
        assert_eq!(memlock(Some(0), 64 << 20).answer, Answer::Open);
        assert!(memlock(Some(0), 8 << 20).is_fatal());
    }

    #[test]
    fn a_recorded_status_is_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000008000003000\n";
        let (_dir, tree) = recorded(&[("proc/thread-self/status", status)]);
        assert_eq!(effective(&tree), Some(1 << 39 | 1 << 12 | 1 << 13));
    }

    #[test]
    fn the_holder_of_a_socket_is_found() {
        let (dir, tree) =
            recorded(&[("proc/812/comm", "tcpdump\n"), ("proc/812/fd/x", ""), ("proc/irq/1", "")]);
        std::os::unix::fs::symlink("socket:[4711]", dir.path().join("proc/812/fd/3")).unwrap();
        assert_eq!(holder_of_socket(&tree, 4711).unwrap().to_string(), "tcpdump (pid 812)");
        assert_eq!(holder_of_socket(&tree, 4712), None);
    }
}
