//! What only netlink tells: links and their peers, queueing disciplines, nftables tables.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage as Route;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::TcAttribute;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// `NLMSG_ERROR`, `NLMSG_DONE` (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST`; and with `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x301;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One interface, as rtnetlink shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it ("veth", "bond"); `None` for a physical one.
    pub kind: Option<String>,
    /// The interface at its other end (veth), or below it.
    pub peer: Option<u32>,
    /// That one is in another network namespace.
    pub peer_elsewhere: bool,
}

/// Every interface of the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let messages = dump(NETLINK_ROUTE, RTM_GETLINK, &[0; 16])?;
    Ok(route(&messages)
        .filter_map(|message| match message {
            Route::NewLink(link) => Some(interface(link)),
            _ => None,
        })
        .collect())
}

/// Whether the link of an interface carries, and what it has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carrier {
    /// Up, with a carrier.
    pub up: bool,
    /// Packets received since the interface exists.
    pub rx_packets: u64,
}

/// Asks about interface `index`.
///
/// # Errors
/// The kernel's: ENODEV when there is none.
pub fn carrier(index: u32) -> io::Result<Carrier> {
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let messages = ask(NETLINK_ROUTE, RTM_GETLINK, REQUEST, &body)?;
    let Some(Route::NewLink(link)) = route(&messages).next() else {
        return Err(io::Error::other("rtnetlink did not answer about the link"));
    };
    let up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    let rx_packets = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
        _ => None,
    });
    Ok(Carrier { up, rx_packets: rx_packets.unwrap_or(0) })
}

/// Kinds of the queueing disciplines on interface `index`.
///
/// # Errors
/// The kernel's.
pub fn qdiscs(index: u32) -> io::Result<Vec<String>> {
    const RTM_GETQDISC: u16 = 38;
    let messages = dump(NETLINK_ROUTE, RTM_GETQDISC, &[0; 20])?;
    let kinds = route(&messages).filter_map(|message| match message {
        Route::NewQueueDiscipline(tc) if tc.header.index == index as i32 => {
            tc.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            })
        }
        _ => None,
    });
    Ok(kinds.collect())
}

/// The nftables tables here ("inet filter"), those of iptables-nft among them. None, when the kernel has no nftables.
///
/// # Errors
/// The kernel's; EPERM without CAP_NET_ADMIN.
pub fn nft_tables() -> io::Result<Vec<String>> {
    /// NFNL_SUBSYS_NFTABLES and NFT_MSG_GETTABLE.
    const GETTABLE: u16 = 10 << 8 | 1;
    /// struct nfgenmsg: family, version, resource.
    const NFGENMSG: usize = 4;
    const NFTA_TABLE_NAME: u16 = 1;
    let messages = match dump(NETLINK_NETFILTER, GETTABLE, &[0; NFGENMSG]) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP)
            ) =>
        {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let table = |message: &Vec<u8>| {
        let family = match message.get(HEADER)? {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _ => "?",
        };
        let attributes = NlasIterator::new(message.get(HEADER + NFGENMSG..)?);
        let name = attributes.flatten().find(|attribute| attribute.kind() == NFTA_TABLE_NAME)?;
        let name = String::from_utf8_lossy(name.value()).trim_end_matches('\0').to_owned();
        Some(format!("{family} {name}"))
    };
    Ok(messages.iter().filter_map(table).collect())
}

fn route(messages: &[Vec<u8>]) -> impl Iterator<Item = Route> {
    messages.iter().filter_map(|message| {
        match NetlinkMessage::<Route>::deserialize(message).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    })
}

fn interface(link: LinkMessage) -> Interface {
    let mut found = Interface { index: link.header.index, ..Interface::default() };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Link(peer) => found.peer = Some(peer),
            LinkAttribute::LinkNetNsId(_) => found.peer_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                found.kind = info.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    found
}

/// Asks for a dump and returns its messages, headers included.
fn dump(protocol: isize, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    ask(protocol, kind, DUMP, body)
}

/// Asks for a dump, or for one answer, and returns the messages, headers included.
fn ask(protocol: isize, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = Vec::with_capacity(HEADER + body.len());
    question.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    question.extend(kind.to_ne_bytes());
    question.extend(flags.to_ne_bytes());
    question.extend([0; 8]); // sequence number and port: one question on a socket of its own needs neither
    question.extend(body);
    socket.send(&question, 0)?;
    let mut messages = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some((len, kind)) = header(rest) {
            let message = &rest[..len];
            match kind {
                DONE => return Ok(messages),
                ERROR => {
                    let code = message.get(HEADER..HEADER + 4).map_or(0, word) as i32;
                    return if code == 0 { Ok(messages) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => messages.push(message.to_vec()),
            }
            if flags != DUMP {
                return Ok(messages);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Length and type of the message at the front, when it is whole.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let len = word(bytes.get(..4)?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    ((HEADER..=bytes.len()).contains(&len)).then_some((len, kind))
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_interfaces() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.name == "lo").expect("every namespace has it");
        assert_eq!((lo.index, lo.kind.as_deref(), lo.peer), (1, None, None));
        assert!(qdiscs(lo.index).is_ok());
        assert!(carrier(lo.index).is_ok());
        assert_eq!(carrier(u32::MAX >> 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn tables_are_listed_or_it_is_said_that_we_may_not() {
        if let Err(error) = nft_tables() {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
    }
}
