//! Transmission control blocks: plain data linked by index, the hot part of each in two cache lines.

use crate::address::FlowKey;
use crate::buffer::{Cursor, NIL, Queue};
use crate::config::{ConnectionOptions, KeepAlive};
use crate::events::CloseReason;
use crate::sender::congestion::Congestion;
use crate::sender::rack::Rack;
use crate::sender::recovery::Recovery;
use crate::sender::rtt::Rtt;
use crate::sequence::Seq;
use crate::state::State;
use std::time::Duration;

/// Names a connection. A slot is used again; its generation then differs, so that a stale name is an error and never
/// somebody else's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Index of the connection, below [`crate::Config::max_connections`]: fit for a table of the caller's.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// Bits of [`Hot::flags`].
pub(crate) mod f {
    /// Nagle is off.
    pub const NO_DELAY: u32 = 1 << 0;
    pub const CORK: u32 = 1 << 1;
    /// SACK was negotiated.
    pub const SACK: u32 = 1 << 2;
    /// Timestamps were negotiated.
    pub const TIMESTAMPS: u32 = 1 << 3;
    /// ECN was negotiated.
    pub const ECN: u32 = 1 << 4;
    /// ECE goes out until CWR comes in.
    pub const ECE: u32 = 1 << 5;
    /// CWR goes out with the next new data.
    pub const CWR: u32 = 1 << 6;
    /// Something received is not acknowledged yet.
    pub const ACK_PENDING: u32 = 1 << 7;
    /// … and may not wait.
    pub const ACK_NOW: u32 = 1 << 8;
    /// The application has closed its direction: FIN follows the queued data.
    pub const FIN_QUEUED: u32 = 1 << 9;
    /// The FIN has been sent (it may have to be sent again).
    pub const FIN_SENT: u32 = 1 << 10;
    /// The application has closed the connection: nobody reads, and the slot goes back by itself.
    pub const ORPHAN: u32 = 1 << 11;
    /// A write came back short.
    pub const WANT_WRITE: u32 = 1 << 12;
    /// In the queue of connections with something to send.
    pub const IN_OUTPUT: u32 = 1 << 13;
    /// In the event queue.
    pub const IN_EVENTS: u32 = 1 << 14;
    /// Waits for `accept`.
    pub const UNACCEPTED: u32 = 1 << 15;
    /// The delayed-acknowledgment timer runs.
    pub const ACK_TIMER: u32 = 1 << 16;
    /// `Cold::life_at` runs (FIN-WAIT-2, linger, orphan, connect timeout).
    pub const LIFE_TIMER: u32 = 1 << 17;
    /// `Cold::keep_at` runs.
    pub const KEEP_TIMER: u32 = 1 << 18;
    /// Send even what silly-window avoidance holds back (the override timer of RFC 9293, section 3.8.6.2.1, or a probe).
    pub const PUSH_NOW: u32 = 1 << 19;
    /// A zero-window probe is due.
    pub const PROBE: u32 = 1 << 20;
    /// A keep-alive probe is due.
    pub const KEEP_PROBE: u32 = 1 << 21;
    /// A tail loss probe is due.
    pub const TAIL_PROBE: u32 = 1 << 22;
    /// The slot is in use.
    pub const USED: u32 = 1 << 24;
    /// The peer's FIN is in (all data before it, too).
    pub const FIN_RECEIVED: u32 = 1 << 25;
    /// A passive open, for SYN-RECEIVED (RFC 9293, section 3.10.7.4: a reset returns it to LISTEN).
    pub const PASSIVE: u32 = 1 << 26;
    /// SYN (or SYN-ACK) is to be sent.
    pub const SYN_DUE: u32 = 1 << 27;
    /// The application reads no more; data that comes is acknowledged and thrown away.
    pub const READ_SHUT: u32 = 1 << 28;
    /// The connection has reached TIME-WAIT or CLOSED and stands only for its unread data.
    pub const FINISHED: u32 = 1 << 29;
    /// Some record is marked lost and waits to be sent again.
    pub const LOST: u32 = 1 << 30;
}

