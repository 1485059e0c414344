//! One turn of a worker: everything that is due, then one burst of each port, run to completion.
//!
//! ```text
//!   posts · helper results · timers · tick          each bounded, so none starves the ports
//!   for each port:  recv ─► open ─► app ─► settle    at most one burst
//!   for each stream port:  poll ─► events ─► app     at most so many
//!   for each port:  flush                            one doorbell, answers and unasked sends alike
//! ```
//!
//! A turn never reads a clock, sleeps, allocates or fails: time is its argument, which is how tests own it.

use super::counters::{LoopStats, PortCounters, Published};
use super::ticks::Ticks;
use super::{Helpers, Mailboxes, Timers};
use crate::app::{App, Ctx, STREAM_PORTS, WorkerId, stream_port};
use crate::datagram::{Batch, DatagramPort, Datagrams, RawFd, Verdicts};
use crate::port::QueueCounters;
use crate::stream::{CloseReason, Peer, StreamEvent, StreamPort};
use crate::time::Now;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use volley_wire::DropReason;

/// Most messages, results and timers of each kind in one turn: a burst's worth, so that a flood of one delays the
/// packets by no more than a burst of packets would.
const PER_TURN: usize = crate::frame::BURST;

/// Most events of one stream port in one turn: a burst of connections, each with every event it can have at once.
const EVENTS_PER_TURN: usize = 5 * crate::frame::BURST;

/// What a worker is made of, besides its ports and its app.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The worker's number.
    pub id: WorkerId,
    /// Seed of [`Ctx::rng`].
    pub seed: u64,
    /// Period of [`App::on_tick`] in ns; `None`: no ticks.
    pub tick_ns: Option<u64>,
    /// Timers at once. 64 B each, allocated at the start.
    pub timers: usize,
}

impl WorkerConfig {
    /// No ticks, room for 4,096 timers, a fixed seed.
    pub fn new(id: WorkerId) -> WorkerConfig {
        WorkerConfig { id, seed: u64::from(id.0), tick_ns: None, timers: 4096 }
    }
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Frames, messages, results, timers and ticks handled: 0 when there was nothing to do.
    pub work: usize,
}

/// One worker: an app, its ports, its timers and its ends of the mailboxes. Lives on one thread.
pub struct Worker<A: App> {
    app: A,
    hands: Hands<A::Msg>,
    batch: Batch,
    verdicts: Verdicts,
    ticks: Option<Ticks>,
    stats: LoopStats,
    tick_ns: Option<u64>,
    stopping: bool,
    /// The port whose burst is under way, or was last.
    current: usize,
    /// Ports that are gone; they are not asked again.
    gone: Vec<bool>,
    /// Streams of a port that was exchanged; the app hears of their end first of all.
    lost: Vec<Peer>,
}

/// What an app may touch during a callback.
struct Hands<M> {
    id: WorkerId,
    rng: SmallRng,
    ports: Vec<Box<dyn DatagramPort>>,
    streams: Vec<Box<dyn StreamPort>>,
    timers: Timers,
    mailboxes: Mailboxes<M>,
    helpers: Helpers<M>,
}

impl<M> Hands<M> {
    fn ctx(&mut self, now: Now) -> Ctx<'_, M> {
        let Hands { id, rng, ports, streams, timers, mailboxes, helpers } = self;
        Ctx { now, worker: *id, rng, ports, streams, timers, mailboxes, helpers }
    }
}

impl<A: App> Worker<A> {
    /// A worker over `ports`, whose indices are the ports of its paths. Nothing has been called yet.
    pub fn new(
        config: &WorkerConfig,
        app: A,
        ports: Vec<Box<dyn DatagramPort>>,
        mailboxes: Mailboxes<A::Msg>,
        helpers: Helpers<A::Msg>,
    ) -> Worker<A> {
        let gone = vec![false; ports.len()];
        Worker {
            app,
            hands: Hands {
                id: config.id,
                rng: SmallRng::seed_from_u64(config.seed),
                ports,
                streams: Vec::new(),
                timers: Timers::new(config.timers),
                mailboxes,
                helpers,
            },
            batch: Batch::default(),
            verdicts: Verdicts::new(),
            ticks: None,
            stats: LoopStats::default(),
            tick_ns: config.tick_ns,
            stopping: false,
            current: 0,
            gone,
            lost: Vec::new(),
        }
    }

    /// With stream ports beside the datagram ports.
    pub fn with_streams(mut self, streams: Vec<Box<dyn StreamPort>>) -> Worker<A> {
        self.hands.streams = streams;
        self
    }

