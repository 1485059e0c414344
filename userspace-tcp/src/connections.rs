//! The connections and everything that can be done with one. [`Stack`](crate::Stack) and [`Burst`](crate::Burst) both have
//! these operations.

use crate::address::{FlowKey, can_be_peer};
use crate::buffer::{CHUNK, NIL, Pool};
use crate::config::{Config, ConnectionOptions, ListenOptions, SocketOption};
use crate::counters::Counters;
use crate::demux::Demux;
use crate::error::Error;
use crate::events::{self, CloseReason, Event, EventQueue, bit};
use crate::info::{Info, Memory, Population};
use crate::listen::{ListenerId, Listeners};
use crate::receiver::pieces::Pieces;
use crate::receiver::reassembly::Ranges;
use crate::reply::{Bucket, Replies};
use crate::secret::Secret;
use crate::sender::record::Records;
use crate::sender::recovery::Phase;
use crate::slab::Slab;
use crate::state::State;
use crate::syn_table::SynTable;
use crate::tcb::{ConnectionId, KeepAliveMs, f};
use crate::time::{Instant, deadline_ms, ms_of};
use crate::timewait::TimeWait;
use crate::wheel::Wheel;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Sources whose resets are limited apart from each other, but for collisions that nobody can aim at.
const RESET_BUCKETS: usize = 1024;

/// Which direction `shutdown` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// No more reads: what comes is acknowledged and thrown away.
    Read,
    /// No more writes: FIN follows what is queued.
    Write,
    /// Both.
    Both,
}

/// All connections, listeners and half-open connections, with their memory.
///
/// Operations act at the time that `receive_burst`, `timers` or `transmit` was last told.
pub struct Connections {
    pub(crate) config: Config,
    pub(crate) secret: Secret,
    pub(crate) now: Instant,
    pub(crate) slab: Slab,
    pub(crate) demux: Demux,
    pub(crate) wheel: Wheel,
    pub(crate) pool: Pool,
    pub(crate) records: Records,
    pub(crate) ranges: Ranges,
    pub(crate) pieces: Pieces,
    pub(crate) events: EventQueue,
    /// Connections with something to send.
    pub(crate) output: VecDeque<u32>,
    pub(crate) replies: Replies,
    pub(crate) listeners: Listeners,
    pub(crate) syns: SynTable,
    pub(crate) time_wait: TimeWait,
    pub(crate) cookies: Bucket,
    /// By a hash of the source address.
    pub(crate) resets: Box<[Bucket]>,
    pub(crate) counters: Counters,
    /// Where the next look for out-of-order data to give up begins.
    pub(crate) purge_at: u32,
    /// When a cookie was last sent.
    pub(crate) cookie_at: Option<Instant>,
    pub(crate) next_port: u16,
}

impl Connections {
    pub(crate) fn new(config: Config, entropy: &[u8; 64], now: Instant) -> Connections {
        let mut wheel = Wheel::new(now.ms());
        wheel.reserve(config.max_connections as usize + config.syn_table as usize);
        let pool = Pool::new(config.pool_bytes);
        Connections {
            secret: Secret::new(entropy),
            now,
            slab: Slab::new(config.max_connections),
            demux: Demux::new(config.max_connections),
            wheel,
            ranges: Ranges::new(pool.total()),
            pool,
            records: Records::new(config.max_segments_in_flight),
            pieces: Pieces::new(),
            events: EventQueue::new(config.max_connections),
            output: VecDeque::with_capacity(config.max_connections as usize + 1),
            replies: Replies::new(),
            listeners: Listeners { all: Vec::new() },
            syns: SynTable::new(config.syn_table),
            time_wait: TimeWait::new(config.max_time_wait),
            cookies: Bucket::new(config.cookie_rate, now),
            resets: (0..RESET_BUCKETS).map(|_| Bucket::new(config.reset_rate, now)).collect(),
            counters: Counters::default(),
            purge_at: 0,
            cookie_at: None,
            next_port: u16::from_ne_bytes([entropy[0], entropy[1]]),
            config,
        }
    }

    /// Takes connections to `local` (RFC 9293, section 3.10.1, passive open). The unspecified IPv4 address takes all of IPv4,
    /// that of IPv6 takes everything.
    pub fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<ListenerId, Error> {
        self.listeners.add(local, options).ok_or(Error::AddressInUse(local))
    }

