//! The network interface that is meant: name, index and the network namespace in which both are valid.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use nix::net::if_::{if_nameindex, if_nametoindex};

/// An interface of the calling thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name when it was looked up.
    pub name: String,
    /// The kernel's number for it, unique within its namespace.
    pub index: u32,
    /// Inode of the network namespace: the other half of what identifies it on this machine.
    pub netns: u64,
}

/// No such interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no interface {name} in this network namespace, which has {}: check the name, or choose another \
     namespace with --netns",
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
)]
pub struct NoInterface {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl Interface {
    /// The interface of that name in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NoInterface`], with the names that exist.
    pub fn find(name: &str) -> Result<Interface, NoInterface> {
        let Ok(index) = if_nametoindex(name) else {
            let known = if_nameindex().map(|all| {
                all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect()
            });
            return Err(NoInterface { name: name.to_owned(), known: known.unwrap_or_default() });
        };
        Ok(Interface { name: name.to_owned(), index, netns: netns_inode() })
    }

    /// `<inode of the network namespace>-<index>`: names this interface's directories under /sys/fs/bpf/volley
    /// and /run/volley. Interfaces of the same name in different namespaces do not meet there.
    pub fn key(&self) -> String {
        format!("{}-{}", self.netns, self.index)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Inode of the calling thread's network namespace. Other threads may be in another one.
fn netns_inode() -> u64 {
    // Without /proc there is no way to tell namespaces apart; then all share one key.
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |file| file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_a_key_and_a_wrong_name_lists_what_there_is() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!(lo.key(), format!("{}-{}", lo.netns, lo.index));
        assert_ne!(lo.netns, 0);
        let error = Interface::find("no-such-nic").unwrap_err();
        assert!(error.known.contains(&"lo".to_owned()));
        assert!(error.to_string().contains("no interface no-such-nic"), "{error}");
    }
}
