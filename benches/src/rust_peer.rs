//! The peers that are Rust: echoes on other AF_XDP crates, built from `benches/peers` with a lock file of their own.

use serde::Serialize;
use std::path::{Path, PathBuf};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RustPeer {
    /// Its package, and the program's name.
    pub name: &'static str,
    /// What it prints once it serves.
    pub ready: &'static str,
}

impl RustPeer {
    /// On the `xdp` crate.
    pub const XDP: RustPeer = RustPeer { name: "xdp-echo", ready: "xdp-echo: ready" };
    /// On the `xsk-rs` crate.
    pub const XSK_RS: RustPeer = RustPeer { name: "xsk-rs-echo", ready: "xsk-rs-echo: ready" };

    /// Where `benches/peers/build` puts it.
    pub fn program(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/release").join(self.name)
    }

    /// Why it cannot run here, and what to do about it.
    pub fn missing(self) -> Option<String> {
        let built = self.program().is_file();
        (!built).then(|| format!("{} is not built: hw-setup/deps bench && benches/peers/build", self.name))
    }
}

/// Packets answered and system calls made, from the last line in which a peer told them.
pub fn told(output: &str) -> Option<(u64, u64)> {
    output.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        match [words.next()?, words.next()?, words.next()?, words.next()?] {
            ["answered", answered, "calls", calls] => Some((answered.parse().ok()?, calls.parse().ok()?)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let output = "xdp-echo: ready\nanswered 10 calls 1\nanswered 640 calls 20\nanswered 7";
        assert_eq!(told(output), Some((640, 20)));
        assert_eq!(told("xdp-echo: ready\n"), None);
    }
}
