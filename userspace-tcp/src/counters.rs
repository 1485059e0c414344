//! What happened, in numbers: every segment that came in is accepted or dropped for one reason.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a received segment (or one that should have been sent) was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Drop { $($(#[$doc])* $name,)* }

        impl Drop {
            /// Every reason, in the order of its counter.
            pub const ALL: &'static [Drop] = &[$(Drop::$name,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The reason's name in reports (snake case, stable).
            pub const fn as_str(self) -> &'static str {
                match self { $(Drop::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than the header it announces.
    Runt = "runt",
    /// The data offset is below five words.
    HeaderLength = "header_length",
    /// The checksum is wrong.
    Checksum = "checksum",
    /// An option's length runs past the header, or is impossible.
    BadOption = "bad_option",
    /// The source cannot be a peer: a group, broadcast or unspecified address, or port 0.
    BadSource = "bad_source",
    /// Addressed to a group, to all or to nobody (RFC 9293, section 3.9.2.3, MUST-57).
    BadDestination = "bad_destination",
    /// A combination of flags that no TCP sends (SYN with FIN or RST, none of SYN, RST and ACK).
    BadFlags = "bad_flags",
    /// No connection and no listener; answered with a reset where RFC 9293 says so.
    NoConnection = "no_connection",
    /// A segment that is not SYN for a listener, and no valid cookie.
    NotSyn = "not_syn",
    /// A SYN beyond the table, with cookies off or beyond their rate.
    SynFlood = "syn_flood",
    /// The listener's backlog of accepted connections is full.
    AcceptQueueFull = "accept_queue_full",
    /// No free connection.
    NoConnectionSlot = "no_connection_slot",
    /// An acknowledgment whose cookie is wrong or old.
    BadCookie = "bad_cookie",
    /// Older than the newest timestamp (PAWS, RFC 7323 section 5).
    Paws = "paws",
    /// Timestamps were negotiated and the segment has none (RFC 7323 section 3.2).
    MissingTimestamp = "missing_timestamp",
    /// Outside the receive window (RFC 9293 section 3.10.7.4).
    OutOfWindow = "out_of_window",
    /// A reset that is not exactly at the next sequence number (RFC 5961 section 3).
    ResetNotExact = "reset_not_exact",
    /// A SYN on a synchronized connection (RFC 5961 section 4).
    SynInWindow = "syn_in_window",
    /// No ACK flag where one is due.
    NoAck = "no_ack",
    /// Acknowledges data far in the past or not yet sent (RFC 5961 section 5).
    AckOutOfRange = "ack_out_of_range",
    /// A reset in SYN-SENT or SYN-RECEIVED that proves nothing.
    BlindReset = "blind_reset",
    /// All of it was received before.
    Duplicate = "duplicate",
    /// No room in the pool; the peer sends it again.
    NoMemory = "no_memory",
    /// Out of order, and more pieces than a connection may hold.
    TooManyPieces = "too_many_pieces",
    /// Data after the application closed.
    AfterClose = "after_close",
    /// Data after the peer's own FIN.
    AfterFin = "after_fin",
    /// Old traffic of a connection in TIME-WAIT.
    TimeWait = "time_wait",
    /// A reset for a connection in TIME-WAIT (RFC 1337).
    TimeWaitReset = "time_wait_reset",
    /// An ICMP error that matches no data in flight (RFC 5927).
    IcmpUnverified = "icmp_unverified",
    /// An answer (reset, SYN-ACK, challenge) beyond the reply queue; it is not owed a second try.
    ReplyQueueFull = "reply_queue_full",
    /// A reset beyond the configured rate.
    ResetRate = "reset_rate",
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the stack was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            drops: [u64; Drop::COUNT],
        }

        impl Counters {
            /// Name and count of everything but the drops.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Segments handed to `receive_burst`.
    received,
    /// Of those, the ones that a connection, a listener or TIME-WAIT used.
    accepted,
    /// Segments handed to the egress.
    transmitted,
    /// Payload bytes taken in order.
    bytes_received,
    /// Of those, the ones that the application read where they stood in their frames.
    bytes_in_place,
    /// Of those, the ones copied to the pool: unread when their burst ended, or before something that had come out of order.
    bytes_copied,
    /// Payload bytes sent, retransmissions included.
    bytes_sent,
    /// Connections opened from here.
    active_opens,
    /// Connections accepted.
    passive_opens,
    /// Connections ended by the peer's reset.
    resets_received,
    /// Resets sent.
    resets_sent,
    /// Segments sent again.
    retransmits,
    /// Retransmission timeouts.
    timeouts,
    /// Retransmission timeouts found to be spurious (F-RTO or timestamps).
    spurious_timeouts,
    /// Fast recoveries entered.
    fast_recoveries,
    /// Fast recoveries found to be unneeded and undone.
    undone_recoveries,
    /// Tail loss probes sent.
    tail_probes,
    /// Zero-window probes sent.
    window_probes,
    /// Keep-alive probes sent.
    keepalive_probes,
    /// Challenge ACKs sent (RFC 5961).
    challenge_acks,
    /// Challenge ACKs beyond a connection's limit.
    challenge_acks_limited,
    /// SYNs for a listener.
    syns,
    /// SYN cookies sent.
    cookies_sent,
    /// Connections made from a cookie.
    cookies_accepted,
    /// Entries of the SYN table that timed out.
    syn_timeouts,
    /// Connections that entered TIME-WAIT.
    time_waits,
    /// TIME-WAIT entries evicted, oldest first, at the cap.
    time_waits_evicted,
    /// TIME-WAIT entries that a new SYN reused (RFC 6191).
    time_waits_reused,
    /// Connections ended by a timeout (user timeout, keep-alive, FIN-WAIT-2, orphan).
    connections_timed_out,
    /// Out-of-order bytes given up because the pool was empty.
    out_of_order_purged,
    /// Windows reduced because of ECN.
    ecn_reductions,
    /// Path MTU reductions.
    mtu_reductions,
}

impl Counters {
    /// How many segments were dropped for `reason`.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// Every drop reason and its count.
    pub fn drops(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.iter().map(|&reason| (reason, self.drops[reason as usize]))
    }

    #[inline]
    pub(crate) fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] += 1;
    }
}
