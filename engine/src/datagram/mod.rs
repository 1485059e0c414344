//! Datagrams, and the ports that carry them.
//!
//! [`crate::net::Net`] makes a datagram port of any frame port; kernel sockets are datagram ports by nature. A worker
//! drives each the same way:
//!
//! ```text
//!  recv(&mut batch)              device or socket ──► frames in the batch
//!  open(&mut batch) ─► views     up to 64 datagrams borrowed from the batch   ┐ repeated until
//!    app.on_burst(&mut views)    the app leaves one verdict on each           │ open finds no more
//!  settle(&mut batch, verdicts)  answers queued in place, the rest freed      ┘
//!  flush()                       one doorbell
//! ```
//!
//! The frames live in the [`Batch`], not in the port, so that an app may send over any port while it looks at a burst.

mod mio;
#[cfg(target_os = "linux")]
mod mmsg;
pub mod models;
#[cfg(target_os = "linux")]
mod one_by_one;
#[cfg(target_os = "linux")]
mod readiness;
pub mod socket;
mod turn;
#[cfg(target_os = "linux")]
mod uring;

pub use models::SocketModel;
#[cfg(target_os = "linux")]
pub use models::{EpollPort, MmsgPort};
pub use socket::{SocketConfig, SocketError};
pub use turn::turn;

use crate::frame::{BURST, Burst, Ledger};
use crate::net::standalone::StandaloneStats;
use crate::net::{IPV4, Path};
use crate::port::{PortStats, QueueCounters};
use crate::stream::{StreamPort, StreamStats};
use crate::time::Now;
use arrayvec::ArrayVec;
use serde::Serialize;
use volley_wire::DropReason;
use volley_wire::udp::UdpHeader;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A descriptor to wait on.
#[cfg(unix)]
pub use std::os::fd::RawFd;
/// A descriptor to wait on: there are none on this system, workers sleep by time.
#[cfg(not(unix))]
pub type RawFd = i32;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done with; nothing is sent.
    Consume,
    /// Answered with this many bytes of the datagram's own buffer.
    Reply {
        /// Bytes of the answer.
        len: u32,
        /// The payload is what arrived, byte for byte and in length: its checksum still holds.
        unchanged: bool,
    },
    /// Refused, counted under the reason.
    Drop(DropReason),
}

/// A received datagram: its payload, borrowed for the call, and the path it took.
#[derive(Debug)]
pub struct Datagram<'b> {
    room: &'b mut [u8],
    origin: Origin<'b>,
    len: u32,
    touched: bool,
    verdict: Verdict,
}

/// What the path of a datagram is taken from. Most apps ask for few or none, so it is not made before.
#[derive(Clone, Copy, Debug)]
enum Origin<'b> {
    Path(&'b Path),
    /// The packet's bytes up to the payload, and what was noted of them.
    Packet(&'b [u8], &'b Opened),
}

impl<'b> Datagram<'b> {
    /// A view over `room`, whose first `len` bytes are the payload and whose rest is free for a longer answer.
    /// For datagram ports.
    #[inline(always)]
    pub fn new(room: &'b mut [u8], len: usize, path: &'b Path) -> Datagram<'b> {
        Datagram::of(room, len, Origin::Path(path))
    }

    /// As [`Datagram::new`], of a packet with these headers (its bytes up to the payload), of which `note` has been taken: the path
    /// is what they say.
    #[inline(always)]
    pub fn of_packet(room: &'b mut [u8], headers: &'b [u8], note: &'b Opened) -> Datagram<'b> {
        Datagram::of(room, note.len as usize, Origin::Packet(headers, note))
    }

    #[inline(always)]
    fn of(room: &'b mut [u8], len: usize, origin: Origin<'b>) -> Datagram<'b> {
        debug_assert!(len <= room.len());
        Datagram { room, origin, len: len as u32, touched: false, verdict: Verdict::Consume }
    }

    /// The payload as it arrived (or as it was changed since).
    #[inline(always)]
    pub fn payload(&self) -> &[u8] {
        &self.room[..self.len as usize]
    }

    /// The payload and the room behind it, writable, for an answer in place. Looking at it costs the answer a
    /// fresh checksum, so an echo does better with [`Datagram::payload`] alone.
    #[inline(always)]
    pub fn room_mut(&mut self) -> &mut [u8] {
        self.touched = true;
        self.room
    }

    /// Who sent it, to which of our addresses, and the way back. Read from the packet's headers by each call, so an app keeps what it
    /// needs more than once.
    #[inline]
    pub fn path(&self) -> Path {
        match self.origin {
            Origin::Path(path) => *path,
            Origin::Packet(headers, note) => Path::of_packet(headers, note),
        }
    }

    /// Answers with the first `len` bytes of [`Datagram::room_mut`]; more than the room is a drop with reason.
    #[inline(always)]
    pub fn reply(&mut self, len: usize) {
        self.verdict = match len <= self.room.len() {
            true => {
                Verdict::Reply { len: len as u32, unchanged: !self.touched && len == self.len as usize }
            }
            false => Verdict::Drop(DropReason::AnswerTooLong),
        };
    }

    /// Answers with `bytes`, copied into place.
    pub fn reply_with(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.touched = true;
        }
        self.reply(bytes.len());
    }

    /// Marks it done without an answer. This is also what happens when no verdict is given.
    #[inline(always)]
    pub fn consume(&mut self) {
        self.verdict = Verdict::Consume;
    }

    /// Refuses it; the reason is counted.
    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        self.verdict = Verdict::Drop(reason);
    }

    /// The verdict so far.
    #[inline(always)]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// Up to a burst of datagrams, as an app gets them.
