//! Why an AF_XDP port could not be opened, and what to do about it.

use std::io;

/// Why an AF_XDP port could not be opened. Each message names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// A setting that cannot work.
    #[error("{setting} {value}: {remedy}")]
    Setting {
        /// Field of the configuration.
        setting: &'static str,
        /// What it was.
        value: u64,
        /// What would work.
        remedy: String,
    },
    /// No queue was given.
    #[error("no queue of {interface} to serve: choose at least one")]
    NoQueues {
        /// Interface.
        interface: String,
    },
    /// There is no such interface in this network namespace.
    #[error("interface {interface} does not exist here: choose one of {present}")]
    NoInterface {
        /// The name asked for.
        interface: String,
        /// The names there are.
        present: String,
    },
    /// The interface has fewer queues.
    #[error(
        "{interface} has no queue {queue}: it has {available} (0 to {}); choose one of them, or `ethtool -L {interface}`",
        available.saturating_sub(1)
    )]
    NoQueue {
        /// Interface.
        interface: String,
        /// Queue asked for.
        queue: u16,
        /// Queues it has.
        available: u32,
    },
    /// A packet does not fit in one chunk and the device cannot spread it over several.
    #[error(
        "{interface} has MTU {mtu}, but a {chunk}-byte chunk holds packets up to MTU {room} and the device does not \
         support multi-buffer XDP: lower the MTU (`ip link set {interface} mtu {room}`) or use larger chunks"
    )]
    MtuTooLarge {
        /// Interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of a chunk.
        chunk: u32,
        /// Largest MTU whose packets fit.
        room: u32,
    },
    /// A packet of this MTU needs more frames than a chain may have.
    #[error(
        "{interface} has MTU {mtu}: a packet may need {needed} chunks of {chunk} bytes, but at most {most} make a \
         chain: lower the MTU or use larger chunks"
    )]
    ChainTooLong {
        /// Interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of a chunk.
        chunk: u32,
        /// Frames a packet may need.
        needed: u32,
        /// Most frames of a chain.
        most: usize,
    },
    /// Zero-copy was required and the device does not offer it.
    #[error(
        "{interface} does not do zero-copy ({why}): use --zero-copy auto, or a driver that supports it"
    )]
    NoZeroCopy {
        /// Interface.
        interface: String,
        /// What the kernel said.
        why: String,
    },
    /// A queue is bound by another socket.
    #[error(
        "{interface} queue {queue} is bound by another AF_XDP socket (waited {waited_ms} ms): stop that process \
         (`ss --xdp` or `lsof | grep XDP` may name it), or choose other queues"
    )]
    QueueBusy {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u16,
        /// How long it was tried, in ms.
        waited_ms: u128,
    },
    /// Not enough rights.
    #[error(
        "{doing} is not permitted: run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_IPC_LOCK ({source})"
    )]
    NotPermitted {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has no AF_XDP, or one without what we need.
    #[error(
        "this kernel has no usable AF_XDP ({missing}): Linux 5.11 or later with CONFIG_XDP_SOCKETS is needed"
    )]
    Unsupported {
        /// What is missing.
        missing: &'static str,
    },
    /// The UMEM could not be had.
    #[error(
        "no memory for a UMEM of {bytes} bytes: use fewer frames, or raise the memory limit ({source})"
    )]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Any other refusal.
    #[error("{doing}: {source}")]
    Refused {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}