    /// Tells the app that its ports are open, and starts the ticks.
    pub fn start(&mut self, now: Now) {
        self.ticks = self.tick_ns.map(|period| Ticks::new(now.ns, period));
        // Stream ports hear the time before the app can open anything.
        for index in
            (0..self.hands.ports.len()).chain((0..self.hands.streams.len()).map(|n| STREAM_PORTS + n))
        {
            if let Some(port) = stream_port(&mut self.hands.ports, &mut self.hands.streams, index) {
                port.poll(now);
            }
        }
        self.app.on_start(&mut self.hands.ctx(now));
        self.flush();
    }

    /// Does what is due at `now`, and one burst of each port.
    pub fn turn(&mut self, now: Now) -> Turn {
        let mut work = self.events(now);
        for port in 0..self.hands.ports.len() {
            if !self.gone[port] {
                work += self.burst(port, now);
                work += self.streams(port, now);
            }
        }
        for stream in 0..self.hands.streams.len() {
            work += self.streams(STREAM_PORTS + stream, now);
        }
        self.flush();
        self.stats.turns += 1;
        self.stats.idle_turns += u64::from(work == 0);
        Turn { work }
    }

    /// Messages, results, timers and the tick.
    fn events(&mut self, now: Now) -> usize {
        let Worker { app, hands, stats, lost, .. } = self;
        let mut work = 0;
        // All of them at once, before the port's successor has streams in the same slots.
        for peer in lost.drain(..) {
            app.on_stream(peer, StreamEvent::Closed(CloseReason::SteppedDown), &mut hands.ctx(now));
            stats.stream_events += 1;
            work += 1;
        }
        for _ in 0..PER_TURN {
            let Some(msg) = hands.mailboxes.take() else { break };
            app.on_post(msg, &mut hands.ctx(now));
            stats.posts += 1;
            work += 1;
        }
        for _ in 0..PER_TURN {
            let Some(msg) = hands.helpers.take() else { break };
            app.on_post(msg, &mut hands.ctx(now));
            stats.results += 1;
            work += 1;
        }
        for _ in 0..PER_TURN {
            let Some(key) = hands.timers.pop_due(now.ns) else { break };
            app.on_timer(key, &mut hands.ctx(now));
            stats.timers += 1;
            work += 1;
        }
        if let Some(due) = self.ticks.as_mut().and_then(|ticks| ticks.due(now.ns)) {
            app.on_tick(due.late_ns, &mut hands.ctx(now));
            stats.ticks += 1;
            stats.ticks_skipped += due.skipped;
            stats.tick_late_max_ns = stats.tick_late_max_ns.max(due.late_ns);
            work += 1;
        }
        work
    }

    /// Receives one burst of `port` and runs it to completion; returns its frames.
    #[inline]
    fn burst(&mut self, port: usize, now: Now) -> usize {
        self.current = port;
        let Worker { app, hands, batch, verdicts, stats, .. } = self;
        let frames = hands.ports[port].recv(batch, now);
        if frames == 0 {
            return 0;
        }
        stats.bursts += 1;
        stats.frames += frames as u64;
        loop {
            verdicts.clear();
            let mut datagrams = Datagrams::new();
            let opened = hands.ports[port].open(batch, &mut datagrams);
            if opened > 0 {
                app.on_burst(&mut datagrams, &mut hands.ctx(now));
                verdicts.extend(datagrams.iter().map(|datagram| datagram.verdict()));
            }
            drop(datagrams);
            hands.ports[port].settle(batch, verdicts);
            // A kernel buffer may hold more datagrams than one burst: go on until the batch is through.
            if opened == 0 || batch.frames.is_empty() {
                return frames;
            }
        }
    }

    /// One look at the stream port with that index, if there is one, and its events; returns how much there was to do.
    #[inline]
    fn streams(&mut self, index: usize, now: Now) -> usize {
        let Hands { ports, streams, .. } = &mut self.hands;
        let Some(port) = stream_port(ports, streams, index) else { return 0 };
        let work = port.poll(now);
        work + self.stream_events(index, now)
    }

    /// Pulls the events of a stream port.
    fn stream_events(&mut self, index: usize, now: Now) -> usize {
        let Worker { app, hands, stats, .. } = self;
        let mut events = 0;
        while events < EVENTS_PER_TURN {
            let Some(port) = stream_port(&mut hands.ports, &mut hands.streams, index) else { break };
            let Some((id, event)) = port.next_event() else { break };
            app.on_stream(Peer::new(hands.id, index as u16, id), event, &mut hands.ctx(now));
            events += 1;
        }
        stats.stream_events += events as u64;
        events
    }

