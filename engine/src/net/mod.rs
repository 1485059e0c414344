//! The net layer: Ethernet, VLAN, IP and UDP in and out.
//!
//! [`Net`] makes a datagram port of a frame port:
//!
//! ```text
//!   port.rx ──► recv ──► open: parse, verify ──► app ──► settle: turn around in place ──► port.tx
//!                            │ bad: counted by reason            │ consumed, dropped
//!                            └───────────────► port.free ◄───────┘
//!   app ──► send: headers from a path, into a free frame ──► port.tx
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`parse`] | bytes → datagram or [`volley_wire::DropReason`]; pure |
//! | [`reply`] | a received packet turned around in its frame; pure |
//! | `plain` | both, quickly, for the packet that nearly every packet is; pure |
//! | `chain` | packets spread over several frames (multi-buffer) |
//! | `queue` | frames on their way to the port, and what becomes of those it does not take |
//! | [`neighbours`] | what is known of the link: MACs, routes, our addresses |
//! | `send` | unasked datagrams |
//! | [`segment`] | TCP segments and ICMP errors in packets; pure |
//! | `streams` | our own TCP over the same frames |
//! | `other` | what is no datagram: who gets it |
//! | [`standalone`] | ARP, neighbour discovery, ICMP and path MTUs, where no kernel stands behind the port |
//! | `exception` | what is not ours, to a kernel behind a second port and back |
//! | `extensions` | past IPv6 extension headers |
//! | `ip` | headers of packets that are no datagrams |
//! | [`owner`] | the worker that owns a client, and segments on their way to it |
//! | [`packet`] | packets made by hand, for tests and benches |
//! | [`Path`] | where a datagram came from and how to get back |
//!
//! Every frame that comes in ends as answered, consumed, or dropped with a reason. Nothing here waits, allocates after
//! construction, or asks a clock.

mod chain;
mod exception;
mod extensions;
mod ip;
pub mod neighbours;
mod other;
pub mod owner;
pub mod packet;
pub mod parse;
mod path;
mod plain;
mod prefetch;
mod queue;
pub mod reply;
pub mod segment;
mod send;
pub mod standalone;
mod streams;

pub(crate) use path::{IPV4, mapped};
pub use path::{Path, Tag};

use crate::datagram::{
    Batch, Datagram, DatagramPort, DatagramStats, Datagrams, Opened, RawFd, SendError, Verdict, Verdicts,
};
use crate::frame::{Burst, Frame, Ledger, flag};
use crate::port::{Port, PortInfo, PortStats, QueueCounters};
use crate::stream::{StreamPort, StreamStats};
use crate::time::Now;
use neighbours::{Link, Neighbours, Subscription};
use other::Other;
use parse::Arrival;
use queue::TxQueue;
use reply::Checksum;
use standalone::{StandaloneConfig, StandaloneStats};
use volley_wire::DropReason;
use volley_wire::ethernet::Mac;
use volley_wire::ipv4::Ipv4Header;
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;

/// What a [`Net`] is told when it is made.
#[derive(Debug, Default)]
pub struct NetConfig {
    /// The index of this port among its worker's ports: what [`Path::port`] of received datagrams says.
    pub index: u8,
    /// The control thread, for sends to peers not heard from; without it those have no route.
    pub links: Option<Subscription>,
    /// No kernel stands behind the port: Net answers for these addresses, and asks on the link for whom `links` does not know. One
    /// that [`StandaloneConfig::check`] accepts.
    pub standalone: Option<StandaloneConfig>,
}

/// UDP over a frame port. See the module.
///
/// Generic only so that the cost of the virtual calls can be measured; use it as `Net` (`dyn Port`).
pub struct Net<P: Port + ?Sized = dyn Port> {
    mtu: usize,
    /// Packets up to this length need no look at the MTU of their path.
    any_mtu: usize,
    index: u8,
    arrival: Arrival,
    tx_checksum: bool,
    /// Headers are fetched before they are parsed.
    fetches: bool,
    max_segments: usize,
    stats: DatagramStats,
    /// When the worker's loop began.
    now: Now,
    /// Answers of the last `settle` that the port has not taken yet.
    answers: TxQueue,
    /// Datagrams sent unasked that the port has not been offered yet.
    unasked: TxQueue,
    /// What else goes out: solicitations, announcements, packets of a kernel.
    extra: TxQueue,
    other: Other,
    /// Frames to give back.
    done: Burst,
    /// Empty frames to send from, so that `alloc` is one virtual call for many.
    spare: Burst,
    neighbours: Neighbours,
    tcp: Option<Box<streams::Tcp>>,
    info: PortInfo,
    port: Box<P>,
}

