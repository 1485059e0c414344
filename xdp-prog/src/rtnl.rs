//! What rtnetlink says about XDP on an interface, and the netlink kind of attachment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::link::Mode;

/// `XDP_FLAGS_REPLACE` of linux/if_link.h: act only if the program attached is the expected one.
const XDP_FLAGS_REPLACE: u32 = 1 << 4;

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program_id: u32,
    pub(crate) mode: Mode,
}

/// The programs on an interface: none, one, or one of the driver and one offloaded.
pub(crate) fn attached(interface: u32) -> io::Result<Vec<Attached>> {
    let reply = ask(RouteNetlinkMessage::GetLink(message(interface, Vec::new())), 0)?;
    let Some(RouteNetlinkMessage::NewLink(link)) = reply else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for attribute in link.attributes {
        let LinkAttribute::Xdp(attributes) = attribute else { continue };
        for attribute in attributes {
            let (mode, program_id) = match attribute {
                LinkXdp::DrvProgId(id) => (Mode::Native, id),
                LinkXdp::SkbProgId(id) => (Mode::Generic, id),
                LinkXdp::HwProgId(id) => (Mode::Offloaded, id),
                _ => continue,
            };
            found.push(Attached { program_id, mode });
        }
    }
    Ok(found)
}

/// Takes a netlink-attached program off; only if it is `expected`, where that is given.
pub(crate) fn detach(interface: u32, mode: Mode, expected: Option<BorrowedFd<'_>>) -> io::Result<()> {
    set(interface, -1, mode, expected)
}

/// Attaches a program the netlink way: to put back one that was taken off.
pub(crate) fn attach(interface: u32, mode: Mode, program: BorrowedFd<'_>) -> io::Result<()> {
    set(interface, program.as_raw_fd(), mode, None)
}

/// Whether the program on an interface is held by a link. Changes nothing, and needs only CAP_NET_ADMIN: the
/// kernel is asked to take off `other`, a program that is loaded but attached nowhere, and its refusal tells.
pub(crate) fn held_by_link(interface: u32, mode: Mode, other: BorrowedFd<'_>) -> io::Result<bool> {
    match set(interface, -1, mode, Some(other)) {
        // "Can't replace active BPF XDP link" comes before "Active program does not match expected".
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(false),
    }
}

fn set(interface: u32, program: i32, mode: Mode, expected: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let flags = mode.flags() | if expected.is_some() { XDP_FLAGS_REPLACE } else { 0 };
    let mut attributes = vec![LinkXdp::Fd(program), LinkXdp::Flags(flags)];
    if let Some(expected) = expected {
        attributes.push(LinkXdp::ExpectedFd(expected.as_raw_fd() as u32));
    }
    let message = message(interface, vec![LinkAttribute::Xdp(attributes)]);
    ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
}

fn message(interface: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = interface;
    message.attributes = attributes;
    message
}

/// Sends one request and returns the answer to it; `None` for a bare acknowledgement.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(None),
    }
}
