//! `msghdr` and its kin: socket addresses and control messages in and out of [`Path`]s.
//!
//! Everything that touches raw pointers of the socket calls is here and in the two calls' callers' loops, nowhere else. Memory is
//! made once; a call only points into it.

use super::{Arrived, Bound, Out, Socket};
use crate::frame::{BURST, Frame};
use crate::net::Path;
use std::mem::{size_of, zeroed};
use std::ptr;
use volley_wire::DropReason;

/// Receive errors in a row after which a socket is left alone until the next turn. ICMP answers to what we sent come back as
/// errors of the next call, one each, and say nothing about the socket.
pub(crate) const MAX_ERRORS: usize = 8;

/// True for the errors of sending that will pass: the socket's buffer or the device's queue is full.
pub(crate) fn is_blocked(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// A socket address of either family.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for control messages: IPV6_PKTINFO (40 bytes with its header, padded) and UDP_GRO or UDP_SEGMENT (24).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

// SAFETY: CMSG_SPACE only computes.
const _: () = unsafe {
    let pktinfo = libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32);
    assert!(pktinfo + libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) <= 64, "both control messages fit");
};

/// Headers for up to a burst of messages, one way.
pub(crate) struct Messages {
    headers: Box<[libc::mmsghdr; BURST]>,
    iovecs: Box<[libc::iovec; BURST]>,
    names: Box<[Name; BURST]>,
    controls: Box<[Control; BURST]>,
}

// SAFETY: the raw pointers inside are written before each call and read only during it.
unsafe impl Send for Messages {}

impl Messages {
    pub(crate) fn new() -> Messages {
        // SAFETY: all four are plain C data, for which zero bytes are valid (null pointers, zero lengths).
        unsafe {
            Messages {
                headers: Box::new(zeroed()),
                iovecs: Box::new(zeroed()),
                names: Box::new(zeroed()),
                controls: Box::new([Control([0; 64]); BURST]),
            }
        }
    }

    /// Makes message `n` ready to receive into the whole room of `frame`.
    #[inline]
    pub(crate) fn prepare_receive(&mut self, n: usize, frame: &mut Frame, control: bool) {
        let room = frame.room_mut();
        self.iovecs[n] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let header = &mut self.headers[n].msg_hdr;
        header.msg_name = (&raw mut self.names[n]).cast();
        header.msg_namelen = size_of::<Name>() as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[n];
        header.msg_iovlen = 1;
        header.msg_control = if control { self.controls[n].0.as_mut_ptr().cast() } else { ptr::null_mut() };
        header.msg_controllen = if control { size_of::<Control>() as _ } else { 0 };
        header.msg_flags = 0;
    }