    fn flush(&mut self) {
        for (port, gone) in self.hands.ports.iter_mut().zip(&self.gone) {
            if !gone {
                port.flush();
            }
        }
        for port in &mut self.hands.streams {
            port.flush();
        }
    }

    /// Stops receiving and tells the app; turns go on until [`Worker::is_drained`] or the caller's patience ends.
    pub fn stop(&mut self, now: Now, deadline_ns: u64) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.ticks = None;
        self.app.on_shutdown(deadline_ns, &mut self.hands.ctx(now));
        for port in &mut self.hands.ports {
            port.stop_rx();
        }
        for port in &mut self.hands.streams {
            port.stop();
        }
        self.flush();
    }

    /// True once [`Worker::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// True when no port has anything left to send or to be completed.
    pub fn is_drained(&self) -> bool {
        self.hands.ports.iter().zip(&self.gone).all(|(port, gone)| *gone || port.is_drained())
            && self.hands.streams.iter().all(|port| port.is_drained())
    }

    /// True when a message or a result waits: what a worker looks at after saying that it sleeps.
    pub fn has_messages(&self) -> bool {
        !self.hands.mailboxes.is_empty()
            || !self.hands.helpers.is_empty()
            || self.hands.ports.iter().any(|port| port.has_waiting())
    }

    /// Tells every port that the worker is about to sleep; true when one has something to do already.
    pub fn before_sleep(&mut self) -> bool {
        let Hands { ports, streams, .. } = &mut self.hands;
        let mut ports = ports.iter_mut().zip(&self.gone).filter(|(_, gone)| !**gone);
        ports.any(|(port, _)| port.before_sleep()) || streams.iter_mut().any(|port| port.before_sleep())
    }

    /// The next moment (monotonic ns) at which something is due.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.lost.is_empty() {
            return Some(0);
        }
        let ports = self.hands.ports.iter().zip(&self.gone).filter(|(_, gone)| !**gone);
        let ports = ports.filter_map(|(port, _)| port.next_deadline()).min();
        let ticks = self.ticks.as_ref().map(Ticks::next_deadline);
        let streams = self.hands.streams.iter().filter_map(|port| port.next_deadline()).min();
        [ports, streams, ticks, self.hands.timers.next_deadline()].into_iter().flatten().min()
    }

    /// Descriptors to wait on, of the ports that are not gone.
    pub fn poll_fds(&self) -> Vec<RawFd> {
        let ports = self.hands.ports.iter().zip(&self.gone).filter(|(_, gone)| !**gone);
        let streams = self.hands.streams.iter().flat_map(|port| port.poll_fds());
        ports.flat_map(|(port, _)| port.poll_fds()).chain(streams).collect()
    }

    /// The next port found to be gone, with the reason; it is left alone from now on.
    pub fn failed_port(&mut self) -> Option<(usize, String)> {
        let ports = self.hands.ports.iter().zip(&mut self.gone).enumerate();
        for (index, (port, gone)) in ports.filter(|(_, (_, gone))| !**gone) {
            if let Some(reason) = port.failure() {
                *gone = true;
                return Some((index, reason));
            }
        }
        None
    }

    /// What the loop did so far.
    pub fn stats(&self) -> LoopStats {
        LoopStats { jobs_panicked: self.hands.helpers.panicked(), ..self.stats }
    }

    pub(super) fn slept(&mut self) {
        self.stats.sleeps += 1;
    }

    /// The ports, in the order of their indices.
    pub fn ports(&self) -> &[Box<dyn DatagramPort>] {
        &self.hands.ports
    }

    /// The stream ports.
    pub fn stream_ports(&self) -> &[Box<dyn StreamPort>] {
        &self.hands.streams
    }

    /// The app.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// Publishes every counter on `board`.
    pub fn publish(&self, board: &Board) {
        board.turns.set(&self.stats());
        for (port, place) in self.hands.ports.iter().zip(&board.ports) {
            place.set(&PortCounters::of(port.as_ref()));
        }
        for (port, place) in self.hands.streams.iter().zip(&board.streams) {
            place.set(&PortCounters::of_streams(port.as_ref()));
        }
        if let Some(first) = self.hands.ports.first() {
            for (at, place) in board.queues.iter().enumerate() {
                place.set(&first.queue_counters(at));
            }
        }
    }

    /// The ports, to exchange one.
    pub fn exchange(&mut self) -> Exchange<'_> {
        Exchange {
            id: self.hands.id,
            ports: &mut self.hands.ports,
            gone: &mut self.gone,
            lost: &mut self.lost,
            stopping: self.stopping,
        }
    }

    /// After a panic: gives the frames of the burst it happened in back to their port, counts their datagrams as dropped, lets
    /// what is queued go out for a moment, and stops receiving.
    ///
    /// Frames whose port panicked itself cannot be given back; they are leaked with their port's memory.
    pub fn abandon(&mut self) {
        use crate::datagram::Verdict;
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let Worker { hands, batch, verdicts, current, .. } = self;
        let current = *current;
        let given_back = catch_unwind(AssertUnwindSafe(|| {
            while !batch.frames.is_empty() {
                let port = &mut hands.ports[current];
                verdicts.clear();
                verdicts.extend(batch.opened.iter().map(|_| Verdict::Drop(DropReason::AppPanicked)));
                port.settle(batch, verdicts);
                let mut datagrams = Datagrams::new();
                if batch.frames.is_empty() || port.open(batch, &mut datagrams) == 0 {
                    drop(datagrams);
                    verdicts.clear();
                    port.settle(batch, verdicts);
                    break;
                }
            }
            for port in &mut hands.ports {
                port.stop_rx();
                port.flush();
            }
            for port in &mut hands.streams {
                port.stop();
            }
        }));
        if given_back.is_err() {
            std::mem::forget(std::mem::take(batch));
        }
    }

    /// Closes every port for good and says what each has counted, and where its frames ended.
    pub fn close(&mut self) -> Vec<PortCounters> {
        let close = |port: &mut Box<dyn DatagramPort>| {
            let ledger = port.close();
            PortCounters { ledger, ..PortCounters::of(port.as_ref()) }
        };
        self.hands.ports.iter_mut().map(close).collect()
    }

    /// The same for the stream ports.
    pub fn close_streams(&mut self) -> Vec<PortCounters> {
        let close_streams = |port: &mut Box<dyn StreamPort>| {
            port.close_port();
            PortCounters::of_streams(port.as_ref())
        };
        self.hands.streams.iter_mut().map(close_streams).collect()
    }

    /// Closes the ports and gives the mailboxes back, for the worker that takes this one's place.
    pub fn into_mailboxes(self) -> Mailboxes<A::Msg> {
        self.hands.mailboxes
    }
}