impl<P: Port + ?Sized> Net<P> {
    /// Takes the port over.
    pub fn new(port: Box<P>, config: NetConfig) -> Net<P> {
        let info = port.info().clone();
        let other = Other::new(config.standalone, info.mac);
        let mtu = info.mtu.min(u16::MAX as usize);
        Net {
            mtu,
            any_mtu: any_mtu(mtu, &other),
            index: config.index,
            arrival: Arrival { mac: own_mac(&info, &other), port: config.index, queue: 0, verify: true },
            tx_checksum: info.tx_checksum,
            fetches: !port.reads_headers(),
            max_segments: info.max_segments,
            stats: DatagramStats::default(),
            now: Now::default(),
            answers: TxQueue::default(),
            unasked: TxQueue::default(),
            extra: TxQueue::default(),
            other,
            done: Burst::new(),
            spare: Burst::new(),
            neighbours: Neighbours::new(config.links),
            tcp: None,
            info,
            port,
        }
    }

    /// The port below.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port below, to drive it from a test.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// What the port is.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// The interface under the port, as far as the control thread has told.
    pub fn link(&self) -> Option<Link> {
        self.neighbours.link()
    }

    /// Neighbours, routes and addresses there was no room for.
    pub fn refused_updates(&self) -> u64 {
        self.neighbours.refused()
    }

    /// Hears what the control thread has to say.
    #[cold]
    fn catch_up(&mut self) {
        if let Some(Link::Present { mac, mtu, .. }) = self.neighbours.catch_up() {
            self.mtu = (mtu as usize).min(u16::MAX as usize);
            self.any_mtu = any_mtu(self.mtu, &self.other);
            if self.arrival.mac.is_some() {
                self.arrival.mac = Some(mac);
            }
        }
    }

    /// Most payload bytes a datagram may have, from the MTU alone.
    #[inline(always)]
    fn payload_limit(&self, ipv4: bool) -> usize {
        let headers = if ipv4 { Ipv4Header::LEN } else { Ipv6Header::LEN } + UdpHeader::LEN;
        self.mtu.saturating_sub(headers)
    }

    /// True when `len` bytes may go over a path of that family, as far as is known.
    #[inline(always)]
    fn fits(&mut self, ipv4: bool, len: usize, path: impl FnOnce() -> Path) -> bool {
        let headers = if ipv4 { Ipv4Header::LEN } else { Ipv6Header::LEN } + UdpHeader::LEN;
        len <= self.any_mtu.saturating_sub(headers) || self.admits(&path(), len)
    }

    /// The queue a packet leaves on that would like to leave on `wished`.
    fn tx_queue(&self, wished: u16) -> u16 {
        match self.info.queues.contains(&wished) {
            true => wished,
            false => self.info.queues.first().copied().unwrap_or(0),
        }
    }

    /// Parses and verifies any packet in one frame.
    #[inline(never)]
    fn open_frame(&self, frame: &Frame, index: usize) -> Result<Opened, DropReason> {
        let verified = frame.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL);
        let arrival = Arrival { queue: frame.queue(), verify: !verified, ..self.arrival };
        let bytes = frame.bytes();
        let parsed = parse::headers(bytes, bytes.len(), &arrival)?;
        if frame.has(flag::NOT_STEERED) {
            return Err(DropReason::NotSteered);
        }
        let payload = parsed.payload();
        if !verified {
            parsed.verify(&bytes[payload..payload + parsed.len as usize])?;
        }
        Ok(parsed.note(index, 1, payload))
    }

    /// Turns any packet in one frame around.
    #[inline(never)]
    fn answer_frame(
        &mut self,
        frame: &mut Frame,
        opened: &Opened,
        len: usize,
        unchanged: bool,
    ) -> Result<(), DropReason> {
        let end = opened.payload as usize + len;
        let path = || Path::of_packet(&frame.bytes()[..opened.headers()], opened);
        if !self.fits(opened.is_ipv4(), len, path) || end > frame.len() + frame.tailroom() {
            return Err(DropReason::AnswerTooLong);
        }
        let checksum = match self.keeps_checksum(frame, opened, unchanged) {
            true => Checksum::Kept,
            false if self.tx_checksum => Checksum::Partial,
            false => Checksum::Computed(None),
        };
        let gap = reply::turn(frame, opened, len, checksum);
        let fits = frame.set_len(end - gap);
        debug_assert!(fits, "the room was checked above");
        Ok(())
    }

    /// True when the checksum in the packet holds for its answer too: there is one, and nothing it covers changes.
    #[inline(always)]
    fn keeps_checksum(&self, first: &Frame, opened: &Opened, unchanged: bool) -> bool {
        let stored = first.bytes().get(opened.udp as usize + 6..opened.udp as usize + 8);
        unchanged && stored.is_some_and(|sum| sum != [0, 0]) && !first.has(flag::CHECKSUM_PARTIAL)
    }
}

