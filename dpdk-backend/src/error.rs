//! Why not, and what to do about it.

use std::ffi::CStr;
use std::fmt;
use volley_dpdk_sys as sys;

/// Why DPDK or a device of its could not be used. Each message names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EAL runs, or ran, in this process.
    #[error(
        "DPDK has been started in this process before, and it starts only once: use a process of its own"
    )]
    Twice,
    /// There are no free huge pages.
    #[error(
        "no free huge pages ({found}): reserve some (`sysctl vm.nr_hugepages=256`), or use --no-huge, which is slower and \
         good for virtual devices only"
    )]
    NoHugePages {
        /// What there is.
        found: String,
    },
    /// The file prefix is another process's.
    #[error(
        "another DPDK process uses the file prefix {prefix:?}: choose another with --file-prefix, or leave it away"
    )]
    PrefixInUse {
        /// The prefix.
        prefix: String,
    },
    /// EAL refused its arguments or this machine.
    #[error("DPDK does not start ({errno}): {said}")]
    Refused {
        /// rte_errno.
        errno: Errno,
        /// The message that says most.
        said: String,
    },
    /// There is no such PCI device.
    #[error("no PCI device {address}: network devices here are {present}")]
    NoPciDevice {
        /// The address asked for.
        address: String,
        /// Those there are.
        present: String,
    },
    /// Not an address.
    #[error("{address:?} is no PCI address: write it as `lspci -D` does, 0000:01:00.0")]
    NotAnAddress {
        /// What was given.
        address: String,
    },
    /// The device is bound to a driver of the kernel, or to none.
    #[error(
        "{address} is bound to {driver}, which DPDK cannot use: `modprobe vfio-pci; dpdk-devbind.py --bind=vfio-pci {address}` \
         takes it from the kernel (its interface vanishes), `--bind={back}` gives it back"
    )]
    NotBound {
        /// The device.
        address: String,
        /// Its driver, or "no driver".
        driver: String,
        /// What to bind it to afterwards.
        back: String,
    },
    /// Another process has the device.
    #[error(
        "{device} is in use by another process: stop that one (`fuser -v {node}` names it), or choose another device"
    )]
    Busy {
        /// The device.
        device: String,
        /// The file that says so.
        node: String,
    },
    /// No driver made a port of the device.
    #[error("{device} is no port ({errno}): {said}")]
    NoPort {
        /// The device, as it was given.
        device: String,
        /// rte_errno.
        errno: Errno,
        /// The message that says most.
        said: String,
    },
    /// A memif device's socket.
    #[error(
        "{device}: the socket {path}: {errno}: is another process listening there (`ss -xlp`)? Stop that one, or choose another with \
         socket=PATH,socket-abstract=no"
    )]
    Socket {
        /// The device.
        device: String,
        /// The socket's name.
        path: String,
        /// What the system says.
        errno: Errno,
    },
    /// The start was given up, as asked.
    #[error("given up, as asked, while {doing}")]
    GivenUp {
        /// What was going on.
        doing: String,
    },
    /// A setting the device cannot have.
    #[error("{port}: {what}; {remedy}")]
    Setting {
        /// The port.
        port: String,
        /// What is too much or too little.
        what: String,
        /// What would do.
        remedy: String,
    },
    /// No memory for a pool.
    #[error(
        "{port}: no memory for {mbufs} mbufs of {bytes} bytes on NUMA node {node} ({errno}): use fewer (--frames), reserve more huge \
         pages (`sysctl vm.nr_hugepages`), or with --no-huge give more (--memory MIB)"
    )]
    NoMemory {
        /// The port the pool is for.
        port: String,
        /// How many were wanted.
        mbufs: u32,
        /// Bytes of each.
        bytes: u32,
        /// Where.
        node: i32,
        /// rte_errno.
        errno: Errno,
    },
    /// A thread could not be registered with EAL.
    #[error("a thread cannot be registered with DPDK ({errno}): more than 127 workers in one process?")]
    Thread {
        /// rte_errno.
        errno: Errno,
    },
    /// The queue is taken, or does not exist.
    #[error("{port}: queue {queue} is in use already, or there is none")]
    NoQueue {
        /// The port.
        port: String,
        /// The queue.
        queue: u16,
    },
    /// Anything else.
    #[error("{port}: {doing}: {errno}{said}")]
    Port {
        /// The port.
        port: String,
        /// What was tried.
        doing: &'static str,
        /// rte_errno.
        errno: Errno,
        /// What the driver said, in brackets, or nothing.
        said: String,
    },
}

impl Error {
    /// For a port's call that returned `code`.
    pub(crate) fn of(port: &str, doing: &'static str, code: i32) -> Error {
        let said = match explain() {
            text if text.is_empty() => text,
            text => format!(" ({text})"),
        };
        Error::Port { port: port.to_owned(), doing, errno: Errno(code), said }
    }
}

/// A number of rte_errno, with its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(
    /// The number; negative when a call returned it so.
    pub i32,
);

impl Errno {
    /// rte_errno of the calling thread.
    pub(crate) fn last() -> Errno {
        // SAFETY: reads a thread-local.
        Errno(unsafe { sys::volley_errno() })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == -1 {
            // What many drivers return for whatever went wrong; as a number it would be EPERM.
            return f.write_str("its driver refuses");
        }
        // SAFETY: rte_strerror returns a string, in a thread-local buffer.
        let text = unsafe { CStr::from_ptr(sys::rte_strerror(self.0.abs())) };
        f.write_str(&text.to_string_lossy())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self})", self.0)
    }
}

/// What EAL adds to every device that is not to be had.
const PASSED_ON: [&str; 3] = ["Driver cannot attach", "Failed to attach device", "Invalid 'command line'"];

/// The message among the last ones that says most: the first that names a failure, since later ones only pass it on. Empty
/// when nothing was said.
pub(crate) fn explain() -> String {
    let all = crate::logs::last();
    let own = all.iter().filter(|line| !PASSED_ON.iter().any(|text| line.contains(text)));
    let last: Vec<String> = own.cloned().collect();
    let last = if last.is_empty() { all } else { last };
    let failed = |line: &&String| {
        let lower = line.to_lowercase();
        ["fail", "cannot", "error", "invalid", "not ", "no "].iter().any(|word| lower.contains(word))
    };
    last.iter().find(failed).or(last.last()).cloned().unwrap_or_default()
}
