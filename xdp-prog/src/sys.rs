//! The bpf(2) commands that aya does not offer, or not in the form that is needed here; and membarrier(2).
//!
//! Links are made here and not by aya, because `Xdp::attach` silently falls back to a netlink attachment when
//! the kernel answers EINVAL. Such an attachment outlives a killed process, which is what a link is for. aya
//! also tells neither the interface of a link nor lends its descriptor.
//!
//! Nothing here decides anything: each function is one command, and returns what the kernel said.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info};

/// What the kernel knows about an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// The link's own number.
    pub(crate) id: u32,
    /// The program it runs.
    pub(crate) program_id: u32,
    /// The interface of an XDP link; 0 when that interface is gone, `None` for a link of another type.
    pub(crate) interface: Option<u32>,
}

/// What the kernel knows about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Hash over the instructions.
    pub(crate) tag: u64,
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole `bpf_attr`; each caller has filled the member that the command reads, and the
    // pointers in it are to memory that lives until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, mem::size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: these commands return a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a C union of integers, for which all zeroes is valid; the kernel wants unused
    // bytes to be zero.
    unsafe { mem::zeroed() }
}

/// An AF_XDP socket that is bound to nothing, with a receive ring: some kernels take none without one into a socket map.
pub(crate) fn unbound_socket() -> io::Result<OwnedFd> {
    let entries: u32 = 1;
    // SAFETY: plain system call.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (value, len) = ((&raw const entries).cast(), mem::size_of::<u32>() as libc::socklen_t);
    // SAFETY: the option is four bytes that outlive the call.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_RX_RING, value, len) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attaches an XDP program to an interface; the attachment ends with the last reference to the descriptor.
/// `flags` are `XDP_FLAGS_*_MODE`.
pub(crate) fn link_create(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_ifindex = interface;
    attr.link_create.attach_type = bpf_attach_type::BPF_XDP as u32;
    attr.link_create.flags = flags;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Swaps the program of a link; no packet misses both.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Takes a link off its interface, whoever holds descriptors of it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// What a link is attached to.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: `bpf_link_info` is plain integers, for which all zeroes is valid.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = mem::size_of::<bpf_link_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let interface = if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        // SAFETY: for a link of type XDP the kernel filled the union's `xdp` member.
        Some(unsafe { info.__bindgen_anon_1.xdp.ifindex })
    } else {
        None
    };
    Ok(LinkInfo { id: info.id, program_id: info.prog_id, interface })
}

/// Every link of the machine, oldest first. Needs CAP_SYS_ADMIN; a link that vanishes meanwhile is skipped.
pub(crate) fn links() -> impl Iterator<Item = io::Result<OwnedFd>> {
    ids(bpf_cmd::BPF_LINK_GET_NEXT_ID).filter_map(|id| match id.and_then(link_by_id) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        other => Some(other),
    })
}

fn ids(command: bpf_cmd) -> impl Iterator<Item = io::Result<u32>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let mut attr = zeroed_attr();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = next?;
        next = None;
        match bpf(command, &mut attr) {
            Ok(_) => {
                // SAFETY: the kernel wrote `next_id`, a plain integer.
                let id = unsafe { attr.__bindgen_anon_6.next_id };
                next = Some(id);
                Some(Ok(id))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => Some(Err(error)),
        }
    })
}

fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    bpf_fd(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr)
}

/// A program by its number. Needs CAP_SYS_ADMIN.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    bpf_fd(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)
}

/// What the kernel knows about a program.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // SAFETY: `bpf_prog_info` is plain integers, for which all zeroes is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = mem::size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = info.name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    Ok(ProgramInfo {
        id: info.id,
        name: String::from_utf8(name).unwrap_or_default(),
        tag: u64::from_be_bytes(info.tag),
    })
}

/// Gives a program, map or link a name in a BPF file system; it lives as long as that name.
pub(crate) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.bpf_fd = object.as_fd().as_raw_fd() as u32;
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// The program, map or link of that name in a BPF file system.
pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// Looks up the value of a key in an array map of any value size. `value` must be at least that large.
pub(crate) fn array_lookup(map: BorrowedFd<'_>, key: u32, value: &mut [u8]) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = &raw const key as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr).map(drop)
}

/// Returns when every program run that was under way has ended: MEMBARRIER_CMD_GLOBAL waits for an RCU grace
/// period, and XDP programs run inside an RCU read side section. Fails on a kernel with `nohz_full` cores.
pub(crate) fn wait_for_running_programs() -> io::Result<()> {
    /// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