    /// What arrived as message `n` on `socket`: its length and what else there is to know. After a successful receive.
    #[inline]
    pub(crate) fn received(&self, n: usize, socket: &Socket) -> (usize, Arrived) {
        let header = &self.headers[n].msg_hdr;
        let mut path = socket.bound.template;
        peer_from(&self.names[n], &mut path);
        let mut arrived = Arrived { path, segment: 0, refused: None };
        if header.msg_controllen > 0 {
            read_control(header, &mut arrived);
        }
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            arrived.refused = Some(DropReason::Truncated);
        } else if arrived.path.peer_port == 0 {
            arrived.refused = Some(DropReason::BadSource);
        }
        (self.headers[n].msg_len as usize, arrived)
    }

    /// Makes message `n` ready to send `parts` (one datagram, or with `segment` several of that many bytes) over the path
    /// of the first. `iovec` is the first free I/O vector; the next free one is returned.
    #[inline]
    pub(crate) fn prepare_send(
        &mut self,
        n: usize,
        iovec: usize,
        socket: &Socket,
        parts: &[Out<'_>],
        segment: Option<u16>,
    ) -> usize {
        for (vector, part) in self.iovecs[iovec..].iter_mut().zip(parts) {
            // The kernel only reads what is sent.
            *vector =
                libc::iovec { iov_base: part.bytes.as_ptr().cast_mut().cast(), iov_len: part.bytes.len() };
        }
        let path = parts[0].path;
        let len = name_of(path, &mut self.names[n]);
        let header = &mut self.headers[n].msg_hdr;
        header.msg_name = (&raw mut self.names[n]).cast();
        header.msg_namelen = len;
        header.msg_iov = &raw mut self.iovecs[iovec];
        header.msg_iovlen = parts.len() as _;
        header.msg_control = self.controls[n].0.as_mut_ptr().cast();
        header.msg_controllen = 0;
        header.msg_flags = 0;
        write_control(header, socket.bound.wildcard.then_some(path), segment);
        iovec + parts.len()
    }

    /// `recvmmsg` for the first `count` prepared messages; returns how many arrived.
    pub(crate) fn receive_many(&mut self, socket: &Socket, count: usize) -> Result<usize, i32> {
        debug_assert!(count <= BURST);
        // SAFETY: the first `count` headers were prepared and point to frames and fields that live through the call.
        outcome(unsafe {
            let flags = libc::MSG_DONTWAIT as _;
            libc::recvmmsg(socket.raw(), self.headers.as_mut_ptr(), count as u32, flags, ptr::null_mut())
                as isize
        })
    }

    /// `recvmsg` for message 0, prepared.
    pub(crate) fn receive_one(&mut self, socket: &Socket) -> Result<(), i32> {
        // SAFETY: as in `receive_many`.
        let len = outcome(unsafe {
            libc::recvmsg(socket.raw(), &raw mut self.headers[0].msg_hdr, libc::MSG_DONTWAIT)
        })?;
        self.headers[0].msg_len = len as u32;
        Ok(())
    }

    /// `sendmmsg` for the first `count` prepared messages; returns how many were taken.
    pub(crate) fn send_many(&mut self, socket: &Socket, count: usize) -> Result<usize, i32> {
        debug_assert!(count <= BURST);
        // SAFETY: the first `count` headers were prepared from slices that live through the call.
        outcome(unsafe {
            let flags = libc::MSG_DONTWAIT as _;
            libc::sendmmsg(socket.raw(), self.headers.as_mut_ptr(), count as u32, flags) as isize
        })
    }

    /// `sendmsg` for message 0, prepared.
    pub(crate) fn send_one(&mut self, socket: &Socket) -> Result<(), i32> {
        // SAFETY: as in `send_many`.
        outcome(unsafe {
            libc::sendmsg(socket.raw(), &raw const self.headers[0].msg_hdr, libc::MSG_DONTWAIT)
        })
        .map(drop)
    }
}

/// Room for a name in a buffer that io_uring fills, padded so that the payload begins aligned.
const NAME_ROOM: usize = 32;
/// What io_uring writes first (`struct io_uring_recvmsg_out`): four 32-bit lengths.
const RECVMSG_OUT: usize = 16;
/// Bytes before the payload in a buffer that a multishot receive has filled.
pub(crate) const RECEIVE_PREFIX: usize = RECVMSG_OUT + NAME_ROOM + size_of::<Control>();

const _: () = assert!(size_of::<Name>() <= NAME_ROOM && RECEIVE_PREFIX.is_multiple_of(16));

/// What a multishot receive is told: how much room to leave for name and control messages.
pub(crate) fn receive_header() -> libc::msghdr {
    // SAFETY: plain C data, for which zero bytes are valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_namelen = NAME_ROOM as libc::socklen_t;
    header.msg_controllen = size_of::<Control>() as _;
    header
}

/// What a multishot receive on `socket` wrote to the `len` bytes that begin [`RECEIVE_PREFIX`] before `frame`'s room: the payload's
/// length and what else there is to know.
#[inline]
pub(crate) fn received_in(frame: &mut Frame, len: usize, socket: &Socket) -> (usize, Arrived) {
    let mut arrived =
        Arrived { path: socket.bound.template, segment: 0, refused: Some(DropReason::Truncated) };
    if !frame.set_range(0, len) || len < RECEIVE_PREFIX {
        return (0, arrived);
    }
    let bytes = frame.bytes();
    let field = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (control_len, flags) = (field(4) as usize, field(12) as libc::c_int);
    // SAFETY: any bytes are valid for both, and both lie within the prefix.
    let (name, mut control) = unsafe {
        let start = bytes.as_ptr().add(RECVMSG_OUT);
        (
            ptr::read_unaligned(start.cast::<Name>()),
            ptr::read_unaligned(start.add(NAME_ROOM).cast::<Control>()),
        )
    };
    peer_from(&name, &mut arrived.path);
    arrived.refused = match () {
        () if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 => Some(DropReason::Truncated),
        () if arrived.path.peer_port == 0 => Some(DropReason::BadSource),
        () => None,
    };
    if control_len > 0 {
        let mut header = receive_header();
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control_len.min(size_of::<Control>()) as _;
        read_control(&header, &mut arrived);
    }
    (len - RECEIVE_PREFIX, arrived)
}

