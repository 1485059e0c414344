//! Where a worker runs and where its memory lies.
//!
//! A worker's thread is pinned first and opens its ports afterwards: its rings, UMEM and tables are then touched
//! first on the core that will use them, and the kernel takes their pages from that core's NUMA node.

use std::io;

/// Pins the calling thread to `core` and makes its memory come from that core's NUMA node, whatever policy the process was
/// started with (`numactl`).
///
/// # Errors
/// When the process may not run on `core` (it does not exist, or a cpuset excludes it).
#[cfg(target_os = "linux")]
pub fn pin(core: usize) -> io::Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    local_memory();
    Ok(())
}

/// Lets the calling thread run wherever the process could when it started: for threads that a pinned worker starts.
#[cfg(target_os = "linux")]
pub fn unpin() {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;
    let mut set = CpuSet::new();
    for core in 0..CpuSet::count() {
        // Cores beyond the machine's are ignored by the kernel, cores outside the cpuset too.
        let _ = set.set(core);
    }
    // Failing leaves the helper on its worker's core: slower, not wrong.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

/// The cores this process may run on, in rising order; at least one.
#[cfg(target_os = "linux")]
pub fn allowed() -> Vec<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cores: Vec<usize> =
        (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// MPOL_LOCAL: pages from the node of the core that touches them first.
#[cfg(target_os = "linux")]
fn local_memory() {
    const MPOL_LOCAL: libc::c_long = 4;
    // SAFETY: set_mempolicy(2) with MPOL_LOCAL takes an empty node mask; it reads no memory of ours.
    let done =
        unsafe { libc::syscall(libc::SYS_set_mempolicy, MPOL_LOCAL, std::ptr::null::<libc::c_ulong>(), 0) };
    if done != 0 {
        // ENOSYS: a kernel without NUMA, where all memory is local.
        log::debug!("set_mempolicy(MPOL_LOCAL): {}", io::Error::last_os_error());
    }
}

/// Threads cannot be pinned here.
///
/// # Errors
/// Always: [`io::ErrorKind::Unsupported`].
#[cfg(not(target_os = "linux"))]
pub fn pin(_core: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing to undo here.
#[cfg(not(target_os = "linux"))]
pub fn unpin() {}

/// As many cores as there are.
#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_one_core_and_an_unpinned_one_all() {
        let all = allowed();
        std::thread::spawn(move || {
            let core = *all.last().unwrap();
            pin(core).unwrap();
            assert_eq!(allowed(), [core]);
            unpin();
            assert_eq!(allowed(), all);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        std::thread::spawn(|| assert!(pin(1_000).is_err())).join().unwrap();
    }
}
