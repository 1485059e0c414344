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
//! | `chain` | packets spread over several frames (multi-buffer) |
//! | `queue` | frames on their way to the port, and what becomes of those it does not take |
//! | [`neighbours`] | what is known of the link: MACs, routes, our addresses |
//! | `send` | unasked datagrams |
//! | [`packet`] | packets made by hand, for tests and benches |
//! | [`Path`] | where a datagram came from and how to get back |
//!
//! Every frame that comes in ends as answered, consumed, or dropped with a reason. Nothing here waits, allocates after
//! construction, or asks a clock.

mod chain;
pub mod neighbours;
pub mod packet;
pub mod parse;
mod path;
mod prefetch;
mod queue;
pub mod reply;
mod send;

pub use path::{Path, Tag};

use crate::datagram::{
    Batch, DatagramPort, DatagramStats, Datagrams, Opened, SendError, Verdict, Verdicts,
};
use crate::frame::{Burst, Frame, Ledger, flag};
use crate::port::{Port, PortInfo, PortStats};
use crate::time::Now;
use neighbours::{Link, Neighbours, Subscription};
use parse::Arrival;
use queue::TxQueue;
use reply::Checksum;
use std::os::fd::RawFd;
use volley_wire::DropReason;
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
}

/// UDP over a frame port. See the module.
///
/// Generic only so that the cost of the virtual calls can be measured; use it as `Net` (`dyn Port`).
pub struct Net<P: Port + ?Sized = dyn Port> {
    mtu: usize,
    index: u8,
    arrival: Arrival,
    tx_checksum: bool,
    max_segments: usize,
    stats: DatagramStats,
    /// When the worker's loop began.
    now_ns: u64,
    /// Answers of the last `settle` that the port has not taken yet.
    answers: TxQueue,
    /// Datagrams sent unasked that the port has not been offered yet.
    unasked: TxQueue,
    /// Frames to give back.
    done: Burst,
    /// Empty frames to send from, so that `alloc` is one virtual call for many.
    spare: Burst,
    neighbours: Neighbours,
    info: PortInfo,
    port: Box<P>,
}

