//! The machine around us: what it and its devices can do. Linux only; it asks and never changes anything.
//!
//! ```text
//!   Tree (/proc, /sys)   probes (bpf, AF_XDP)   ethtool, rtnetlink, netdev          what is
//!          └──────────────────────┴───────────────────────┘
//!                        judgements: pure                                          what it means
//!                                 ▼
//!            Vec<Check>  { name, Open | Closed | Unknown, found, remedy }          [`checks`]
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`check`] | an answer with what was found and the command that mends it |
//! | [`tree`] | /proc and /sys, or a recorded copy |
//! | [`kernel`] | version, options, BPF, BTF, AF_XDP |
//! | [`process`] | capabilities, locked memory, who has what open |
//! | [`memory`] | huge pages |
//! | [`cores`] | cores, isolation, siblings |
//! | [`device`] | one interface: driver, XDP, zero-copy, queues, MTU, offloads, NUMA, interrupts |
//! | [`bypass`] | firewalls and captures that steered packets never meet |
//! | [`link`], [`ethtool`], [`netdev`], [`netlink`], [`probe`] | how the kernel is asked |

pub mod bypass;
pub mod check;
pub mod cores;
pub mod device;
pub mod ethtool;
pub mod kernel;
pub mod link;
pub mod memory;
pub mod netdev;
pub mod netlink;
pub mod probe;
pub mod process;
pub mod tree;

pub use check::{Answer, Check};
pub use tree::Tree;

/// Everything about this machine, and about `interface` as seen from the calling thread's network namespace. The order is that
/// in which one would mend things.
pub fn checks(interface: Option<&str>) -> Vec<Check> {
    let tree = Tree::root();
    let mut checks = kernel::checks(&tree, &probe::Probes::run());
    checks.extend(process::checks(&tree));
    checks.extend(memory::checks(&tree));
    checks.extend(cores::checks(&tree));
    if let Some(name) = interface {
        checks.extend(device::checks(&tree, name));
    }
    checks.extend(bypass::checks(&tree, interface));
    checks
}
