//! The least XDP program that feeds AF_XDP sockets: every packet goes to the socket of its queue, or to the kernel when
//! that queue has none. Written as instructions, so that these tests need no eBPF toolchain and no other crate.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Queues the map has room for.
const QUEUES: u32 = 64;

/// An attached program; it is gone when this is dropped.
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    rest: [u64; 12],
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    rest: [u64; 12],
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

/// Code, registers (source << 4 | destination), offset, immediate.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are the command's own, of the size said; what they point to lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: io::Result<i32>, what: &str) -> OwnedFd {
    let fd = fd.unwrap_or_else(|error| panic!("{what}: {error}"));
    // SAFETY: the kernel just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Redirect {
    /// Attaches to `interface` of the calling thread's network namespace, in native mode.
    pub fn attach(interface: &str) -> Redirect {
        let mut map = MapCreate {
            kind: BPF_MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: QUEUES,
            ..MapCreate::default()
        };
        let map = owned(bpf(BPF_MAP_CREATE, &mut map), "creating an XSKMAP");
        // r2 = ctx->rx_queue_index; r1 = map; r3 = XDP_PASS; r0 = redirect_map(r1, r2, r3); exit
        let program = [
            Instruction(0x61, 0x12, 16, 0),
            Instruction(0x18, 0x11, 0, map.as_raw_fd()),
            Instruction(0, 0, 0, 0),
            Instruction(0xb7, 0x03, 0, 2),
            Instruction(0x85, 0, 0, 51),
            Instruction(0x95, 0, 0, 0),
        ];
        let mut load = ProgLoad {
            kind: BPF_PROG_TYPE_XDP,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            flags: BPF_F_XDP_HAS_FRAGS,
            ..ProgLoad::default()
        };
        let program = owned(bpf(BPF_PROG_LOAD, &mut load), "loading the program");
        let index = nix::net::if_::if_nametoindex(interface).expect("the interface exists");
        let mut link = LinkCreate {
            program: program.as_raw_fd() as u32,
            interface: index,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
            ..LinkCreate::default()
        };
        let link = owned(bpf(BPF_LINK_CREATE, &mut link), "attaching the program");
        Redirect { map, _program: program, _link: link }
    }

    /// Sends the packets of `queue` to `socket`.
    pub fn bind(&self, queue: u16, socket: BorrowedFd<'_>) {
        let (key, value) = (u32::from(queue), socket.as_raw_fd() as u32);
        let mut element = MapElement {
            map: self.map.as_raw_fd() as u64,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&value) as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut element).expect("the socket goes into the map");
    }

    /// Leaves the packets of `queue` to the kernel again.
    pub fn unbind(&self, queue: u16) {
        let key = u32::from(queue);
        let mut element = MapElement {
            map: self.map.as_raw_fd() as u64,
            key: std::ptr::from_ref(&key) as u64,
            ..MapElement::default()
        };
        bpf(BPF_MAP_DELETE_ELEM, &mut element).expect("the socket leaves the map");
    }
}