pub type Datagrams<'b> = ArrayVec<Datagram<'b>, BURST>;
/// The verdicts of a burst, in its order.
pub type Verdicts = ArrayVec<Verdict, BURST>;

/// What a port noted about a datagram it opened, to answer it without parsing again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Index in [`Batch::frames`] of the (first) frame.
    pub frame: u16,
    /// Frames the datagram is spread over.
    pub segments: u16,
    /// Where the IP header begins in the first frame.
    pub ip: u16,
    /// Where the UDP header begins in the first frame.
    pub udp: u16,
    /// Where the payload begins: in the frame, or, of a datagram in several frames, in [`Batch::scratch`].
    pub payload: u32,
    /// Bytes of the payload.
    pub len: u32,
    /// The queue it arrived on.
    pub queue: u16,
    /// The index of the worker's port.
    pub port: u8,
    /// For the net layer: family and VLAN tags, as in a [`Path`], and whether there is nothing else.
    pub(crate) bits: u8,
}

impl Opened {
    /// True for IPv4.
    #[inline(always)]
    pub(crate) fn is_ipv4(&self) -> bool {
        self.bits & IPV4 != 0
    }

    /// Bytes of the headers in the first frame.
    #[inline(always)]
    pub(crate) fn headers(&self) -> usize {
        usize::from(self.udp) + UdpHeader::LEN
    }
}

const _: () = assert!(size_of::<Opened>() <= 24, "three words, since one is written for each packet");

/// One received burst on its way through a worker. Owned by the worker, filled and emptied by datagram ports.
#[derive(Default)]
pub struct Batch {
    /// The frames, as received. Empty again after the last [`DatagramPort::settle`].
    pub frames: Burst,
    /// The datagrams given out by the last [`DatagramPort::open`].
    pub opened: ArrayVec<Opened, BURST>,
    /// The path of each frame, from ports whose frames have no headers that say it.
    pub paths: ArrayVec<Path, BURST>,
    /// How far [`DatagramPort::open`] has come: the next frame to look at.
    pub next_frame: usize,
    /// How far [`DatagramPort::open`] has come within that frame (a kernel GRO buffer holds many datagrams).
    pub next_byte: usize,
    /// The payloads of datagrams that are spread over several frames, put together; sized once, by ports that have such.
    pub scratch: Vec<u8>,
}

/// Why an unasked datagram could not be sent. Nothing blocks: the caller decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No free frame, or the transmit queue is full: try again after this burst.
    #[error("the transmit queue is full")]
    Full,
    /// The peer's link-layer address is being resolved: try again in some milliseconds.
    #[error("the peer's link-layer address is not known yet; it is being resolved")]
    Unresolved,
    /// There is no route to the peer from that address.
    #[error("no route to the peer")]
    NoRoute,
    /// Longer than the path's MTU allows.
    #[error("the datagram is longer than the MTU allows")]
    TooLong,
    /// The path names a port this worker does not have, or one that is closed.
    #[error("the path's port is not open on this worker")]
    NoPort,
}

/// Counters of a datagram port since it was opened, in datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramStats {
    /// Valid datagrams given to the app.
    pub received: u64,
    /// Payload bytes of those.
    pub received_bytes: u64,
    /// Answered in place.
    pub answered: u64,
    /// Consumed by the app.
    pub consumed: u64,
    /// Sent unasked.
    pub sent: u64,
    /// Packets that were no datagrams and have been dealt with, without an answer in place: TCP segments, advertisements,
    /// errors. (ARP requests, solicitations and echoes that were answered count as answered.)
    pub handled: u64,
    /// Packets that were not ours, handed over to a kernel behind the port (the exception path).
    pub passed: u64,
    /// Dropped, by reason ([`DropReason`] as index); serialised as a map of the reasons that occurred.
    #[serde(serialize_with = "by_reason")]
    pub dropped: [u64; DropReason::COUNT],
}