/// A worker's ports between two turns, when one can be exchanged: no burst is under way then.
pub struct Exchange<'w> {
    id: WorkerId,
    ports: &'w mut Vec<Box<dyn DatagramPort>>,
    gone: &'w mut Vec<bool>,
    lost: &'w mut Vec<Peer>,
    stopping: bool,
}

impl Exchange<'_> {
    /// Puts `port` at `index`, or behind the last one, and returns the port that was there. Paths over that index stay valid, and an
    /// app of datagrams does not notice; streams that the port carried end, which their app is told with the next turn.
    pub fn put(&mut self, index: usize, mut port: Box<dyn DatagramPort>) -> Option<Box<dyn DatagramPort>> {
        if self.stopping {
            port.stop_rx();
        }
        match self.ports.get_mut(index) {
            Some(place) => {
                self.gone[index] = false;
                let mut old = std::mem::replace(place, port);
                if let Some(streams) = old.streams() {
                    streams.give_up(&mut |id| self.lost.push(Peer::new(self.id, index as u16, id)));
                    // The resets, if the port still sends.
                    old.flush();
                }
                Some(old)
            }
            None => {
                self.ports.push(port);
                self.gone.push(false);
                None
            }
        }
    }
}

/// Where one worker publishes its counters.
pub struct Board {
    /// The loop's.
    pub turns: Published<LoopStats>,
    /// Each port's, in the order of their indices.
    pub ports: Vec<Published<PortCounters>>,
    /// Each stream port's.
    pub streams: Vec<Published<PortCounters>>,
    /// Those of each queue of the first port.
    pub queues: Vec<Published<QueueCounters>>,
}

impl Board {
    /// A board for a worker of `ports` ports, the first of which has `queues` queues.
    pub fn new(ports: usize, queues: usize) -> Board {
        Board {
            turns: Published::new(),
            ports: (0..ports).map(|_| Published::new()).collect(),
            streams: Vec::new(),
            queues: (0..queues).map(|_| Published::new()).collect(),
        }
    }

    /// With places for so many stream ports.
    pub fn with_streams(self, streams: usize) -> Board {
        Board { streams: (0..streams).map(|_| Published::new()).collect(), ..self }
    }
}
