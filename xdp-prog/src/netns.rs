//! Entering a network namespace, and only that.
//!
//! `ip netns exec` also mounts a private /sys, in which pins vanish with the command; here the mount namespace
//! stays, so /sys/fs/bpf and /run/volley are the machine's.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// Where `ip netns add` puts its names.
const NAMED: &str = "/run/netns";

/// Why a network namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is none of that name.
    #[error("there is no network namespace {name} ({}): `ip netns` lists those there are", path.display())]
    Missing {
        /// The name asked for.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("network namespace {name} cannot be entered: {source}; it takes CAP_SYS_ADMIN (run as root)")]
    Refused {
        /// The name asked for.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Moves the calling thread into the network namespace `name` (of `ip netns`, or a path such as
/// `/proc/812/ns/net`). Threads it starts later are there too, others are not: call it before starting any.
///
/// # Errors
/// [`NetnsError`].
pub fn enter(name: &str) -> Result<(), NetnsError> {
    let path = if name.contains('/') { PathBuf::from(name) } else { Path::new(NAMED).join(name) };
    let file = File::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => NetnsError::Missing { name: name.to_owned(), path: path.clone() },
        _ => NetnsError::Refused { name: name.to_owned(), source },
    })?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetnsError::Refused { name: name.to_owned(), source: errno.into() })
}
