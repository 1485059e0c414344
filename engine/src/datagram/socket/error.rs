//! Why kernel sockets could not be opened: errors that name who is in the way, or what to do.

use std::io;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
use crate::host::process::Holder;

/// Who holds a port; on this system, nobody that can be named.
#[cfg(not(target_os = "linux"))]
pub type Holder = std::convert::Infallible;

/// Why a kernel socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else has the port.
    #[error("UDP {address} is taken by {}: stop it, or choose another address or port", held_by(.holder))]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// Who has it, when we may see it.
        holder: Option<Holder>,
    },
    /// No interface has the address.
    #[error("UDP {address}: no interface here has that address (`ip address` lists them)")]
    NoSuchAddress {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A port below 1024 without the privilege.
    #[error("UDP {address}: ports below 1024 need CAP_NET_BIND_SERVICE: choose another, or run as root")]
    Privileged {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Any other failure.
    #[error("UDP {address}: {call}: {errno}")]
    Call {
        /// The address asked for.
        address: SocketAddr,
        /// The call, or the option that was set.
        call: &'static str,
        /// What it failed with.
        errno: io::Error,
    },
    /// No descriptor is left.
    #[error(
        "UDP {address}: this process may have no more than {limit} descriptors: raise the limit (`ulimit -n`, \
         LimitNOFILE=), or serve fewer ports and addresses"
    )]
    Descriptors {
        /// The address asked for.
        address: SocketAddr,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// A descriptor is too high for select's bit sets.
    #[error(
        "select cannot watch descriptor {descriptor}: its sets end at {limit}, whatever the limit of descriptors is; \
         choose --io poll or epoll"
    )]
    SelectLimit {
        /// The descriptor.
        descriptor: i32,
        /// FD_SETSIZE.
        limit: usize,
    },
    /// io_uring cannot be had.
    #[cfg(target_os = "linux")]
    #[error("{0}; choose --io mmsg")]
    IoUring(#[from] crate::uring::UringError),
    /// The polling facility of this system cannot be had.
    #[error("mio: {0}")]
    Mio(io::Error),
    /// No address was given.
    #[error("no UDP address to bind: give at least one")]
    NoAddress,
    /// The epoll descriptor cannot be made.
    #[error("epoll: {0}")]
    Epoll(io::Error),
    /// The kernel does not take the program that chooses among the sockets of several workers.
    #[error(
        "choosing among the sockets of UDP {address} by {by}: {errno}: leave it to the kernel (--spread hash)"
    )]
    Spread {
        /// The address.
        address: SocketAddr,
        /// What was to choose.
        by: &'static str,
        /// What it failed with.
        errno: io::Error,
    },
}

fn held_by(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "a process that this one may not see (`ss -ulpn` as root names it)".to_owned(),
    }
}

impl SocketError {
    /// For a socket that could not be made.
    pub(crate) fn of_socket(address: SocketAddr, errno: io::Error) -> SocketError {
        match errno.raw_os_error() {
            #[cfg(target_os = "linux")]
            Some(libc::EMFILE) => {
                use nix::sys::resource::{Resource, getrlimit};
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                SocketError::Descriptors { address, limit }
            }
            _ => SocketError::Call { address, call: "socket", errno },
        }
    }

    /// For a socket that could not be bound.
    pub(crate) fn of_bind(address: SocketAddr, errno: io::Error) -> SocketError {
        match errno.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse {
                address,
                #[cfg(target_os = "linux")]
                holder: super::holder::udp_holder(&crate::host::Tree::root(), address),
                #[cfg(not(target_os = "linux"))]
                holder: None,
            },
            io::ErrorKind::AddrNotAvailable => SocketError::NoSuchAddress { address },
            io::ErrorKind::PermissionDenied if address.port() < 1024 => SocketError::Privileged { address },
            _ => SocketError::Call { address, call: "bind", errno },
        }
    }
}