/// One message on its way out, for requests that outlive the call that makes them. It points into itself: it lives in a box.
pub(crate) struct Message {
    header: libc::msghdr,
    iovec: libc::iovec,
    name: Name,
    control: Control,
    /// To be sent without a copy.
    pub(crate) zero_copy: bool,
}

// SAFETY: as for `Messages`; what it points to is kept until the request has completed.
unsafe impl Send for Message {}

impl Message {
    pub(crate) fn new() -> Message {
        // SAFETY: plain C data, for which zero bytes are valid.
        unsafe {
            Message {
                header: zeroed(),
                iovec: zeroed(),
                name: zeroed(),
                control: Control([0; 64]),
                zero_copy: false,
            }
        }
    }

    /// Makes it the message of `out`, from the socket that is `bound`. It must not move from here to the end of the request.
    #[inline]
    pub(crate) fn prepare(&mut self, bound: &Bound, out: &Out<'_>, zero_copy: bool) {
        self.zero_copy = zero_copy;
        // The kernel only reads what is sent.
        self.iovec =
            libc::iovec { iov_base: out.bytes.as_ptr().cast_mut().cast(), iov_len: out.bytes.len() };
        self.header.msg_namelen = name_of(out.path, &mut self.name);
        self.header.msg_name = (&raw mut self.name).cast();
        self.header.msg_iov = &raw mut self.iovec;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.0.as_mut_ptr().cast();
        self.header.msg_controllen = 0;
        write_control(&mut self.header, bound.wildcard.then_some(out.path), None);
    }

    pub(crate) fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }

    pub(crate) fn has_control(&self) -> bool {
        self.header.msg_controllen > 0
    }

    pub(crate) fn bytes(&self) -> (*const u8, u32) {
        (self.iovec.iov_base.cast(), self.iovec.iov_len as u32)
    }

    pub(crate) fn name(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.name).cast(), self.header.msg_namelen)
    }
}

/// `recvfrom` into `frame` on a socket bound to one address; returns the datagram's whole length.
pub(crate) fn receive_from(socket: &Socket, frame: &mut Frame) -> Result<(usize, Arrived), i32> {
    let room = frame.room_mut();
    // SAFETY: zero bytes are a valid `Name`; the room and the name live through the call.
    let (name, len) = unsafe {
        let mut name: Name = zeroed();
        let mut name_len = size_of::<Name>() as libc::socklen_t;
        let len = outcome(libc::recvfrom(
            socket.raw(),
            room.as_mut_ptr().cast(),
            room.len(),
            libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            (&raw mut name).cast(),
            &raw mut name_len,
        ))?;
        (name, len)
    };
    let mut path = socket.bound.template;
    peer_from(&name, &mut path);
    let refused = match () {
        () if len > room.len() => Some(DropReason::Truncated),
        () if path.peer_port == 0 => Some(DropReason::BadSource),
        () => None,
    };
    Ok((len.min(room.len()), Arrived { path, segment: 0, refused }))
}

/// `sendto` on a socket bound to one address.
pub(crate) fn send_to(socket: &Socket, out: &Out<'_>) -> Result<(), i32> {
    // SAFETY: zero bytes are a valid `Name`; bytes and name live through the call.
    outcome(unsafe {
        let mut name: Name = zeroed();
        let len = name_of(out.path, &mut name);
        let (bytes, flags) = (out.bytes, libc::MSG_DONTWAIT);
        libc::sendto(socket.raw(), bytes.as_ptr().cast(), bytes.len(), flags, (&raw const name).cast(), len)
    })
    .map(drop)
}