/// What the retransmission timer will do when it fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Timer {
    #[default]
    Off,
    /// Retransmission timeout (RFC 6298).
    Retransmit,
    /// Tail loss probe (RFC 8985, section 7).
    TailProbe,
    /// Reordering window has passed (RFC 8985, section 6.2, step 5).
    Reorder,
    /// Zero-window probe (RFC 9293, section 3.8.6.1), or the silly-window override.
    Persist,
}

/// What every segment of a connection touches.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Hot {
    pub key: FlowKey,
    pub state: State,
    pub timer: Timer,
    /// Shift of the windows the peer sends.
    pub snd_scale: u8,
    /// Shift of the windows we send.
    pub rcv_scale: u8,
    pub flags: u32,
    pub rcv_nxt: Seq,
    /// Right edge of the window offered: it never moves left (RFC 9293, section 3.8.6.2.2).
    pub rcv_edge: Seq,
    /// Bytes received in order and not yet read.
    pub rcv_used: u32,
    /// TS.Recent (RFC 7323, section 4.3).
    pub ts_recent: u32,
    /// Added to the clock for TSval.
    pub ts_offset: u32,
    // The second line: what is sent.
    pub snd_una: Seq,
    pub snd_nxt: Seq,
    /// Sequence number after the last byte queued, FIN not counted.
    pub snd_end: Seq,
    pub snd_wnd: u32,
    pub snd_wl1: Seq,
    pub generation: u32,
    pub cwnd: u32,
    /// Bytes thought to be in the network (pipe of RFC 6675).
    pub in_flight: u32,
    /// Payload that fits a segment beside the usual options.
    pub mss: u16,
    /// Events not yet told.
    pub events: u8,
    /// The largest segment the peer has sent, in units of 64 bytes, rounded up.
    pub rcv_mss: u8,
    /// First and last record in flight.
    pub records: (u32, u32),
    pub send: Queue,
    /// Where unsent data begins.
    pub unsent: u32,
    pub unsent_offset: u16,
    /// Bytes received in order since the last acknowledgment, saturating.
    pub unacked: u16,
    pub timer_at: u32,
}

const _: () = assert!(size_of::<Hot>() == 128, "two cache lines");

/// A piece of received data that still stands in a frame of the burst.
pub(crate) const NO_PIECE: u32 = NIL;

/// [`KeepAlive`] in milliseconds; `idle` is zero when it is off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAliveMs {
    pub idle: u32,
    pub interval: u32,
    pub probes: u8,
}

impl KeepAliveMs {
    pub(crate) fn new(keep: Option<KeepAlive>) -> KeepAliveMs {
        keep.map_or(KeepAliveMs { idle: 0, interval: 0, probes: 0 }, |keep| KeepAliveMs {
            idle: crate::time::ms_of(keep.idle),
            interval: crate::time::ms_of(keep.interval),
            probes: keep.probes,
        })
    }
}