impl<P: Port + ?Sized> Net<P> {
    /// Takes the port over.
    pub fn new(port: Box<P>, config: NetConfig) -> Net<P> {
        let info = port.info().clone();
        Net {
            mtu: info.mtu.min(u16::MAX as usize),
            index: config.index,
            arrival: Arrival { mac: info.mac, port: config.index, queue: 0, verify: true },
            tx_checksum: info.tx_checksum,
            max_segments: info.max_segments,
            stats: DatagramStats::default(),
            now_ns: 0,
            answers: TxQueue::default(),
            unasked: TxQueue::default(),
            done: Burst::new(),
            spare: Burst::new(),
            neighbours: Neighbours::new(config.links),
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

    /// Parses and verifies a packet in one frame.
    #[inline(always)]
    fn open_frame(&self, frame: &Frame, index: usize) -> Result<Opened, DropReason> {
        let verified = frame.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL);
        let arrival = Arrival { queue: frame.queue(), verify: !verified, ..self.arrival };
        let bytes = frame.bytes();
        let parsed = parse::headers(bytes, bytes.len(), &arrival)?;
        let payload = parsed.payload();
        if !verified {
            parsed.verify(&bytes[payload..payload + parsed.len as usize])?;
        }
        Ok(Opened {
            path: parsed.path,
            frame: index as u16,
            segments: 1,
            ip: parsed.ip,
            udp: parsed.udp,
            payload: payload as u32,
            len: u32::from(parsed.len),
        })
    }

    /// Turns a packet in one frame around.
    #[inline(always)]
    fn answer_frame(
        &self,
        frame: &mut Frame,
        opened: &Opened,
        len: usize,
        unchanged: bool,
    ) -> Result<(), DropReason> {
        let end = opened.payload as usize + len;
        if len > self.payload_limit(opened.path.is_ipv4()) || end > frame.len() + frame.tailroom() {
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
        self.now_ns = now.ns;
        if self.neighbours.has_news() {
            self.catch_up();
        }
        debug_assert!(batch.frames.is_empty(), "the last batch was not settled");
        chain::reserve(&mut batch.scratch, self.max_segments, self.mtu);
        let received = self.port.rx(&mut batch.frames);
        for frame in batch.frames.iter().take(prefetch::AHEAD) {
            prefetch::headers(frame);
        }
        received
    }

    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        let Batch { frames, opened, scratch, .. } = batch;
        opened.clear();
        let mut used = 0;
        let mut index = 0;
        while let Some(frame) = frames.get(index) {
            if let Some(coming) = frames.get(index + prefetch::AHEAD) {
                prefetch::headers(coming);
            }
            if frame.has(flag::MORE) {
                index += self.open_chain(&frames[index..], index, scratch, &mut used, opened);
                continue;
            }
            match self.open_frame(frame, index) {
                Ok(note) => {
                    self.stats.received_bytes += u64::from(note.len);
                    opened.push(note);
                }
                Err(reason) => self.stats.drop(reason),
            }
            index += 1;
        }
        self.stats.received += opened.len() as u64;
        if opened.is_empty() {
            if !frames.is_empty() {
                self.port.free(frames);
            }
            return 0;
        }

        // The notes stand now, so the views can borrow them and the frames side by side.
        let opened: &'b _ = opened;
        let limits = [self.payload_limit(false), self.payload_limit(true)];
        let mut scratch = scratch.as_mut_slice();
        let mut frames = frames.iter_mut();
        let mut at = 0;
        for note in opened {
            let limit = limits[usize::from(note.path.is_ipv4())].max(note.len as usize);
            let Some(frame) = frames.nth(note.frame as usize - at) else { break };
            at = note.frame as usize + 1;
            let room = match note.segments {
                1 => {
                    let room = &mut frame.room_mut()[note.payload as usize..];
                    let end = limit.min(room.len());
                    &mut room[..end]
                }
                _ => chain::view(&mut scratch, note, limit),
            };
            out.push(crate::datagram::Datagram::new(room, note.len as usize, &note.path));
        }
        opened.len()
    }

    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts) {
        // Room for a whole burst of answers: what is left of the last one has had its second chance in `flush`.
        if !self.answers.is_empty() {
            self.flush();
        }
        let Batch { frames, opened, next_frame, next_byte, scratch } = batch;
        // The frames that hold answers, a bit each. What is not an answer in the end is given back.
        let (mut answers, mut packets) = (0u64, 0);
        let mut verdicts = verdicts.iter();
        for note in opened.iter() {
            let verdict = verdicts.next().copied().unwrap_or(Verdict::Consume);
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
                for (index, frame) in frames.drain(..).enumerate() {
                    match answers >> index & 1 {
                        1 => self.answers.push(frame),
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
    }

    fn send(&mut self, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        self.send_unasked(path, len, fill)
    }

    fn flush(&mut self) {
        self.stats.sent += self.unasked.offer(&mut *self.port) as u64;
        self.port.flush();
        if self.answers.is_empty() && self.unasked.is_empty() {
            return;
        }
        // The flush has reaped completions, so there may be room now. What still finds none is dropped: kept longer, it
        // would be late, and would hold frames that receive could use.
        self.stats.answered += self.answers.offer(&mut *self.port) as u64;
        self.stats.sent += self.unasked.offer(&mut *self.port) as u64;
        self.port.flush();
        for queue in [&mut self.answers, &mut self.unasked] {
            self.stats.dropped[DropReason::TxFull as usize] += queue.abandon(&mut *self.port) as u64;
        }
    }

    fn stats(&self) -> DatagramStats {
        self.stats
    }

    fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = self.port.ledger();
        let held = (self.answers.len() + self.unasked.len() + self.spare.len()) as u64;
        ledger.app -= held;
        ledger.held += held;
        ledger
    }

    fn max_payload(&self, ipv4: bool) -> usize {
        self.payload_limit(ipv4)
    }

    fn stop_rx(&mut self) {
        self.port.stop_rx();
    }

    fn is_drained(&self) -> bool {
        self.answers.is_empty() && self.unasked.is_empty() && self.port.ledger().kernel_tx == 0
    }

    fn close(&mut self) -> Ledger {
        let unsent = self.answers.abandon(&mut *self.port) + self.unasked.abandon(&mut *self.port);
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
        self.port.poll_fds()
    }
}

impl<P: Port + ?Sized> Drop for Net<P> {
    fn drop(&mut self) {
        self.answers.abandon(&mut *self.port);
        self.unasked.abandon(&mut *self.port);
        self.port.free(&mut self.spare);
        self.port.free(&mut self.done);
    }
}

#[cfg(test)]
mod tests;
