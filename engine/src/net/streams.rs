//! Our own TCP over the same frames: segments taken out of a received burst, segments built into free frames.
//!
//! ```text
//!   frames ─► open: not UDP? ─► segment::find
//!   settle ─► held ─► stack.receive_burst ─► events: the app reads in the frames
//!   flush ─► release: unread is copied, frames are freed
//!         ─► stack.transmit ─► lend: Ethernet, tags, IP in a free frame ─► commit ─► queue ─► port.tx
//! ```
//!
//! A segment that is spread over several frames (multi-buffer) is put together on its way in, and taken apart on its way out: one
//! copy more, which only packets longer than a frame pay.
//!
//! The way back of each segment is noted once per link-layer way, not per connection, so that a connection keeps four bytes.

use super::neighbours::{Link, Neighbours};
use super::owner::{HandOver, HandOverPlace};
use super::queue::TxQueue;
use super::segment::{self, Found};
use super::send::hop;
use super::standalone::Standalone;
use super::{Net, Path, Tag};
use crate::frame::{BURST, Burst, Frame, flag};
use crate::port::{Port, PortInfo};
use crate::stream::StreamPort;
use crate::stream::own::{Arrived, OwnStreams};
use arrayvec::ArrayVec;
use std::collections::HashMap;
use volley_tcp::{ChecksumStatus, Egress, SegmentIn, SegmentOut};
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{EthernetHeader, MAX_VLAN_TAGS, Mac, VlanTag, ethertype};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::FromBytes;

/// Link-layer ways remembered: peers on the link, times queues. Beyond it a segment's answer is routed by its address, which is
/// right as well, and slower.
const WAYS: usize = 4096;

/// Empty frames taken from the port at once.
const SPARE: usize = 32;

/// Bytes of link header and tags in front of the longest packet.
const LINK_HEADER: usize = EthernetHeader::LEN + MAX_VLAN_TAGS * VlanTag::LEN;

/// Least room for a segment that is built outside a frame.
const OUTSIDE: usize = 2048;

/// How to get back to where a segment came from, the addresses aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    local_mac: Mac,
    peer_mac: Mac,
    tags: [Tag; MAX_VLAN_TAGS],
    depth: u8,
    queue: u16,
}

impl Way {
    fn of(path: &Path) -> Way {
        Way {
            local_mac: path.local_mac,
            peer_mac: path.peer_mac,
            tags: path.tags,
            depth: path.tags().len() as u8,
            queue: path.queue,
        }
    }
}

/// Our TCP, and what the net layer keeps for it.
pub(super) struct Tcp {
    pub(super) streams: Box<OwnStreams>,
    /// Number 0 is "ask the neighbours".
    ways: Vec<Way>,
    numbers: HashMap<Way, u32>,
    last: u32,
    /// Segments of the burst that is being opened.
    found: ArrayVec<(Found, bool), BURST>,
    /// The frames that they stand in, a bit each.
    frames: u64,
    /// Segments that the port has not been offered yet.
    pub(super) queue: TxQueue,
    /// Where segments are written that are longer than a frame, or for nobody.
    outside: Box<[u8]>,
    /// The ends of the rings to and from the other workers, when there are any.
    hand_over: Option<HandOver>,
}

impl Tcp {
    pub(super) fn new(
        mut streams: OwnStreams,
        place: Option<&HandOverPlace>,
        mtu: usize,
        max_segments: usize,
    ) -> Tcp {
        if max_segments > 1 {
            // A burst full of chains: each has two frames or more.
            streams.held().reserve(BURST / 2 * (LINK_HEADER + mtu));
        }
        let none =
            Way { local_mac: [0; 6], peer_mac: [0; 6], tags: Default::default(), depth: 0, queue: 0 };
        let mut ways = Vec::with_capacity(WAYS);
        ways.push(none);
        Tcp {
            streams: Box::new(streams),
            ways,
            numbers: HashMap::with_capacity(2 * WAYS),
            last: 0,
            found: ArrayVec::new(),
            frames: 0,
            queue: TxQueue::default(),
            outside: vec![0; OUTSIDE.max(LINK_HEADER + mtu)].into(),
            hand_over: place.and_then(HandOverPlace::take),
        }
    }