/// The rest. The first five lines are what an exchange of messages touches, and are asked for with the burst's other lines.
#[repr(C, align(64))]
pub(crate) struct Cold {
    // Line one: receiving.
    pub receive: Queue,
    /// First and last piece in frames.
    pub pieces: (u32, u32),
    /// First of the out-of-order ranges.
    pub ranges: u32,
    /// Chunks that hold received data, in order and out of order.
    pub rcv_chunks: u32,
    pub rcv_buf: u32,
    pub snd_buf: u32,
    pub low_water: u32,
    /// RCV.NXT when the last acknowledgment left: RFC 7323's Last.ACK.sent.
    pub last_ack_sent: Seq,
    pub max_window: u32,
    pub path: u32,
    /// When the peer was last heard, milliseconds, as all times here that do not say otherwise.
    pub heard_at: u32,
    /// When the peer last acknowledged something new.
    pub progress_at: u32,
    // Line two: more of it, and times.
    pub bytes_received: u64,
    pub bytes_acked: u64,
    /// Where the peer's FIN stands, when it came before its turn.
    pub fin_at: Option<Seq>,
    /// When data was last sent.
    pub sent_at: u32,
    /// When the oldest unacknowledged data was first sent.
    pub first_sent: u32,
    /// When the retransmission timeout is due, whatever the timer does before.
    pub rto_at: u32,
    /// Microseconds until RACK looks again; zero when it need not.
    pub reorder_wait: u32,
    pub delayed_ack: u32,
    pub ack_at: u32,
    pub keep_at: u32,
    pub backoff: u8,
    pub ttl: u8,
    pub tos: u8,
    pub keep_probes: u8,
    /// A duplicate to report once (RFC 2883).
    pub dsack: Option<(Seq, Seq)>,
    // Lines three to five: the sender's state.
    pub rtt: Rtt,
    pub rack: Rack,
    pub recovery: Recovery,
    pub congestion: Congestion,
    // What is rarely needed.
    /// Hash of the key in the demultiplexer.
    pub hash: u64,
    pub range_count: u16,
    pub peer_mss: u16,
    /// MSS we told the peer.
    pub our_mss: u16,
    /// Bytes of an IP packet the path takes.
    pub mtu: u16,
    pub user_mss: u16,
    pub challenges: u8,
    pub syn_attempts: u8,
    pub reason: CloseReason,
    pub iss: Seq,
    pub irs: Seq,
    /// Places in the blocks that grew last, newest first, which are reported first (RFC 2018, section 4).
    pub recent_blocks: [Seq; 4],
    pub listener: u32,
    /// Neighbours in the listener's accept queue.
    pub accept_links: (u32, u32),
    pub challenge_since: u32,
    pub life_at: u32,
    /// When the current zero-window probing began.
    pub probe_since: u32,
    /// When SYN was first sent, microseconds.
    pub syn_us: u32,
    pub user_timeout: u32,
    pub linger: Option<u32>,
    pub keep_alive: KeepAliveMs,
    pub retransmits: u32,
}

impl Cold {
    /// Reads the lines that a message will need; the value means nothing.
    #[inline]
    pub(crate) fn touch(&self) -> u32 {
        self.heard_at
            ^ self.rto_at
            ^ self.rack.sacked
            ^ self.recovery.recover.0
            ^ self.recovery.phase as u32
    }
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Cold, heard_at) / 64 == 0);
    assert!(offset_of!(Cold, rto_at) / 64 == 1);
    assert!(offset_of!(Cold, rack.sacked) / 64 == 2);
    assert!(offset_of!(Cold, recovery.recover) / 64 == 3);
    assert!(offset_of!(Cold, recovery.phase) / 64 == 4);
    // With a stride of a power of two the first lines of all connections would share a few sets of the cache.
    assert!(size_of::<Cold>() == 7 * 64, "an odd number of lines");
};

const _: () =
    assert!(size_of::<Cold>() + size_of::<Hot>() + 32 <= 1024, "an idle connection is at most 1 KB");

impl Hot {
    pub(crate) const FREE: Hot = Hot {
        key: FlowKey { local: [0; 4], remote: [0; 4], local_port: 0, remote_port: 0 },
        state: State::Closed,
        timer: Timer::Off,
        snd_scale: 0,
        rcv_scale: 0,
        flags: 0,
        rcv_nxt: Seq(0),
        rcv_edge: Seq(0),
        rcv_used: 0,
        ts_recent: 0,
        ts_offset: 0,
        snd_una: Seq(0),
        snd_nxt: Seq(0),
        snd_end: Seq(0),
        snd_wnd: 0,
        snd_wl1: Seq(0),
        generation: 0,
        cwnd: 0,
        in_flight: 0,
        mss: 536,
        events: 0,
        rcv_mss: 9,
        records: (NIL, NIL),
        send: Queue::EMPTY,
        unsent: NIL,
        unsent_offset: 0,
        unacked: 0,
        timer_at: 0,
    };

