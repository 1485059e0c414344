//! Asking the kernel by trying: whether BPF maps and AF_XDP sockets can be made. What is made is closed at once.

use nix::errno::Errno;
use std::os::fd::{FromRawFd, OwnedFd};

/// `BPF_MAP_CREATE` of linux/bpf.h.
const BPF_MAP_CREATE: libc::c_int = 0;
/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_XSKMAP`; EINVAL without CONFIG_XDP_SOCKETS.
const XSKMAP: u32 = 17;

/// What came of each attempt: `None` when it worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// A plain BPF map.
    pub bpf: Option<Errno>,
    /// A map of AF_XDP sockets, as the steering program has one.
    pub xskmap: Option<Errno>,
    /// An AF_XDP socket.
    pub socket: Option<Errno>,
}

impl Probes {
    /// Tries all three.
    pub fn run() -> Probes {
        // SAFETY: plain system call.
        let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        Probes { bpf: make_map(ARRAY), xskmap: make_map(XSKMAP), socket: close(i64::from(socket)) }
    }
}

/// The head of `union bpf_attr` for BPF_MAP_CREATE; the rest counts as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

fn make_map(map_type: u32) -> Option<Errno> {
    let attributes = MapCreate { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0 };
    // SAFETY: the kernel reads `size_of::<MapCreate>()` bytes of `attributes` and writes none.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size_of::<MapCreate>())
    };
    close(fd)
}

fn close(fd: i64) -> Option<Errno> {
    if fd < 0 {
        return Some(Errno::last());
    }
    // SAFETY: the call just made this descriptor and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    None
}