impl<P: Port + ?Sized> DatagramPort for Net<P> {
    fn name(&self) -> &str {
        &self.info.name
    }

    fn recv(&mut self, batch: &mut Batch, now: Now) -> usize {
        self.now = now;
        if self.neighbours.has_news() {
            self.catch_up();
        }
        if self.other.is_there() {
            self.attend();
        }
        debug_assert!(batch.frames.is_empty(), "the last batch was not settled");
        if let Some(tcp) = &mut self.tcp {
            tcp.release(&mut *self.port);
            tcp.take_over(now.ns);
        }
        chain::reserve(&mut batch.scratch, self.max_segments, self.mtu);
        let received = self.port.rx(&mut batch.frames);
        if self.fetches {
            for frame in batch.frames.iter().take(prefetch::AHEAD) {
                prefetch::headers(frame);
            }
        }
        received
    }

    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        let Batch { frames, opened, scratch, .. } = batch;
        opened.clear();
        let mut used = 0;
        let mut index = 0;
        loop {
            let (next, bytes) = match self.fetches {
                true => plain::open::<true>(frames, index, &self.arrival, opened),
                false => plain::open::<false>(frames, index, &self.arrival, opened),
            };
            self.stats.received_bytes += bytes;
            index = next;
            let Some(frame) = frames.get(index) else { break };
            if frame.has(flag::MORE) {
                let (result, segments) =
                    self.open_chain(&frames[index..], index, scratch, &mut used, opened);
                if let Err(reason) = result {
                    self.turn_away(frames, index, index + segments, reason);
                }
                index += segments;
                continue;
            }
            match self.open_frame(frame, index) {
                Ok(note) => {
                    self.stats.received_bytes += u64::from(note.len);
                    opened.push(note);
                }
                Err(reason) => self.turn_away(frames, index, index + 1, reason),
            }
            index += 1;
        }
        self.stats.received += opened.len() as u64;
        if opened.is_empty() {
            // What has become an answer is sent by `settle`, and TCP has its frames from there.
            let segments = self.tcp.as_ref().is_some_and(|tcp| tcp.has_found());
            if !frames.is_empty() && self.other.answers == 0 && !segments {
                self.port.free(frames);
            }
            return 0;
        }