    /// Takes note of a packet that is no UDP datagram, of `total` bytes, in the frames from `index` on. False when it is nothing
    /// for TCP either.
    pub(super) fn take(
        &mut self,
        index: usize,
        chain: &[Frame],
        total: usize,
        arrival: &super::parse::Arrival,
    ) -> bool {
        let Some(frame) = chain.first() else { return false };
        let verified = chain.iter().all(|f| f.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL));
        let arrival = super::parse::Arrival { queue: frame.queue(), verify: !verified, ..*arrival };
        match segment::find(frame.bytes(), total, &arrival) {
            Some(found) if found.protocol == protocol::TCP => {
                match self.hand_over.as_mut().and_then(|ends| Some((ends.owner(&found.path)?, ends))) {
                    None if chain.len() > 1 => {
                        // Else lost, as on the wire.
                        if self.streams.held().join(chain, found.at, found.len) {
                            self.found.push((found, verified));
                        }
                    }
                    None => {
                        self.streams.held().expect(found.at, found.len);
                        self.found.push((found, verified));
                        self.frames |= 1 << index;
                    }
                    // The workers' rings take what fits one frame.
                    Some(_) if chain.len() > 1 => self.streams.count(|stats| stats.hand_over_full += 1),
                    Some((owner, ends)) => {
                        let segment = &frame.bytes()[found.at..found.at + found.len];
                        let given = ends.give(owner, &found.path, found.ecn, verified, segment);
                        self.streams.count(|stats| match given {
                            true => stats.handed_over += 1,
                            false => stats.hand_over_full += 1,
                        });
                    }
                }
                true
            }
            Some(found) => {
                let Some(message) = frame.bytes().get(found.at..found.at + found.len) else { return false };
                segment::icmp(&found, message).is_some_and(|message| self.streams.icmp(&message))
            }
            None => false,
        }
    }

    /// True when the burst that is being opened has segments.
    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// The frames that [`OwnStreams::held`] waits for, a bit each.
    pub(super) fn frames_found(&self) -> u64 {
        self.frames
    }

    /// Hands the burst's segments to the stack; the frames they stand in are held.
    pub(super) fn receive(&mut self, now_ns: u64) {
        if self.found.is_empty() {
            return;
        }
        self.frames = 0;
        let found = std::mem::take(&mut self.found);
        let arrived: ArrayVec<Arrived, BURST> = found
            .iter()
            .map(|(found, verified)| Arrived {
                source: found.path.peer().ip(),
                destination: found.path.local().ip(),
                ecn: found.ecn,
                checksum: if *verified { ChecksumStatus::Verified } else { ChecksumStatus::MustVerify },
                path: self.number(Way::of(&found.path)),
            })
            .collect();
        self.streams.receive(now_ns, &arrived);
    }

    /// Takes the segments that other workers have received for this one, a burst at most.
    pub(super) fn take_over(&mut self, now_ns: u64) {
        for _ in 0..BURST {
            let Some(handed) = self.hand_over.as_mut().and_then(HandOver::take) else { break };
            let segment = SegmentIn {
                source: handed.path.peer().ip(),
                destination: handed.path.local().ip(),
                ecn: handed.ecn,
                checksum: if handed.verified {
                    ChecksumStatus::Verified
                } else {
                    ChecksumStatus::MustVerify
                },
                path: self.number(Way::of(&handed.path)),
                bytes: handed.bytes(),
            };
            self.streams.receive_copied(now_ns, &[segment]);
            self.streams.count(|stats| stats.taken_over += 1);
        }
    }

    /// Ends the burst under way, if there is one.
    pub(super) fn release<P: Port + ?Sized>(&mut self, port: &mut P) {
        if self.streams.is_under_way() {
            port.free(self.streams.release());
        }
    }

    /// True when other workers have left segments for this one.
    pub(super) fn has_waiting(&self) -> bool {
        self.hand_over.as_ref().is_some_and(HandOver::has_waiting)
    }

    /// The number of a way; most segments come by the same as the one before.
    fn number(&mut self, way: Way) -> u32 {
        if self.ways[self.last as usize] == way {
            return self.last;
        }
        let number = match self.numbers.get(&way) {
            Some(number) => *number,
            None if self.ways.len() < WAYS => {
                let number = self.ways.len() as u32;
                self.ways.push(way);
                self.numbers.insert(way, number);
                number
            }
            None => 0,
        };
        self.last = number;
        number
    }
}

impl<P: Port + ?Sized> Net<P> {
    /// With a TCP of our own over the same frames; with a `place`, clients of other workers are handed over.
    pub fn with_streams(mut self, streams: OwnStreams, place: Option<&HandOverPlace>) -> Net<P> {
        self.tcp = Some(Box::new(Tcp::new(streams, place, self.mtu, self.max_segments)));
        self
    }

    /// True while our TCP may still be asked for the last acknowledgment of a connection (TIME-WAIT).
    pub fn has_time_wait(&self) -> bool {
        self.tcp.as_ref().is_some_and(|tcp| tcp.streams.has_time_wait())
    }