    #[inline(always)]
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }
    #[inline(always)]
    pub(crate) fn set(&mut self, flags: u32) {
        self.flags |= flags;
    }
    #[inline(always)]
    pub(crate) fn clear(&mut self, flags: u32) {
        self.flags &= !flags;
    }
    #[inline(always)]
    pub(crate) fn put(&mut self, flags: u32, on: bool) {
        if on { self.set(flags) } else { self.clear(flags) }
    }
    #[inline]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { chunk: self.unsent, offset: self.unsent_offset }
    }
    #[inline]
    pub(crate) fn set_cursor(&mut self, cursor: Cursor) {
        self.unsent = cursor.chunk;
        self.unsent_offset = cursor.offset;
    }
    /// Bytes queued and not yet sent once.
    #[inline]
    pub(crate) fn unsent_bytes(&self) -> u32 {
        self.snd_end.after(self.snd_nxt)
    }
    /// FIN is to be sent for the first time.
    #[inline]
    pub(crate) fn fin_due(&self) -> bool {
        self.flags & (f::FIN_QUEUED | f::FIN_SENT) == f::FIN_QUEUED
    }
    /// Bytes queued or unacknowledged.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.snd_end.after(self.snd_una)
    }
    /// Sequence number of a segment that carries none: SND.NXT, but not beyond the peer's window. What lies beyond (the probe of
    /// a closed window, or data that was in flight when it shrank) the peer may not have taken, and would take such a segment
    /// for one outside its window, acknowledgment and all.
    #[inline]
    pub(crate) fn sequence_to_say(&self) -> Seq {
        let edge = self.snd_una + self.snd_wnd;
        // A window in units of its scale may fall short by less than one.
        if self.snd_nxt.after(edge) < 1 << self.snd_scale { self.snd_nxt } else { edge }
    }
    /// Bytes that options take in every segment.
    #[inline]
    pub(crate) fn option_len(&self) -> u32 {
        if self.has(f::TIMESTAMPS) { 12 } else { 0 }
    }
}

impl Cold {
    pub(crate) fn new(options: &ConnectionOptions) -> Cold {
        let ms = |d: Duration| crate::time::ms_of(d);
        Cold {
            hash: 0,
            receive: Queue::EMPTY,
            ranges: NIL,
            range_count: 0,
            rcv_chunks: 0,
            pieces: (NO_PIECE, NO_PIECE),
            rcv_buf: options.receive_buffer.clamp(256, 1 << 30),
            snd_buf: options.send_buffer.clamp(256, 1 << 30),
            low_water: options.low_water.max(1),
            iss: Seq(0),
            irs: Seq(0),
            fin_at: None,
            last_ack_sent: Seq(0),
            recent_blocks: [Seq(0); 4],
            dsack: None,
            max_window: 0,
            path: 0,
            listener: NIL,
            accept_links: (NIL, NIL),
            peer_mss: 536,
            our_mss: 536,
            mtu: 1500,
            user_mss: options.mss.unwrap_or(u16::MAX),
            ttl: options.ttl,
            tos: options.tos & 0xfc,
            challenges: 0,
            keep_probes: 0,
            backoff: 0,
            syn_attempts: 0,
            reason: CloseReason::Finished,
            challenge_since: 0,
            delayed_ack: u32::try_from(options.delayed_ack.as_millis()).unwrap_or(500).min(500),
            ack_at: 0,
            life_at: 0,
            keep_at: 0,
            heard_at: 0,
            progress_at: 0,
            sent_at: 0,
            user_timeout: options.user_timeout.map_or(0, ms),
            linger: options
                .linger
                .map(|d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX / 4).min(u32::MAX / 4)),
            rto_at: 0,
            reorder_wait: 0,
            probe_since: 0,
            syn_us: 0,
            first_sent: 0,
            keep_alive: KeepAliveMs::new(options.keep_alive),
            rtt: Rtt::default(),
            rack: Rack::default(),
            recovery: Recovery::default(),
            congestion: Congestion::new(options.congestion_control),
            retransmits: 0,
            bytes_received: 0,
            bytes_acked: 0,
        }
    }

    /// Timestamps, window and all else aside: bytes a segment may carry (RFC 9293, section 3.7.1, and RFC 6691).
    pub(crate) fn segment_limit(&self, key: &FlowKey) -> u16 {
        let path = self.mtu.saturating_sub(key.ip_header_len() + 20);
        path.min(self.peer_mss).min(self.user_mss).max(64)
    }
}

/// A connection's two halves.
pub(crate) struct Tcb<'t> {
    pub hot: &'t mut Hot,
    pub cold: &'t mut Cold,
}