    /// Takes no more connections. Half-open ones are forgotten, those that wait for `accept` are reset.
    pub fn close_listener(&mut self, listener: ListenerId) -> Result<(), Error> {
        let slot = self.listeners.slot(listener).ok_or(Error::Stale)?;
        while let Some(connection) = self.accept(listener) {
            self.abort(connection)?;
        }
        let (wheel, base) = (&mut self.wheel, self.config.max_connections);
        self.syns.remove_listener(slot, |at| wheel.disarm(base + at));
        self.listeners.all[slot as usize].open = false;
        Ok(())
    }

    /// The connection that has waited longest, if any.
    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnectionId> {
        let at = self.listeners.slot(listener)?;
        let slot = self.listeners.all[at as usize].waiting.0;
        if slot == NIL {
            return None;
        }
        self.leave_accept_queue(slot);
        Some(self.slab.id(slot))
    }

    /// Opens a connection (RFC 9293, section 3.10.1, active open). Port 0 of `local` takes an ephemeral one (RFC 6056).
    /// `path` goes out with its segments until one has come in.
    pub fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        path: u32,
        options: &ConnectionOptions,
    ) -> Result<ConnectionId, Error> {
        if remote.port() == 0 || !can_be_peer(remote.ip()) || !can_be_peer(local.ip()) {
            return Err(Error::BadAddress(remote));
        }
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(Error::BadAddress(remote));
        }
        if self.slab.is_full() {
            return Err(Error::NoSlot(self.config.max_connections));
        }
        let mut key = FlowKey::new(local, remote);
        if key.local_port == 0 {
            key.local_port = self.ephemeral(&key).ok_or(Error::NoPort(remote))?;
        } else if self.in_use(&key) {
            return Err(Error::AddressInUse(local));
        }
        let hash = self.secret.flow(&key);
        let slot = self.slab.take(options).ok_or(Error::NoSlot(self.config.max_connections))?;
        self.demux.insert(hash, slot);
        self.wheel.ensure(slot);
        self.start_active(slot, key, hash, path);
        self.want_output(slot);
        Ok(self.slab.id(slot))
    }

    fn live(&self, connection: ConnectionId) -> Result<usize, Error> {
        self.slab.slot(connection).map(|slot| slot as usize).ok_or(Error::Stale)
    }

    /// The first unread bytes that stand together in the pool. [`Burst::peek`](crate::Burst::peek) also sees those in frames.
    /// Empty when there are none.
    pub fn peek(&self, connection: ConnectionId) -> Result<&[u8], Error> {
        let at = self.live(connection)?;
        Ok(self.slab.cold[at].receive.first(&self.pool))
    }

    /// Bytes that can be read.
    pub fn unread(&self, connection: ConnectionId) -> Result<usize, Error> {
        Ok(self.slab.hot[self.live(connection)?].rcv_used as usize)
    }

    /// Takes `n` bytes as read (fewer when there are not so many). Returns how many.
    pub fn read(&mut self, connection: ConnectionId, n: usize) -> Result<usize, Error> {
        let at = self.live(connection)?;
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        let n = n.min(hot.rcv_used as usize);
        let mut left = n as u32;
        hot.rcv_used -= left;
        if !cold.receive.is_empty() {
            let before = self.pool.used();
            left -= cold.receive.pop(&mut self.pool, left as usize) as u32;
            cold.rcv_chunks -= before - self.pool.used();
        }
        if left > 0 {
            self.counters.bytes_in_place += u64::from(self.pieces.pop(cold, &mut self.pool, left));
        }
        self.note_room(at as u32);
        Ok(n)
    }

    /// Queues as much of `bytes` as there is room for and returns how much that was: zero to all of it. After a short write a
    /// `Writable` event tells when there is room again.
    pub fn write(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<usize, Error> {
        let at = self.live(connection)?;
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        if hot.has(f::FINISHED) {
            return Err(Error::Ended);
        }
        if hot.has(f::FIN_QUEUED | f::ORPHAN) || !hot.state.may_write() {
            return Err(Error::ShutDown);
        }
        let room = cold.snd_buf.saturating_sub(hot.queued()) as usize;
        // A quarter of the pool is for what is received: senders must not starve it.
        let spare = self.pool.available().saturating_sub(self.pool.total() / 4) as usize * CHUNK;
        let take = bytes.len().min(room).min(spare.max(usize::from(spare > 0)));
        let was_empty = hot.send.is_empty();
        let n = hot.send.push(&mut self.pool, &bytes[..take]);
        if was_empty {
            hot.set_cursor(hot.send.start(&self.pool));
        }
        hot.snd_end += n as u32;
        if n < bytes.len() {
            hot.set(f::WANT_WRITE);
        }
        if n > 0 {
            self.want_output(at as u32);
        }
        Ok(n)
    }

    /// Closes one direction or both; the connection stays until `close`.
    pub fn shutdown(&mut self, connection: ConnectionId, how: Shutdown) -> Result<(), Error> {
        let at = self.live(connection)?;
        let slot = at as u32;
        if how != Shutdown::Write {
            self.slab.hot[at].set(f::READ_SHUT);
            self.discard_unread(slot);
            self.note_room(slot);
        }
        if how != Shutdown::Read {
            self.queue_fin(slot);
        }
        Ok(())
    }

    /// Ends the use of a connection: what is queued is still delivered, as `Linger` says, then the slot goes back. With
    /// unread data the peer gets a reset, since it would otherwise believe that it was read (RFC 2525, section 2.17).
    pub fn close(&mut self, connection: ConnectionId) -> Result<(), Error> {
        let at = self.live(connection)?;
        let slot = at as u32;
        let hot = &mut self.slab.hot[at];
        if hot.has(f::ORPHAN) {
            return Err(Error::Stale);
        }
        if hot.has(f::FINISHED) {
            hot.set(f::ORPHAN);
            self.discard_unread(slot);
            self.try_free(slot);
            return Ok(());
        }
        let linger = self.slab.cold[at].linger;
        if hot.rcv_used > 0 || linger == Some(0) || hot.state == State::SynSent {
            return self.abort(connection);
        }
        hot.set(f::ORPHAN);
        self.leave_accept_queue(slot);
        self.queue_fin(slot);
        let cold = &mut self.slab.cold[at];
        let orphan = ms_of(self.config.orphan_timeout);
        cold.user_timeout = if cold.user_timeout == 0 { orphan } else { cold.user_timeout.min(orphan) };
        cold.progress_at = self.now.ms();
        if let Some(linger) = linger {
            self.live_until(slot, linger);
        } else if self.slab.hot[at].state == State::FinWait2 {
            self.live_until(slot, ms_of(self.config.fin_wait_2));
        }
        Ok(())
    }

    /// Ends a connection with a reset; what was queued or unread is lost.
    pub fn abort(&mut self, connection: ConnectionId) -> Result<(), Error> {
        let at = self.live(connection)?;
        let slot = at as u32;
        let hot = &mut self.slab.hot[at];
        if hot.has(f::FINISHED) {
            hot.set(f::ORPHAN);
            self.discard_unread(slot);
            self.try_free(slot);
            return Ok(());
        }
        hot.set(f::ORPHAN);
        self.send_reset(slot);
        self.finish(slot, CloseReason::Aborted);
        Ok(())
    }

    /// FIN follows what is queued, and the state moves on (RFC 9293, section 3.10.4).
    fn queue_fin(&mut self, slot: u32) {
        let hot = &mut self.slab.hot[slot as usize];
        if hot.has(f::FIN_QUEUED | f::FINISHED) {
            return;
        }
        hot.set(f::FIN_QUEUED);
        match hot.state {
            State::Established => hot.state = State::FinWait1,
            State::CloseWait => hot.state = State::LastAck,
            _ => {}
        }
        self.want_output(slot);
    }

    /// Sets one option.
    pub fn set_option(&mut self, connection: ConnectionId, option: SocketOption) -> Result<(), Error> {
        let at = self.live(connection)?;
        let slot = at as u32;
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        match option {
            SocketOption::NoDelay(on) => hot.put(f::NO_DELAY, on),
            SocketOption::Cork(on) => hot.put(f::CORK, on),
            SocketOption::DelayedAck(d) => {
                cold.delayed_ack = u32::try_from(d.as_millis()).unwrap_or(500).min(500)
            }
            SocketOption::ReceiveBuffer(n) => cold.rcv_buf = n.clamp(256, 1 << 30),
            SocketOption::SendBuffer(n) => cold.snd_buf = n.clamp(256, 1 << 30),
            SocketOption::LowWater(n) => cold.low_water = n.max(1),
            SocketOption::Mss(n) => {
                cold.user_mss = n;
                self.new_mss(slot);
            }
            SocketOption::KeepAlive(keep) => {
                cold.keep_alive = KeepAliveMs::new(keep);
                cold.keep_probes = 0;
                hot.put(f::KEEP_TIMER, keep.is_some());
                if keep.is_some() {
                    cold.keep_at = deadline_ms(self.now, cold.keep_alive.idle);
                    self.wheel.arm_no_later(slot, cold.keep_at);
                }
            }
            SocketOption::UserTimeout(d) => cold.user_timeout = d.map_or(0, ms_of),
            SocketOption::Linger(d) => {
                cold.linger = d.map(|d| d.as_millis().min(u128::from(u32::MAX / 4)) as u32)
            }
            SocketOption::CongestionControl(kind) => cold.congestion.kind = kind,
            SocketOption::Ttl(ttl) => cold.ttl = ttl.max(1),
            SocketOption::Tos(tos) => cold.tos = tos & 0xfc,
        }
        if self.slab.hot[at].unsent_bytes() > 0 {
            self.want_output(slot);
        }
        self.note_room(slot);
        Ok(())
    }

    /// Everything about one connection.
    pub fn info(&self, connection: ConnectionId) -> Result<Info, Error> {
        let at = self.live(connection)?;
        let (hot, cold) = (&self.slab.hot[at], &self.slab.cold[at]);
        let us = |us: u32| Duration::from_micros(u64::from(us));
        Ok(Info {
            state: hot.state,
            local: hot.key.local(),
            remote: hot.key.remote(),
            listener: self.listeners.id(cold.listener),
            path: cold.path,
            unread: hot.rcv_used,
            queued: hot.queued(),
            unsent: hot.unsent_bytes(),
            writable: cold.snd_buf.saturating_sub(hot.queued()),
            mss: hot.mss,
            mtu: cold.mtu,
            cwnd: hot.cwnd,
            ssthresh: cold.congestion.ssthresh,
            in_flight: hot.in_flight,
            send_window: hot.snd_wnd,
            receive_window: hot.rcv_edge.after(hot.rcv_nxt),
            rtt: (cold.rtt.smoothed > 0).then(|| us(cold.rtt.smoothed)),
            rtt_variation: us(cold.rtt.variance),
            rto: us(cold.rtt.backed_off(cold.backoff, &self.config)),
            retransmits: cold.retransmits,
            backoff: cold.backoff,
            bytes_received: cold.bytes_received,
            bytes_acked: cold.bytes_acked,
            sack: hot.has(f::SACK),
            timestamps: hot.has(f::TIMESTAMPS),
            window_scale: (hot.snd_scale, hot.rcv_scale),
            ecn: hot.has(f::ECN),
            reordering: cold.rack.reordering,
            recovering: cold.recovery.phase != Phase::Open,
        })
    }

    /// The next event. Pull until there is none, after every burst and every call of `timers`.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let slot = self.events.front()?;
            let connection = self.slab.id(slot);
            let (hot, cold) = (&mut self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
            if hot.has(f::ORPHAN) {
                hot.events &= bit::CLOSED | bit::TOLD;
            }
            let kind = events::next(&mut hot.events, cold.reason);
            if hot.events & !bit::TOLD == 0 {
                hot.clear(f::IN_EVENTS);
                self.events.pop();
                self.try_free(slot);
            }
            if let Some(kind) = kind {
                return Some(Event { connection, kind });
            }
        }
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the stack was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many of everything there are.
    pub fn population(&self) -> Population {
        Population {
            connections: self.slab.used(),
            half_open: self.syns.len(),
            time_wait: self.time_wait.len(),
            segments_in_flight: self.records.used(),
            chunks: self.pool.used(),
            ranges: self.ranges.used(),
        }
    }

    /// Bytes of the pool in use. Zero when nothing is unread, out of order or unacknowledged.
    pub fn pool_used(&self) -> usize {
        self.pool.used() as usize * CHUNK
    }

    /// Where the memory is.
    pub fn memory(&self) -> Memory {
        let (per_connection, connections) = self.slab.bytes();
        let tables =
            self.demux.bytes() + self.wheel.bytes() + self.events.bytes() + self.output.capacity() * 4;
        let (syn_table, time_wait, records) =
            (self.syns.bytes(), self.time_wait.bytes(), self.records.bytes());
        let pool = self.pool.memory() + self.ranges.bytes();
        Memory {
            per_connection,
            connections,
            tables,
            syn_table,
            time_wait,
            records,
            pool,
            pool_used: self.pool_used(),
            total: connections + tables + syn_table + time_wait + records + pool,
        }
    }
}
