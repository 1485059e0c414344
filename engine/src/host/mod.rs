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
//! | [`service`] | what an engine is going to do, for the checks to be held against |
//! | [`device`] | one interface: driver, XDP, zero-copy, queues, MTU, offloads |
//! | [`spread`], [`place`] | where it puts packets; where it sits and interrupts |
//! | [`arrivals`] | what a running NIC says it received, queue by queue |
//! | [`bypass`] | firewalls and captures that steered packets never meet |
//! | [`link`], [`ethtool`], [`ethnl`], [`netdev`], [`netlink`], [`probe`] | how the kernel is asked |

pub mod arrivals;
pub mod bypass;
pub mod check;
pub mod cores;
pub mod device;
pub mod ethnl;
pub mod ethtool;
pub mod kernel;
pub mod link;
pub mod memory;
pub mod netdev;
pub mod netlink;
pub mod place;
pub mod probe;
pub mod process;
pub mod service;
pub mod spread;
pub mod tree;

pub use check::{Answer, Check};
pub use service::Service;
pub use tree::Tree;

/// What an engine names when it starts, of all that is checked: what costs it packets or speed and that a command mends.
const AT_START: [&str; 6] = ["steering", "mtu", "offloads", "gro", "numa node", "interrupts"];

/// What is not as an engine that does `service` on `interface` should find it. The same checks as [`checks`]'s.
pub fn warnings(interface: &str, service: &Service) -> Vec<Check> {
    let mut checks = device::checks(&Tree::root(), interface, service);
    checks.retain(|check| check.answer == Answer::Closed && AT_START.contains(&check.name));
    checks
}

/// Everything about this machine, and about `interface` as seen from the calling thread's network namespace, for an engine that
/// does `service` there. The order is that in which one would mend things.
pub fn checks(interface: Option<&str>, service: &Service) -> Vec<Check> {
    let tree = Tree::root();
    let mut checks = kernel::checks(&tree, &probe::Probes::run());
    checks.extend(process::checks(&tree));
    checks.extend(memory::checks(&tree));
    checks.extend(cores::checks(&tree));
    if let Some(name) = interface {
        checks.extend(device::checks(&tree, name, service));
    }
    checks.extend(bypass::checks(&tree, interface));
    checks
}
