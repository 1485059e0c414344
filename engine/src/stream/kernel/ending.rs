//! How a connection ends: the reset we send, and what the kernel's error means.

use crate::stream::CloseReason;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::OwnedFd;

/// Makes the close that follows a reset (RFC 9293 ABORT). On failure it is an orderly one.
pub(super) fn reset(fd: &OwnedFd) {
    let _ = setsockopt(fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Why a connection is of no more use when a call on it fails so.
pub(super) fn reason(errno: Errno) -> CloseReason {
    match errno {
        Errno::ECONNRESET | Errno::EPIPE => CloseReason::Reset,
        Errno::ECONNREFUSED => CloseReason::Refused,
        Errno::ETIMEDOUT => CloseReason::TimedOut,
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN => CloseReason::Unreachable,
        Errno::ENOMEM | Errno::ENOBUFS => CloseReason::NoMemory,
        _ => CloseReason::Failed,
    }
}
