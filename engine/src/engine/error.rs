//! Why an engine did not start.

use crate::datagram::SocketError;

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
    /// AF_XDP was required and cannot be had.
    #[error("XDP is required, but {why}")]
    XdpRequired {
        /// Why not.
        why: String,
    },
    /// The XDP side is misconfigured: falling back would hide it.
    #[error("{0}")]
    Xdp(String),
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
