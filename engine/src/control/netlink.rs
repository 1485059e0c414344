//! The rtnetlink sockets: one that listens, one that asks (rtnetlink(7)).

use super::metrics::hide_metrics;
use super::model::Model;
use crate::net::neighbours::Address;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes read at once. The kernel fills dumps up to 32 KiB; a smaller buffer would cut messages.
const BUFFER: usize = 64 * 1024;
/// Bytes of events the kernel keeps for us: some thousand. When it runs over, everything is dumped again.
const EVENT_BACKLOG: usize = 1024 * 1024;
/// How often a dump that was disturbed by a change is asked for again.
const DUMP_TRIES: usize = 3;

/// Multicast groups (`RTNLGRP_*`): links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

/// The socket that hears of changes.
pub(super) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What reading events brought.
#[derive(Default)]
pub(super) struct Heard {
    /// At least one message.
    pub(super) any: bool,
    /// Some were lost.
    pub(super) lost: bool,
}

impl Events {
    pub(super) fn open() -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // As large as the kernel allows; with less, a storm costs a dump.
        let _ = socket.set_rx_buf_sz(EVENT_BACKLOG);
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Events { socket, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Reads what there is into the model.
    pub(super) fn read(&mut self, model: &mut Model) -> io::Result<Heard> {
        let mut heard = Heard::default();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    heard.lost = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            hide_metrics(&mut self.buffer);
            for message in messages(&self.buffer) {
                if let NetlinkPayload::InnerMessage(inner) = &message.payload {
                    model.hear(inner);
                    heard.any = true;
                }
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket that asks.
pub(super) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Requests> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Requests { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// Dumps everything into the model.
    pub(super) fn learn(&mut self, model: &mut Model) -> io::Result<()> {
        for ask in [
            Message::GetLink(LinkMessage::default()),
            Message::GetAddress(AddressMessage::default()),
            Message::GetNeighbour(NeighbourMessage::default()),
        ] {
            self.dump(ask)?.iter().for_each(|message| model.hear(message));
        }
        self.learn_routes(model)
    }

    /// Dumps the routes into the model.
    pub(super) fn learn_routes(&mut self, model: &mut Model) -> io::Result<()> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RouteMessage::default();
            ask.header.address_family = family;
            match self.dump(Message::GetRoute(ask)) {
                Ok(more) => routes.extend(more),
                // A kernel without IPv6.
                Err(error) if family == AddressFamily::Inet6 => log::debug!("no IPv6 routes: {error}"),
                Err(error) => return Err(error),
            }
        }
        model.set_routes(routes.iter().filter_map(|message| match message {
            Message::NewRoute(route) => Some(route),
            _ => None,
        }));
        Ok(())
    }

    /// Makes the kernel use a neighbour entry as if it had a packet for it: it then resolves or probes it, and tells everyone.
    pub(super) fn resolve(&mut self, interface: u32, address: &Address) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        let six = Ipv6Addr::from(*address);
        let (family, destination) = match six.to_ipv4_mapped() {
            Some(four) => (AddressFamily::Inet, NeighbourAddress::Inet(four)),
            None => (AddressFamily::Inet6, NeighbourAddress::Inet6(six)),
        };
        message.header.family = family;
        message.header.ifindex = interface;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(destination));
        self.request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK)?;
        self.answers(|_| {})?;
        Ok(())
    }

    fn dump(&mut self, ask: Message) -> io::Result<Vec<Message>> {
        for _ in 1..DUMP_TRIES {
            let (found, disturbed) = self.dump_once(ask.clone())?;
            if !disturbed {
                return Ok(found);
            }
        }
        // What is inconsistent now is corrected by the events of the change that disturbed it.
        Ok(self.dump_once(ask)?.0)
    }

    fn dump_once(&mut self, ask: Message) -> io::Result<(Vec<Message>, bool)> {
        self.request(ask, NLM_F_DUMP)?;
        let mut found = Vec::new();
        let disturbed = self.answers(|message| found.push(message))?;
        Ok((found, disturbed))
    }

    fn request(&mut self, ask: Message, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(ask));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads the answers to the last request to their end; true when a dump was disturbed.
    fn answers(&mut self, mut each: impl FnMut(Message)) -> io::Result<bool> {
        let mut disturbed = false;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            hide_metrics(&mut self.buffer);
            for message in messages(&self.buffer) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                disturbed |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(disturbed),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(disturbed),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }
}

/// The messages in a buffer. One that the library cannot read is left out: it says something newer than it knows.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<Message>> + '_ {
    std::iter::from_fn(move || {
        loop {
            let (len, _) = bytes.split_first_chunk::<4>()?;
            let len = u32::from_ne_bytes(*len) as usize;
            let this = bytes.get(..len).filter(|this| this.len() >= 16)?;
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
            match NetlinkMessage::deserialize(this) {
                Ok(message) => return Some(message),
                Err(error) => log::debug!("an rtnetlink message was not understood: {error}"),
            }
        }
    })
}