        // The notes stand now, so the views can borrow them and the frames side by side.
        let opened: &'b _ = opened;
        let limits = [self.payload_limit(false), self.payload_limit(true)];
        // As a rule, each frame is a datagram.
        if opened.len() == frames.len() && used == 0 {
            for (note, frame) in opened.iter().zip(frames) {
                out.push(view(frame, note, limits));
            }
            return opened.len();
        }
        let mut scratch = scratch.as_mut_slice();
        let mut frames = frames.iter_mut();
        let mut at = 0;
        for note in opened {
            let Some(frame) = frames.nth(note.frame as usize - at) else { break };
            at = note.frame as usize + 1;
            out.push(match note.segments {
                1 => view(frame, note, limits),
                _ => chain::view(&mut scratch, frame, note, limits),
            });
        }
        opened.len()
    }

    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts) {
        // Room for a whole burst of answers: what is left of the last one has had its second chance in `flush`.
        if !self.answers.is_empty() {
            self.flush();
        }
        let Batch { frames, opened, next_frame, next_byte, scratch, .. } = batch;
        // The frames that hold answers, a bit each. What is not an answer in the end is given back.
        let mut answers = std::mem::take(&mut self.other.answers);
        let mut packets = std::mem::take(&mut self.other.answered);
        let limits =
            [Ipv6Header::LEN, Ipv4Header::LEN].map(|ip| self.any_mtu.saturating_sub(ip + UdpHeader::LEN));
        let mut at = 0;
        loop {
            let (count, plain) =
                plain::answer(frames, &opened[at..], verdicts.get(at..).unwrap_or_default(), limits);
            answers |= plain;
            packets += count;
            at += count;
            let Some(note) = opened.get(at) else { break };
            let verdict = verdicts.get(at).copied().unwrap_or(Verdict::Consume);
            at += 1;
            let first = note.frame as usize;
            let outcome = match verdict {
                Verdict::Reply { len, unchanged } if note.segments == 1 => {
                    let Some(frame) = frames.get_mut(first) else { break };
                    self.answer_frame(frame, note, len as usize, unchanged).map(|()| 1)
                }
                Verdict::Reply { len, unchanged } => {
                    let Some(chain) = frames.get_mut(first..first + note.segments as usize) else { break };
                    self.answer_chain(chain, note, scratch, len as usize, unchanged)
                }
                Verdict::Drop(reason) => Err(reason),
                Verdict::Consume => {
                    self.stats.consumed += 1;
                    continue;
                }
            };
            match outcome {
                Ok(segments) => {
                    answers |= segments << first;
                    packets += 1;
                }
                Err(reason) => self.stats.drop(reason),
            }
        }
        opened.clear();
        (*next_frame, *next_byte) = (0, 0);
        let taken = match answers.count_ones() as usize == frames.len() {
            true => self.answers.offer_from(frames, packets, &mut *self.port),
            false => {
                let segments = self.tcp.as_ref().map_or(0, |tcp| tcp.frames_found());
                for (index, frame) in frames.drain(..).enumerate() {
                    match (answers >> index & 1, &mut self.tcp) {
                        (1, _) => self.answers.push(frame),
                        (_, Some(tcp)) if segments >> index & 1 == 1 => tcp.streams.held().push(frame),
                        _ => self.done.push(frame),
                    }
                }
                self.answers.offer(&mut *self.port)
            }
        };
        self.stats.answered += taken as u64;
        if !self.done.is_empty() {
            self.port.free(&mut self.done);
        }
        if let Some(tcp) = &mut self.tcp {
            tcp.receive(self.now.ns);
        }
    }

    fn send(&mut self, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        self.send_unasked(path, len, fill)
    }

    fn flush(&mut self) {
        self.release_segments();
        if self.other.is_there() {
            self.flush_other();
        }
        self.stats.sent += self.unasked.offer(&mut *self.port) as u64;
        self.send_segments();
        self.port.flush();
        let segments = self.tcp.as_ref().is_some_and(|tcp| !tcp.queue.is_empty());
        if self.answers.is_empty() && self.unasked.is_empty() && self.extra.is_empty() && !segments {
            return;
        }
        // The flush has reaped completions, so there may be room now. What still finds none is dropped: kept longer, it
        // would be late, and would hold frames that receive could use.
        self.stats.answered += self.answers.offer(&mut *self.port) as u64;
        self.stats.sent += self.unasked.offer(&mut *self.port) as u64;
        self.extra.offer(&mut *self.port);
        self.abandon_segments();
        self.port.flush();
        for queue in [&mut self.answers, &mut self.unasked, &mut self.extra] {
            self.stats.dropped[DropReason::TxFull as usize] += queue.abandon(&mut *self.port) as u64;
        }
    }

    fn stats(&self) -> DatagramStats {
        self.stats
    }

    fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    fn queue_counters(&self, at: usize) -> QueueCounters {
        self.port.queue_counters(at)
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = self.port.ledger();
        let segments = self.tcp.as_ref().map_or(0, |tcp| tcp.queue.len() + tcp.streams.holds());
        let queued = self.answers.len() + self.unasked.len() + self.extra.len() + segments;
        let held = (queued + self.spare.len()) as u64;
        ledger.app -= held;
        ledger.held += held;
        ledger
    }

    fn max_payload(&self, ipv4: bool) -> usize {
        self.payload_limit(ipv4)
    }

    fn stop_rx(&mut self) {
        if let Some(tcp) = &mut self.tcp {
            tcp.streams.stop();
        }
        self.port.stop_rx();
        if let Some(exception) = &mut self.other.exception {
            exception.stop();
        }
    }

    fn is_drained(&self) -> bool {
        let exception = self.other.exception.as_ref().is_none_or(|exception| exception.is_drained());
        let queued = !self.answers.is_empty() || !self.unasked.is_empty() || !self.extra.is_empty();
        let streams = self.tcp.as_ref().is_none_or(|tcp| tcp.streams.is_drained());
        exception && !queued && streams && self.port.ledger().kernel_tx == 0
    }

    fn streams(&mut self) -> Option<&mut dyn StreamPort> {
        self.tcp.as_mut().map(|tcp| &mut *tcp.streams as &mut dyn StreamPort)
    }

    fn has_waiting(&self) -> bool {
        self.tcp.as_ref().is_some_and(|tcp| tcp.has_waiting())
    }

    fn standalone_stats(&self) -> StandaloneStats {
        Net::standalone_stats(self).unwrap_or_default()
    }

    fn stream_stats(&self) -> StreamStats {
        self.tcp.as_ref().map_or_else(StreamStats::default, |tcp| tcp.streams.stats())
    }

    fn close(&mut self) -> Ledger {
        self.release_segments();
        self.close_segments();
        let unsent = self.answers.abandon(&mut *self.port)
            + self.unasked.abandon(&mut *self.port)
            + self.extra.abandon(&mut *self.port);
        if let Some(exception) = &mut self.other.exception {
            self.stats.dropped[DropReason::PortClosed as usize] += exception.close();
            exception.close_port();
        }
        self.stats.dropped[DropReason::PortClosed as usize] += unsent as u64;
        self.port.free(&mut self.spare);
        self.port.free(&mut self.done);
        self.port.close()
    }

    fn failure(&self) -> Option<String> {
        let removed = || match self.neighbours.link() {
            Some(Link::Removed) => Some(format!("{}: the interface was removed", self.info.name)),
            _ => None,
        };
        self.port.failure().or_else(removed)
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        let exception = self.other.exception.iter().flat_map(|exception| exception.poll_fds());
        self.port.poll_fds().into_iter().chain(exception).collect()
    }

    fn max_payload_to(&self, path: &Path) -> usize {
        let headers = if path.is_ipv4() { Ipv4Header::LEN } else { Ipv6Header::LEN } + UdpHeader::LEN;
        self.path_mtu(path).saturating_sub(headers)
    }

    fn next_deadline(&self) -> Option<u64> {
        let nap = self.port.nap_ns().map(|ns| self.now.ns + ns);
        let streams = self.tcp.as_ref().and_then(|tcp| tcp.streams.next_deadline());
        [nap, streams, self.other_deadline()].into_iter().flatten().min()
    }
}

