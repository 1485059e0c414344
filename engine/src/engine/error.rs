//! Why an engine did not start.

use crate::datagram::SocketError;
use crate::stream::StreamOpenError;

/// Why an engine did not start. Each message names the thing and the remedy; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A queue was named that the interface does not have.
    #[error(
        "there is no queue {queue}: the interface has {available} (0 to {}); choose among them with --queues, or make \
         more with `ethtool -L`",
        available.saturating_sub(1)
    )]
    NoQueue {
        /// The queue asked for.
        queue: u16,
        /// How many there are.
        available: u32,
    },
    /// An empty set of queues.
    #[error("no queue to serve: name at least one with --queues")]
    NoQueues,
    /// A core was named that this process may not use.
    #[error(
        "core {core} cannot be used: this process may run on {allowed}; choose among them with --cores"
    )]
    NoCore {
        /// The core asked for.
        core: usize,
        /// The ones there are.
        allowed: String,
    },
    /// Zero workers.
    #[error("at least one worker is needed: leave --workers away, or give it a number above 0")]
    NoWorkers,
    /// A worker without a queue would have nothing to do.
    #[error(
        "{workers} workers for {queues} queues: each worker needs a queue of its own; lower --workers or raise the \
         queues with `ethtool -L`"
    )]
    TooManyWorkers {
        /// Workers asked for.
        workers: usize,
        /// Queues to serve.
        queues: usize,
    },
    /// More addresses than a rule holds.
    #[error("{given} addresses, but a rule holds {most}: name fewer, or none to serve all")]
    TooManyAddresses {
        /// How many were given.
        given: usize,
        /// How many a rule holds.
        most: usize,
    },
    /// A kernel socket could not be opened: the port is in use, say.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// TCP could not be opened: the port is in use, say, or descriptors are short.
    #[error(transparent)]
    Stream(#[from] StreamOpenError),
    /// Our own TCP needs frames.
    #[error("our own TCP needs a frame port, and {io} is none: take --tcp-io epoll, or --io af-xdp")]
    OwnTcp {
        /// What carries the packets.
        io: &'static str,
    },
    /// The kernel is not behind a device that is the engine's as a whole.
    #[error("the kernel's TCP does not see packets of a DPDK device: take --tcp-io own")]
    KernelTcp,
    /// AF_XDP was required and cannot be had.
    #[error("XDP is required, but {why}")]
    XdpRequired {
        /// Why not.
        why: String,
    },
    /// The interface's queues cannot be bound.
    #[error("{why}")]
    Bind {
        /// What the kernel said.
        why: String,
    },
    /// The XDP side is misconfigured: falling back would hide it.
    #[error("{0}")]
    Xdp(String),
    /// DPDK was asked for, without saying which devices.
    #[error(
        "--io dpdk needs a device: --pci 0000:01:00.0 (`volley doctor --dpdk` lists them), or --vdev, as in --vdev \
         net_memif0,role=server,socket=/run/volley.memif"
    )]
    NoDevice,
    /// Queues of a polled device, not from the first on: one left out would be emptied by nobody.
    #[error(
        "queue {queue} of fewer: with DPDK, name queues from 0 on with --queues and leave none out, as in 0-3"
    )]
    QueueGap {
        /// The first that lies beyond the count.
        queue: u16,
    },
    /// This program was built without DPDK.
    #[error(
        "this volley was built without DPDK: build it with `cargo build --release -p volley --features dpdk`"
    )]
    NoDpdk,
    /// DPDK or a device of its does not start.
    #[error("{0}")]
    Dpdk(String),
    /// The start was given up, as asked; nothing is left of it.
    #[error("{why}")]
    GivenUp {
        /// By whom and meanwhile what.
        why: String,
    },
    /// A thread could not be started, pinned or given its descriptors.
    #[error("worker {worker}: {what}: {source}")]
    Thread {
        /// The worker.
        worker: u16,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Opening or closing a worker's ports panicked: a bug of ours.
    #[error("worker {worker} panicked outside its app ({message}): this is a bug, please report it")]
    Panicked {
        /// The worker.
        worker: u16,
        /// What the panic said.
        message: String,
    },
}