impl Default for DatagramStats {
    fn default() -> Self {
        DatagramStats {
            received: 0,
            received_bytes: 0,
            answered: 0,
            consumed: 0,
            sent: 0,
            handled: 0,
            passed: 0,
            dropped: [0; DropReason::COUNT],
        }
    }
}

fn by_reason<S: serde::Serializer>(dropped: &[u64; DropReason::COUNT], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        DropReason::ALL.iter().zip(dropped).filter(|(_, n)| **n > 0).map(|(r, n)| (r.as_str(), n)),
    )
}

impl DatagramStats {
    /// Counts one drop.
    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    /// All drops.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// A way for datagrams in and out, owned by one worker.
pub trait DatagramPort: Send {
    /// For messages and reports.
    fn name(&self) -> &str;

    /// Receives what is there, at most one burst of frames; returns the number of frames. The batch is empty before.
    fn recv(&mut self, batch: &mut Batch, now: Now) -> usize;

    /// Gives out views of the next datagrams in the batch, at most [`BURST`], and notes each in [`Batch::opened`]; what is
    /// no valid datagram is counted by reason. Returns 0 when the batch is through.
    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize;

    /// Carries out the verdicts on the datagrams of the last `open`, in their order. The worker calls it after every `open`,
    /// with no verdicts when that returned 0. Once `open` has looked at the whole batch, this leaves it empty: every frame has
    /// been queued for transmit or freed.
    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts);

    /// Queues one datagram of `len` bytes that `fill` writes, to the peer of `path`.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued then, and it is not counted as a drop.
    fn send(&mut self, path: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError>;

    /// Sends what is queued: one doorbell.
    fn flush(&mut self);

    /// Counters so far.
    fn stats(&self) -> DatagramStats;

    /// Counters of the frame port below, for ports that have one.
    fn port_stats(&self) -> PortStats {
        PortStats::default()
    }

    /// Counters of the queue at place `at` of the frame port below; all zero for ports that have none.
    fn queue_counters(&self, at: usize) -> QueueCounters {
        let _ = at;
        QueueCounters::default()
    }

    /// Where every frame is.
    fn ledger(&self) -> Ledger;

    /// Largest payload that `send` takes to an IPv4 or IPv6 peer without VLAN tags, in bytes.
    fn max_payload(&self, ipv4: bool) -> usize;

    /// Largest payload that `send` takes to the peer of `path`, as far as the MTU of its path is known, in bytes.
    fn max_payload_to(&self, path: &Path) -> usize {
        self.max_payload(path.is_ipv4())
    }

    /// Stops receiving (shutdown); transmit goes on until everything is out.
    fn stop_rx(&mut self);

    /// True when nothing waits to be sent or completed.
    fn is_drained(&self) -> bool;

    /// Closes the port, for good, and says where its frames ended: those still on their way out are counted as abandoned.
    fn close(&mut self) -> Ledger {
        self.ledger()
    }

    /// The port is gone; the reason, once it is known.
    fn failure(&self) -> Option<String> {
        None
    }

    /// The stream port over the same frames, for ports that have one: its events may be pulled between `open` and `settle`, while
    /// what arrived is still in its frames.
    fn streams(&mut self) -> Option<&mut dyn StreamPort> {
        None
    }

    /// True when something came from another worker since the last `recv`: what a worker looks at after saying that it sleeps.
    fn has_waiting(&self) -> bool {
        false
    }

    /// Told when the worker is about to wait on [`DatagramPort::poll_fds`], for ports whose descriptors have to be made ready for
    /// that. True when there is something to do already: then it does not sleep.
    fn before_sleep(&mut self) -> bool {
        false
    }

    /// What happened on the link, of a port without a kernel behind it; all zero where there is one.
    fn standalone_stats(&self) -> StandaloneStats {
        StandaloneStats::default()
    }

    /// Counters of that stream port.
    fn stream_stats(&self) -> StreamStats {
        StreamStats::default()
    }

    /// Descriptors to wait on when the worker sleeps; asked once, after opening.
    fn poll_fds(&self) -> Vec<RawFd>;

    /// The next moment (monotonic ns) at which the port wants `recv` called even if nothing arrives.
    fn next_deadline(&self) -> Option<u64> {
        None
    }
}
