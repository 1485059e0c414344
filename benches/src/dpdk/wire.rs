//! A wire between two processes on one machine: shared memory with a driver at each end.

use serde::Serialize;
use std::path::{Path, PathBuf};

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    /// net_memif at both ends.
    Memif,
    /// net_virtio_user at the contender's end, net_vhost at the far one.
    Vhost,
}

impl Wire {
    /// Every one.
    pub const ALL: [Wire; 2] = [Wire::Memif, Wire::Vhost];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Wire::Memif => "memif",
            Wire::Vhost => "vhost",
        }
    }

    /// The drivers, by the names of testpmd's plug-ins.
    pub fn drivers(self) -> &'static [&'static str] {
        match self {
            Wire::Memif => &["net_memif"],
            Wire::Vhost => &["net_vhost", "net_virtio"],
        }
    }

    /// The contender's device. It listens, so that it is there before the far end sends its first packet.
    pub fn near(self, socket: &Path) -> String {
        let socket = socket.display();
        match self {
            Wire::Memif => {
                format!("net_memif0,role=server,socket-abstract=no,socket={socket},mac={NEAR_MAC}")
            }
            // Packed rings, not in order: what the engine asks for unless told otherwise, so that testpmd has the same.
            Wire::Vhost => {
                format!(
                    "net_virtio_user0,path={socket},server=1,queue_size=1024,packed_vq=1,in_order=0,mac={NEAR_MAC}"
                )
            }
        }
    }

    /// The far end's device.
    pub fn far(self, socket: &Path) -> String {
        let path = socket.display();
        match self {
            Wire::Memif => format!("net_memif0,role=client,socket-abstract=no,socket={path},mac={FAR_MAC}"),
            Wire::Vhost => format!("net_vhost0,iface={path},client=1"),
        }
    }
}

/// The contender's MAC: the one to which testpmd sends what it makes itself.
pub const NEAR_MAC: &str = "02:00:00:00:00:00";
/// The far end's MAC.
const FAR_MAC: &str = "02:00:00:00:00:02";

/// Where both ends meet: in a directory with a short name, since a socket's path has at most 107 bytes.
pub fn socket(wire: Wire) -> PathBuf {
    std::env::temp_dir().join(format!("volley-bench-{}.{}", std::process::id(), wire.as_str()))
}