    /// Largest IP packet that frames, or chains of them, take with every link header in front, in bytes. Asked before anything
    /// is received.
    pub fn largest_packet(&mut self) -> usize {
        self.port.alloc(&mut self.spare, 1);
        let room = self.spare.first().map_or(0, |frame| frame.len() + frame.tailroom());
        self.mtu.min((room * self.max_segments).saturating_sub(LINK_HEADER))
    }

    /// Ends the burst that the app has had its look at.
    pub(super) fn release_segments(&mut self) {
        if let Some(tcp) = &mut self.tcp {
            tcp.release(&mut *self.port);
        }
    }

    /// Queues what TCP has to say.
    pub(super) fn send_segments(&mut self) {
        let Some(tcp) = &mut self.tcp else { return };
        if tcp.streams.wants_transmit() {
            let Tcp { streams, ways, queue, outside, .. } = &mut **tcp;
            let mut out = Out {
                port: &mut *self.port,
                info: &self.info,
                neighbours: &mut self.neighbours,
                standalone: self.other.standalone.as_deref_mut(),
                mac: self.arrival.mac,
                now_ns: self.now.ns,
                ways,
                queue,
                spare: &mut self.spare,
                outside,
                frame: None,
                chained: 0,
                unsent: 0,
            };
            streams.transmit(self.now.ns, &mut out);
            let unsent = out.unsent;
            streams.count(|stats| stats.unsent += unsent);
        }
        tcp.queue.offer(&mut *self.port);
    }

    /// What could not be sent in this turn is lost, as on the wire; TCP sends it again.
    pub(super) fn abandon_segments(&mut self) {
        if let Some(tcp) = &mut self.tcp {
            tcp.queue.offer(&mut *self.port);
            let lost = tcp.queue.abandon(&mut *self.port) as u64;
            tcp.streams.count(|stats| stats.unsent += lost);
        }
    }

    /// Ends every connection, and says so.
    pub(super) fn close_segments(&mut self) {
        if let Some(tcp) = &mut self.tcp {
            tcp.streams.close_port();
            tcp.queue.abandon(&mut *self.port);
        }
    }
}

/// Lends frames with everything but TCP in them.
struct Out<'n, P: ?Sized> {
    port: &'n mut P,
    info: &'n PortInfo,
    neighbours: &'n mut Neighbours,
    /// Asked for whom those do not know, where no kernel stands behind the port.
    standalone: Option<&'n mut Standalone>,
    mac: Option<Mac>,
    now_ns: u64,
    ways: &'n [Way],
    queue: &'n mut TxQueue,
    spare: &'n mut Burst,
    outside: &'n mut [u8],
    /// The one on loan, or the first of the chain that is to be made of what stands outside.
    frame: Option<Frame>,
    /// Bytes of the packet that stands outside; 0 when that is in the frame, or for nobody.
    chained: usize,
    unsent: u64,
}

