//! DPDK, safely: a process's environment abstraction layer, mempools, mbufs as tokens, ports and their queues.
//!
//! ```text
//!   Eal ──probe──► Port ──start──► Device ──queues──► RxQueue ──receive──► Burst of Mbuf
//!    │               │ info          │ link, xstats     TxQueue ◄──send────── Burst of Mbuf
//!    └── Mempool ────┴───────────────┘                  Mempool ◄──put─────── Burst of Mbuf
//! ```
//!
//! | module | what it is | what it never does |
//! | --- | --- | --- |
//! | [`args`] | what EAL is told, typed | start anything |
//! | [`eal`] | EAL itself: once per process, cleaned up on drop; threads registered with it | pin a thread |
//! | [`mempool`], [`mbuf`] | buffers, one token each | look inside a packet |
//! | [`port`], [`info`] | a device before it runs: what it offers, how it is set up | decide |
//! | [`device`] | a running device: link, counters, rules | run a thread |
//! | [`queue`] | bursts in and out: one call each | allocate, lock, log |
//! | `memif`, `gate` | between a memif driver and its other end: lets it unmap when no worker reads | see a packet |
//! | [`flow`] | rules in the device | fall back: the caller does |
//! | [`error`] | why not, and what to do about it | print DPDK's own messages |
//! | `stale` | sockets of killed processes, in the way of a driver that listens | remove one that somebody has |
//! | `visitor` | ends the wait of a device that listens | end one that was not asked to end |
//! | [`pci`] | what sysfs says of a PCI device before DPDK is asked | change a binding |

pub mod args;
pub mod device;
pub mod eal;
pub mod error;
pub mod flow;
mod gate;
pub mod info;
mod logs;
pub mod mbuf;
mod memif;
pub mod mempool;
pub mod pci;
pub mod port;
pub mod queue;
mod stale;
mod visitor;

pub use args::{EalArgs, Memory};
pub use device::{Device, Link};
pub use eal::{Eal, Registered};
pub use error::Error;
pub use info::{Hash, Info, Offloads};
pub use mbuf::{BURST, Burst, Mbuf};
pub use mempool::Mempool;
pub use port::{Port, Setup};
pub use queue::{RxQueue, TxQueue};

/// The version of the library this program is linked with: "DPDK 22.11.11".
pub fn version() -> String {
    // SAFETY: rte_version returns a string that stays.
    let text = unsafe { std::ffi::CStr::from_ptr(volley_dpdk_sys::volley_version()) };
    text.to_string_lossy().into_owned()
}
