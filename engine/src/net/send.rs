//! Datagrams nobody asked for: headers from a path, into a free frame.

use super::neighbours::{Hop, Link, Neighbours};
use super::path::{IPV4, MAC_KNOWN, TAGS_SHIFT};
use super::reply::{leave_checksum, write_ipv4, write_ipv6, write_udp, write_udp_partial};
use super::standalone::Standalone;
use super::{Net, Path, Tag};
use crate::datagram::SendError;
use crate::frame::Frame;
use crate::port::Port;
use volley_wire::ethernet::{EthernetHeader, Mac, VlanTag, ethertype};
use volley_wire::ipv4::Ipv4Header;
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// Empty frames taken from the port at once. With fewer, sends pay for more virtual calls; more would be missing where receive
/// could use them.
const SPARE: usize = 32;

/// Where packets of a path go next. What was told stands before what is asked for on the link.
pub(super) fn hop(
    told: &mut Neighbours,
    asked: Option<&mut Standalone>,
    path: &Path,
    now_ns: u64,
) -> Result<Hop, SendError> {
    match (told.resolve(path, now_ns), asked) {
        (Err(_), Some(standalone)) => standalone.resolve(path, now_ns),
        (told, _) => told,
    }
}

impl<P: Port + ?Sized> Net<P> {
    pub(super) fn send_unasked(
        &mut self,
        path: &Path,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        if path.port != self.index {
            return Err(SendError::NoPort);
        }
        if !self.fits(path.is_ipv4(), len, || *path) {
            return Err(SendError::TooLong);
        }
        let path = match path.bits & MAC_KNOWN != 0 {
            true => *path,
            false => self.resolved(path)?,
        };
        if self.unasked.is_full() {
            self.stats.sent += self.unasked.offer(&mut *self.port) as u64;
            if self.unasked.is_full() {
                return Err(SendError::Full);
            }
        }
        let mut frame = self.empty_frame().ok_or(SendError::Full)?;
        if !self.build(&mut frame, &path, len, fill) {
            self.spare.push(frame);
            return Err(SendError::TooLong);
        }
        self.unasked.push(frame);
        Ok(())
    }

    /// The path with what the control thread, or our own neighbour cache, knows of the way to its peer.
    #[cold]
    pub(super) fn resolved(&mut self, path: &Path) -> Result<Path, SendError> {
        let hop = hop(&mut self.neighbours, self.other.standalone.as_deref_mut(), path, self.now.ns)?;
        let mut path = *path;
        path.local = hop.local;
        path.peer_mac = hop.mac;
        let own = self.other.standalone.as_ref().map(|standalone| standalone.mac());
        path.local_mac = match (self.neighbours.link(), own.or(self.arrival.mac)) {
            (Some(Link::Present { mac, .. }), _) | (_, Some(mac)) => mac,
            _ => return Err(SendError::NoRoute),
        };
        let tagged = hop.tag != Tag::default();
        path.tags[0] = hop.tag;
        path.bits = path.bits & IPV4 | MAC_KNOWN | u8::from(tagged) << TAGS_SHIFT;
        Ok(path)
    }

    /// Where packets of `path` go next; asked for, if that is not known.
    ///
    /// # Errors
    /// [`SendError::Unresolved`] until somebody answers, [`SendError::NoRoute`] when nobody can.
    pub fn next_hop(&mut self, path: &Path) -> Result<Mac, SendError> {
        self.resolved(path).map(|path| path.peer_mac)
    }

    pub(super) fn empty_frame(&mut self) -> Option<Frame> {
        if self.spare.is_empty() {
            self.port.alloc(&mut self.spare, SPARE);
        }
        self.spare.pop()
    }

    /// Writes the packet; false (and `fill` not called) when it does not fit the frame.
    fn build(&self, frame: &mut Frame, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        let (ip_len, ethertype) = match path.is_ipv4() {
            true => (Ipv4Header::LEN, ethertype::IPV4),
            false => (Ipv6Header::LEN, ethertype::IPV6),
        };
        let tags = path.tags();
        let ip = EthernetHeader::LEN + tags.len() * VlanTag::LEN;
        if !frame.set_len(ip + ip_len + UdpHeader::LEN + len) {
            return false;
        }
        frame.set_queue(self.tx_queue(path.queue));
        frame.set_flags(0);

        let bytes = frame.bytes_mut();
        let Ok((ethernet, mut rest)) = EthernetHeader::mut_from_prefix(bytes) else { return false };
        ethernet.destination = path.peer_mac;
        ethernet.source = path.local_mac;
        let mut last = &mut ethernet.ethertype;
        for tag in tags {
            let Ok((header, after)) = VlanTag::mut_from_prefix(rest) else { return false };
            last.set(tag.tpid);
            header.tci.set(tag.tci);
            (last, rest) = (&mut header.ethertype, after);
        }
        last.set(ethertype);
        let (pair, rest) = match path.is_ipv4() {
            true => {
                let Ok((header, rest)) = Ipv4Header::mut_from_prefix(rest) else { return false };
                header.source.copy_from_slice(&path.local[12..]);
                header.destination.copy_from_slice(&path.peer[12..]);
                (write_ipv4(header, UdpHeader::LEN + len), rest)
            }
            false => {
                let Ok((header, rest)) = Ipv6Header::mut_from_prefix(rest) else { return false };
                (header.source, header.destination) = (path.local, path.peer);
                (write_ipv6(header, UdpHeader::LEN + len), rest)
            }
        };
        let Ok((header, payload)) = UdpHeader::mut_from_prefix(rest) else { return false };
        header.source.set(path.local_port);
        header.destination.set(path.peer_port);
        fill(payload);
        match self.tx_checksum {
            true => {
                write_udp_partial(header, pair, len);
                leave_checksum(frame, ip + ip_len);
            }
            false => write_udp(header, payload, pair, len),
        }
        true
    }
}