impl<P: Port + ?Sized> Out<'_, P> {
    /// The way to the segment's peer.
    fn way(&mut self, segment: &SegmentOut) -> Option<Way> {
        if segment.path != 0 {
            return self.ways.get(segment.path as usize).copied();
        }
        let path = Path::to(0, (segment.source, 0).into(), (segment.destination, 0).into())?;
        let own = self.standalone.as_ref().map(|standalone| standalone.mac()).or(self.mac);
        let hop = hop(self.neighbours, self.standalone.as_deref_mut(), &path, self.now_ns).ok()?;
        let local_mac = match (self.neighbours.link(), own) {
            (Some(Link::Present { mac, .. }), _) | (_, Some(mac)) => mac,
            _ => return None,
        };
        let mut tags = [Tag::default(); MAX_VLAN_TAGS];
        tags[0] = hop.tag;
        let depth = u8::from(hop.tag != Tag::default());
        let queue = self.info.queues.first().copied().unwrap_or(0);
        Some(Way { local_mac, peer_mac: hop.mac, tags, depth, queue })
    }

    /// Sends what stands outside: spread over a chain of frames, of which [`Egress::lend`] has seen that there are enough.
    #[cold]
    fn chain(&mut self, first: Frame) {
        let mut left = &self.outside[..std::mem::take(&mut self.chained)];
        let (queue, mut next) = (first.queue(), Some(first));
        while let Some(mut frame) = next {
            let here = left.len().min(frame.len() + frame.tailroom());
            let fits = frame.set_len(here);
            debug_assert!(fits, "`here` lies within the room");
            let (part, rest) = left.split_at(here);
            frame.bytes_mut().copy_from_slice(part);
            frame.set_queue(queue);
            left = rest;
            next = if left.is_empty() { None } else { self.spare.pop() };
            frame.set_flags(if next.is_some() { flag::MORE } else { 0 });
            self.queue.push(frame);
        }
    }

    /// Where TCP begins in a packet that goes this way.
    fn header_len(way: &Way, segment: &SegmentOut) -> usize {
        let ip_len = if segment.source.is_ipv4() { Ipv4Header::LEN } else { Ipv6Header::LEN };
        EthernetHeader::LEN + usize::from(way.depth).min(MAX_VLAN_TAGS) * VlanTag::LEN + ip_len
    }

    /// Writes the headers in front of the segment.
    fn write(packet: &mut [u8], way: &Way, segment: &SegmentOut) -> Option<()> {
        let kind = if segment.source.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let tags = &way.tags[..usize::from(way.depth).min(MAX_VLAN_TAGS)];
        let (ethernet, mut rest) = EthernetHeader::mut_from_prefix(packet).ok()?;
        (ethernet.destination, ethernet.source) = (way.peer_mac, way.local_mac);
        let mut last = &mut ethernet.ethertype;
        for tag in tags {
            let (header, after) = VlanTag::mut_from_prefix(rest).ok()?;
            last.set(tag.tpid);
            header.tci.set(tag.tci);
            (last, rest) = (&mut header.ethertype, after);
        }
        last.set(kind);
        match (segment.source, segment.destination) {
            (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
                let (header, _) = Ipv4Header::mut_from_prefix(rest).ok()?;
                header.version_ihl = 0x45;
                header.dscp_ecn = segment.tos;
                header.total_length.set((Ipv4Header::LEN + segment.len) as u16);
                header.identification.set(0);
                header.flags_fragment.set(if segment.dont_fragment {
                    Ipv4Header::DONT_FRAGMENT
                } else {
                    0
                });
                header.ttl = segment.ttl;
                header.protocol = protocol::TCP;
                (header.source, header.destination) = (source.octets(), destination.octets());
                header.checksum.set(0);
                let fixed: &[u8; Ipv4Header::LEN] = zerocopy::transmute_ref!(&*header);
                let sum = Sum::ZERO.fixed(fixed).complement();
                header.checksum.set(sum);
            }
            (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
                let (header, _) = Ipv6Header::mut_from_prefix(rest).ok()?;
                header.version_class_flow.set(6 << 28 | u32::from(segment.tos) << 20);
                header.payload_length.set(segment.len as u16);
                header.next_header = protocol::TCP;
                header.hop_limit = segment.ttl;
                (header.source, header.destination) = (source.octets(), destination.octets());
            }
            _ => return None,
        }
        Some(())
    }

    /// Sees to it that there are frames for a packet of `len` bytes that is longer than one. `None`: not now.
    #[cold]
    fn frames_for(&mut self, len: usize, room: usize) -> Option<()> {
        let more = len.div_ceil(room.max(1)) - 1;
        if self.spare.len() < more {
            self.port.alloc(self.spare, SPARE);
        }
        if self.queue.room() <= more {
            self.queue.offer(self.port);
        }
        (self.spare.len() >= more && self.queue.room() > more).then_some(())
    }
}

impl<P: Port + ?Sized> Egress for Out<'_, P> {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        if self.queue.is_full() {
            self.queue.offer(self.port);
            if self.queue.is_full() {
                return None;
            }
        }
        if self.spare.is_empty() {
            self.port.alloc(self.spare, SPARE);
        }
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => self.spare.pop()?,
        };
        self.chained = 0;
        let Some(way) = self.way(segment) else {
            // Nobody to send it to yet: as if it were lost on the way, or one would hold up all.
            self.spare.push(frame);
            return self.outside.get_mut(..segment.len);
        };
        frame.set_queue(match self.info.queues.contains(&way.queue) {
            true => way.queue,
            false => self.info.queues.first().copied().unwrap_or(0),
        });
        frame.set_flags(0);
        let at = Self::header_len(&way, segment);
        let end = at + segment.len;
        if frame.set_len(end) {
            let frame = self.frame.insert(frame);
            Self::write(frame.bytes_mut(), &way, segment)?;
            return Some(&mut frame.bytes_mut()[at..]);
        }
        let room = frame.len() + frame.tailroom();
        if end > self.info.max_segments * room {
            // Longer than the port carries: lost as well.
            self.spare.push(frame);
            return self.outside.get_mut(..segment.len);
        }
        self.frame = Some(frame);
        self.frames_for(end, room)?;
        self.chained = end;
        let packet = self.outside.get_mut(..end)?;
        Self::write(packet, &way, segment)?;
        Some(&mut packet[at..])
    }

    fn commit(&mut self, _: &SegmentOut) {
        match self.frame.take() {
            Some(first) if self.chained > 0 => self.chain(first),
            Some(frame) => self.queue.push(frame),
            None => self.unsent += 1,
        }
    }
}

impl<P: ?Sized> Drop for Out<'_, P> {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.spare.push(frame);
        }
    }
}