/// A datagram in one frame. `limits` are the most bytes of a payload to send over IPv6 and IPv4.
#[inline(always)]
fn view<'b>(frame: &'b mut Frame, note: &'b Opened, limits: [usize; 2]) -> Datagram<'b> {
    let limit = limits[usize::from(note.is_ipv4())].max(note.len as usize);
    let (headers, room) = frame.room_mut().split_at_mut(note.payload as usize);
    let end = limit.min(room.len());
    Datagram::of_packet(&mut room[..end], headers, note)
}

/// The longest packet that needs no look at the MTU of its path: of those that are longer, [`Standalone::admits`] wants to know.
///
/// [`Standalone::admits`]: standalone::Standalone::admits
fn any_mtu(mtu: usize, other: &Other) -> usize {
    match other.standalone.is_some() {
        true => mtu.min(standalone::SMALLEST_MTU),
        false => mtu,
    }
}

/// The MAC whose frames are ours.
fn own_mac(info: &PortInfo, other: &Other) -> Option<Mac> {
    // A port that takes frames for any MAC goes on to do so.
    info.mac.map(|mac| other.standalone.as_ref().map_or(mac, |standalone| standalone.mac()))
}

impl<P: Port + ?Sized> Drop for Net<P> {
    fn drop(&mut self) {
        self.release_segments();
        self.answers.abandon(&mut *self.port);
        self.unasked.abandon(&mut *self.port);
        if let Some(tcp) = &mut self.tcp {
            tcp.queue.abandon(&mut *self.port);
        }
        self.extra.abandon(&mut *self.port);
        self.port.free(&mut self.spare);
        self.port.free(&mut self.done);
    }
}

#[cfg(test)]
mod tests;
