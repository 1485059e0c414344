//! What can be configured: once for a stack, and for each connection.

use std::time::Duration;

/// Which congestion control a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum CongestionControl {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    NewReno,
}

/// Explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ecn {
    /// Never negotiated.
    Off,
    /// Accepted when the peer asks for it.
    #[default]
    Accept,
    /// Also asked for in active opens.
    Request,
}

/// Keep-alive (RFC 9293, section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe. At least two hours by default, as the RFC wants (MUST-28).
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is ended.
    pub probes: u8,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 }
    }
}

/// One setting of one connection, for `set_option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Send small segments at once (on by default); off is Nagle's algorithm (RFC 9293, section 3.7.4).
    NoDelay(bool),
    /// Hold back all but full segments until it is set to false again, at most 200 ms.
    Cork(bool),
    /// How long an acknowledgment may wait for company, at most 500 ms (RFC 9293, MUST-40); zero acknowledges at once.
    DelayedAck(Duration),
    /// Bytes the application may leave unread; the window offered. Shrinking never takes back what was offered.
    ReceiveBuffer(u32),
    /// Bytes the application may have queued and unacknowledged.
    SendBuffer(u32),
    /// Readable is told when this many bytes wait (or the peer has closed); writable when this many are free.
    LowWater(u32),
    /// The largest segment to send, in bytes of payload with options counted (RFC 9293, section 3.7.1); lowers only. Set before
    /// the handshake (in [`ConnectionOptions`]) it is also the MSS that the peer is told.
    Mss(u16),
    /// Probes on a silent connection; `None` turns them off (the default).
    KeepAlive(Option<KeepAlive>),
    /// Unacknowledged data (or a closed window with a silent peer) for this long ends the connection (RFC 9293,
    /// section 3.9.1.7). `None` never does.
    UserTimeout(Option<Duration>),
    /// What `close` does with unsent data: `None` sends it in the background, zero resets, anything else resets when it is
    /// not acknowledged by then.
    Linger(Option<Duration>),
    /// The congestion control.
    CongestionControl(CongestionControl),
    /// Time to live or hop limit of what is sent.
    Ttl(u8),
    /// Traffic class or TOS of what is sent; its two ECN bits are ignored.
    Tos(u8),
}

/// What a connection starts with. A listener's connections take the listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// See [`SocketOption::NoDelay`].
    pub no_delay: bool,
    /// See [`SocketOption::DelayedAck`].
    pub delayed_ack: Duration,
    /// See [`SocketOption::ReceiveBuffer`].
    pub receive_buffer: u32,
    /// See [`SocketOption::SendBuffer`].
    pub send_buffer: u32,
    /// See [`SocketOption::LowWater`].
    pub low_water: u32,
    /// See [`SocketOption::Mss`]; `None` takes what MTU and peer allow.
    pub mss: Option<u16>,
    /// See [`SocketOption::KeepAlive`].
    pub keep_alive: Option<KeepAlive>,
    /// See [`SocketOption::UserTimeout`].
    pub user_timeout: Option<Duration>,
    /// See [`SocketOption::Linger`].
    pub linger: Option<Duration>,
    /// See [`SocketOption::CongestionControl`].
    pub congestion_control: CongestionControl,
    /// See [`SocketOption::Ttl`].
    pub ttl: u8,
    /// See [`SocketOption::Tos`].
    pub tos: u8,
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions {
            no_delay: true,
            delayed_ack: Duration::from_millis(40),
            receive_buffer: 1 << 20,
            send_buffer: 1 << 20,
            low_water: 1,
            mss: None,
            keep_alive: None,
            user_timeout: Some(Duration::from_secs(300)),
            linger: None,
            congestion_control: CongestionControl::Cubic,
            ttl: 64,
            tos: 0,
        }
    }
}

/// How a listener takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Established connections that may wait for `accept`; more wait in the SYN table.
    pub backlog: u32,
    /// What its connections start with.
    pub connection: ConnectionOptions,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 4096, connection: ConnectionOptions::default() }
    }
}

/// When SYN cookies are sent (RFC 4987, section 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynCookies {
    /// Never: a SYN that finds the table full is dropped.
    Off,
    /// When the SYN table is full.
    #[default]
    WhenFull,
    /// For every SYN: no state at all before the handshake is done.
    Always,
}

/// A stack's configuration. All memory is sized by it, once; see [`crate::Connections::memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections, SYN-SENT to LAST-ACK.
    pub max_connections: u32,
    /// Bytes of the pool for data: unacknowledged, unread and out of order. Address space; touched as needed.
    pub pool_bytes: usize,
    /// Segments in flight, of all connections together (32 bytes each).
    pub max_segments_in_flight: u32,
    /// Half-open connections remembered.
    pub syn_table: u32,
    /// When SYN cookies are sent.
    pub syn_cookies: SynCookies,
    /// SYN cookies sent a second.
    pub cookie_rate: u32,
    /// Resets sent a second to one source address for segments of no connection.
    pub reset_rate: u32,
    /// TIME-WAIT entries; the oldest is evicted (and counted) for a new one.
    pub max_time_wait: u32,
    /// Twice the maximum segment lifetime. RFC 9293 has 4 minutes; 60 s is what the Linux kernel has.
    pub time_wait: Duration,
    /// Bytes of an IP packet on the link.
    pub mtu: u16,
    /// The timeout before the first round-trip time is known (RFC 6298, 2.1).
    pub initial_rto: Duration,
    /// The least timeout. RFC 6298 (2.4) has one second; 200 ms is the field's deviation, and ours.
    pub min_rto: Duration,
    /// The greatest timeout, at least 60 s by RFC 6298 (2.5).
    pub max_rto: Duration,
    /// How long an active open tries (RFC 9293, section 3.8.3, MUST-23: at least 3 minutes).
    pub connect_timeout: Duration,
    /// SYN-ACKs sent before a half-open connection is forgotten.
    pub syn_ack_attempts: u8,
    /// How long FIN-WAIT-2 waits for the FIN of a peer once the application has closed.
    pub fin_wait_2: Duration,
    /// How long a closed connection may take to deliver what it has, while the peer acknowledges nothing.
    pub orphan_timeout: Duration,
    /// Challenge ACKs a second and connection (RFC 5961, section 7). There is no limit over all connections on purpose:
    /// that would be the side channel of CVE-2016-5696.
    pub challenge_acks: u8,
    /// Initial window in segments (RFC 6928).
    pub initial_window: u16,
    /// Window scale and timestamps are offered (RFC 7323).
    pub timestamps: bool,
    /// Window scale is offered.
    pub window_scaling: bool,
    /// SACK is offered (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// Local ports of active opens that name none, first and last.
    pub ephemeral_ports: (u16, u16),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_connections: 16_384,
            pool_bytes: 64 << 20,
            max_segments_in_flight: 131_072,
            syn_table: 1024,
            syn_cookies: SynCookies::WhenFull,
            cookie_rate: 100_000,
            reset_rate: 1_000,
            max_time_wait: 65_536,
            time_wait: Duration::from_secs(60),
            mtu: 1500,
            initial_rto: Duration::from_secs(1),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(180),
            syn_ack_attempts: 6,
            fin_wait_2: Duration::from_secs(60),
            orphan_timeout: Duration::from_secs(60),
            challenge_acks: 10,
            initial_window: 10,
            timestamps: true,
            window_scaling: true,
            sack: true,
            ecn: Ecn::Accept,
            ephemeral_ports: (32_768, 60_999),
        }
    }
}
