//! The XDP side of Volley, seen from user space: loads the steering program, keeps its rules, hands it sockets.
//!
//! ```text
//!            attach                 claim                bind_socket
//! program ──────────► interface  ◄───────── rules     ◄───────────── AF_XDP sockets
//!    │   by bpf_link                 one writer, all owners' rules at once
//!    ├── held by this process: gone with it, however it ends
//!    └── pinned by `volley load`: stays for any number of processes, until `volley unload`
//! ```
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | [`steering`] | an attached program: rules, sockets, counters | choose rules |
//! | [`attach`] | gets one: the pinned program, or loads and attaches | pin |
//! | [`load`] | pins, upgrades and removes on purpose | leave half of it |
//! | [`mod@inspect`] | what runs on an interface, for any process | change anything |
//! | [`rule`], `table` | rules, and the table they expand to | |
//! | [`owner`] | whose rules: locks and records under /run/volley | trust a record without its lock |
//! | [`foreign`] | who else is on the interface, and taking it over | act unasked |
//! | `mapped` | the rules map, written in place | write the half that programs read |
//! | `link`, `pin`, `program`, `maps`, `rtnl`, `sys` | one kernel object each | decide |
//! | [`netns`] | entering a network namespace, and only that | |
//! | [`blast`] | the in-kernel traffic generator | check the answers' bytes |
//! | [`cost`] | what steering costs, per packet | move packets |
//! | [`object`] | the embedded eBPF object | |
//!
//! Attaching needs CAP_NET_ADMIN and CAP_BPF. CAP_SYS_ADMIN adds: naming foreign programs, taking over those
//! attached by link, mounting the BPF file system, entering namespaces.
#![cfg(target_os = "linux")]

pub mod attach;
pub mod blast;
pub mod cost;
pub mod foreign;
pub mod inspect;
mod interface;
mod link;
pub mod load;
mod lock;
mod mapped;
mod maps;
pub mod netns;
pub mod object;
pub mod owner;
mod pin;
mod privilege;
mod program;
mod rtnl;
pub mod rule;
pub mod steering;
mod sys;
mod table;

pub use attach::{AttachError, AttachOptions};
pub use foreign::{Foreign, Takeover};
pub use inspect::{Inspection, inspect};
pub use interface::{Interface, NoInterface};
pub use link::{AttachMode, Mode};
pub use owner::{Owner, OwnerError};
pub use pin::PinError;
pub use privilege::Capability;
pub use program::LoadError;
pub use rule::{Action, Prefix, Protocol, Rule, SynLimit, Unbound};
pub use steering::{Info, RuleError, SocketError, Steering};
pub use table::{TableError, build as rule_table};
pub use volley_steer::abi::{ABI_VERSION, Counter, Counters};