/// Datagrams that the kernel has dropped at this socket, its buffer being full.
pub(crate) fn drops(socket: &Socket) -> u64 {
    const SO_MEMINFO: libc::c_int = 55;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut values = [0u32; SK_MEMINFO_DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `values`.
    let result = unsafe {
        libc::getsockopt(
            socket.raw(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { u64::from(values[SK_MEMINFO_DROPS]) } else { 0 }
}

/// A system call's result: its value, or errno.
fn outcome(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// IPv4 in the mapped form that paths have.
fn mapped(address: libc::in_addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[10..12].fill(0xff);
    bytes[12..].copy_from_slice(&address.s_addr.to_ne_bytes());
    bytes
}

fn unmapped(bytes: &[u8; 16]) -> libc::in_addr {
    let [.., a, b, c, d] = *bytes;
    libc::in_addr { s_addr: u32::from_ne_bytes([a, b, c, d]) }
}

fn peer_from(name: &Name, path: &mut Path) {
    // SAFETY: the kernel wrote the address of the socket's family, which is the path's; any bytes are valid for both.
    unsafe {
        if path.is_ipv4() {
            path.peer = mapped(name.v4.sin_addr);
            path.peer_port = u16::from_be(name.v4.sin_port);
        } else {
            path.peer = name.v6.sin6_addr.s6_addr;
            path.peer_port = u16::from_be(name.v6.sin6_port);
            path.set_scope(name.v6.sin6_scope_id);
        }
    }
}

fn name_of(path: &Path, name: &mut Name) -> libc::socklen_t {
    if path.is_ipv4() {
        name.v4 = libc::sockaddr_in {
            sin_family: libc::AF_INET as _,
            sin_port: path.peer_port.to_be(),
            sin_addr: unmapped(&path.peer),
            sin_zero: [0; 8],
        };
        size_of::<libc::sockaddr_in>() as libc::socklen_t
    } else {
        name.v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as _,
            sin6_port: path.peer_port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: path.peer },
            sin6_scope_id: path.scope(),
        };
        size_of::<libc::sockaddr_in6>() as libc::socklen_t
    }
}

/// Takes the addressed local address and the GRO segment size from the control messages of a received message.
fn read_control(header: &libc::msghdr, arrived: &mut Arrived) {
    // SAFETY: the kernel filled `msg_control` with well-formed messages up to `msg_controllen`; data is read unaligned and only
    // as the type that level and type name.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    // For a group or broadcast the two differ: the second is an address of ours.
                    if info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr {
                        arrived.refused = Some(DropReason::NotUnicast);
                    }
                    arrived.path.local = mapped(info.ipi_spec_dst);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    if info.ipi6_addr.s6_addr[0] == 0xff {
                        arrived.refused = Some(DropReason::NotUnicast);
                    }
                    arrived.path.local = info.ipi6_addr.s6_addr;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    arrived.segment = ptr::read_unaligned(data.cast::<libc::c_int>()).max(0) as u32;
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

/// Writes the source address to leave from and the GSO segment size as control messages.
fn write_control(header: &mut libc::msghdr, from: Option<&Path>, segment: Option<u16>) {
    // A path with no local address leaves the choice to the kernel.
    let from = from.filter(|path| !path.local().ip().is_unspecified());
    if from.is_none() && segment.is_none() {
        return;
    }
    let mut room = size_of::<Control>();
    let mut at = header.msg_control.cast::<u8>();
    // SAFETY: `msg_control` points to a `Control`, which holds both messages (asserted above) and is aligned for headers; every
    // byte of the space used is written before the kernel reads it.
    unsafe {
        let mut put = |level, kind, data: *const u8, len: usize| {
            let space = libc::CMSG_SPACE(len as u32) as usize;
            debug_assert!(space <= room);
            ptr::write_bytes(at, 0, space);
            let message = at.cast::<libc::cmsghdr>();
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(len as u32) as _;
            ptr::copy_nonoverlapping(data, libc::CMSG_DATA(message), len);
            at = at.add(space);
            room -= space;
        };
        match from {
            Some(path) if path.is_ipv4() => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: unmapped(&path.local),
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put(libc::IPPROTO_IP, libc::IP_PKTINFO, (&raw const info).cast(), size_of_val(&info));
            }
            Some(path) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: path.local },
                    ipi6_ifindex: path.scope(),
                };
                put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, (&raw const info).cast(), size_of_val(&info));
            }
            None => {}
        }
        if let Some(bytes) = segment {
            put(libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const bytes).cast(), size_of_val(&bytes));
        }
    }
    header.msg_controllen = (size_of::<Control>() - room) as _;
}
