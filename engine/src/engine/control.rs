//! The engine's control thread: everything that happens while it runs and is not a packet.
//!
//! It owns the steering and the seats, takes their events in order, watches the queues, and answers who asks for the state.
//! Workers never wait for it, except a new one for its first go.

use super::config::{Config, Io};
use super::front::Front;
use super::ladder::{Ladder, Rung, Standing};
use super::ports::First;
use super::report::{self, Report, Total};
use super::seat::{Ended, Event, Final, Order, PortName, Role};
use super::step::Step;
use super::watch::{LOOK_EVERY, Watch};
use super::{Notice, StartError, dpdk};
use crate::frame::Ledger;
use crate::port::{PortStats, QueueCounters};
use crate::time::Now;
use crate::worker::{Board, Stop, Waker};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the control thread knows of a seat.
pub(super) struct Chair {
    pub share: super::plan::Share,
    pub thread: Option<JoinHandle<()>>,
    pub go: Sender<()>,
    pub orders: Sender<Order>,
    /// What its first port is opened from, when the engine steps down.
    pub first: Option<First>,
    pub waker: Arc<Waker>,
    pub board: Option<Arc<Board>>,
    pub ports: Vec<PortName>,
    pub streams: Vec<PortName>,
    /// What earlier workers in this seat counted.
    pub past: Final,
    /// The last counters of the worker in it, once it has ended.
    pub last: Option<Final>,
    pub state: &'static str,
    pub panic: Option<String>,
    pub restarts: u32,
}

impl Chair {
    pub fn is_done(&self) -> bool {
        self.last.is_some()
    }

    /// What the worker has published of its first port, while it runs.
    pub fn first_port(&self) -> Option<PortStats> {
        let board = self.board.as_ref().filter(|_| !self.is_done())?;
        Some(board.ports.first()?.get().port)
    }

    /// Turns that the worker in it has published.
    pub fn turns(&self) -> u64 {
        self.board.as_ref().map_or(0, |board| board.turns.get().turns)
    }

    /// What it has published of one of its queues, while it runs.
    pub fn queue_counters(&self, at: usize) -> Option<QueueCounters> {
        let board = self.board.as_ref().filter(|_| !self.is_done())?;
        board.queues.get(at).map(|queue| queue.get())
    }

    /// Counters so far, earlier workers included.
    fn counters(&self) -> Final {
        let mut now = match (&self.last, &self.board) {
            (Some(last), _) => last.clone(),
            (None, Some(board)) => Final {
                stats: board.turns.get(),
                ports: board.ports.iter().map(|port| port.get()).collect(),
                streams: board.streams.iter().map(|port| port.get()).collect(),
            },
            (None, None) => Final::default(),
        };
        report::add(&self.past, &mut now);
        now
    }
}

/// The state of the control thread.
pub(super) struct Control {
    pub config: Config,
    pub fallback: Option<String>,
    pub front: Option<Front>,
    pub dpdk: Option<dpdk::Host>,
    pub chairs: Vec<Chair>,
    pub stop: Stop,
    pub events: Receiver<Event>,
    pub notices: Sender<Notice>,
    pub since: Instant,
    pub ladder: Ladder,
    pub standing: Standing,
    /// The step that is under way.
    pub step: Option<Step>,
    pub watch: Option<Watch>,
}

impl Control {
    /// Waits until every seat has opened its ports, then binds the sockets, claims the rules and lets the workers go.
    ///
    /// # Errors
    /// The first that any seat met; the other seats then end as their goes are dropped.
    pub fn set_out(&mut self) -> Result<(), StartError> {
        let mut all_sockets = Vec::new();
        let (mut any_zero_copy, mut refused) = (false, None);
        for _ in 0..self.chairs.len() {
            match self.events.recv() {
                Ok(Event::Opened {
                    worker,
                    sockets,
                    board,
                    ports,
                    streams,
                    zero_copy,
                    refused_zero_copy,
                }) => {
                    let chair = &mut self.chairs[worker];
                    (chair.board, chair.ports, chair.streams) = (Some(board), ports, streams);
                    all_sockets.extend(sockets);
                    any_zero_copy |= zero_copy;
                    refused = refused.or(refused_zero_copy);
                }
                Ok(Event::Refused { error, .. }) => return Err(error),
                // Nothing else comes before a go, and this thread holds a sender.
                _ => return Err(StartError::Xdp("a worker ended before it began".into())),
            }
        }
        if let Some(front) = &mut self.front {
            front.bind(&all_sockets)?;
            drop(all_sockets);
            front.claim(&self.config)?;
            self.settle_on_a_rung(any_zero_copy, refused);
        }
        self.since = Instant::now();
        for chair in &mut self.chairs {
            chair.state = "running";
            let _ = chair.go.send(());
        }
        Ok(())
    }

    /// Says where on the ladder the engine has come to stand when it started.
    fn settle_on_a_rung(&mut self, zero_copy: bool, refused: Option<String>) {
        let generic = self.front.as_ref().is_some_and(Front::is_generic);
        self.ladder.pinned = self.front.as_ref().is_some_and(Front::is_pinned);
        if let Some(why) = refused {
            let why = format!("the device offers zero-copy, but refuses it: {why}");
            log::warn!("{}", self.ladder.step(Rung::Copy, why, Ledger::default()));
        }
        // A driver that offers no zero-copy was never a step higher.
        self.ladder.rung = match (generic, zero_copy) {
            (true, _) => Rung::Generic,
            (false, true) => Rung::ZeroCopy,
            (false, false) => Rung::Copy,
        };
        self.standing.set(self.ladder.rung);
        self.watch();
    }

    /// Takes events until the engine has stopped; returns the final report.
    pub fn run(mut self) -> Report {
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            let event = match &self.watch {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => self.events.recv_timeout(next_look.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK_EVERY;
                self.look();
            }
            if self.stop.is_requested() && self.chairs.iter().all(Chair::is_done) {
                break;
            }
        }
        self.stop.request();
        for chair in &mut self.chairs {
            if let Some(thread) = chair.thread.take() {
                let _ = thread.join();
            }
        }
        // The workers' sockets are closed; now the program goes, unless it is pinned.
        let mut report = self.report(false);
        drop(self.front);
        // The devices close after their workers' queues, and show then whether every mbuf is back.
        if let Some(host) = self.dpdk {
            drop(self.chairs);
            host.close(&mut report);
        }
        report
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Stop => self.begin_stop(),
            Event::Ask(reply) => {
                let _ = reply.send(self.report(true));
            }
            Event::Opened { worker, sockets, board, ports, streams, .. } => {
                self.chairs[worker].streams = streams;
                self.reopened(worker, sockets, board, ports)
            }
            Event::Refused { worker, error } => {
                let chair = &mut self.chairs[worker];
                (chair.last, chair.state) = (Some(Final::default()), "panicked");
                self.notify(Notice::NotRestarted { worker, why: error.to_string() });
                self.will_not_part(worker);
            }
            Event::PortGone { worker, reason } => self.notify(Notice::PortGone { worker, reason }),
            Event::Parted { worker, port } => self.parted(worker, port),
            Event::Ended { worker, how, counters, again } => {
                self.ended(worker, how, counters, again);
                if !again {
                    self.will_not_part(worker);
                }
            }
        }
    }

    /// Looks whether a queue has stalled.
    fn look(&mut self) {
        let (Some(watch), Some(front)) = (&mut self.watch, &self.front) else { return };
        let now = Now { ns: self.since.elapsed().as_nanos() as u64, unix_secs: 0 };
        if let Some((queue, stall)) = watch.look(now, self.ladder.rung, front, &self.chairs) {
            self.step_down(format!("queue {queue} has stalled: {stall}"));
        }
    }

    /// First the rules go, so that new packets are the kernel's, then the workers drain.
    fn begin_stop(&mut self) {
        if self.stop.is_requested() {
            return;
        }
        if let Some(front) = &mut self.front {
            front.release();
        }
        self.stop.request();
        self.watch = None;
        for chair in &self.chairs {
            chair.waker.notify();
        }
    }

    fn ended(&mut self, worker: usize, how: Ended, counters: Final, again: bool) {
        let chair = &mut self.chairs[worker];
        chair.state = how.as_str();
        let message = match how {
            Ended::Panicked(message) => message,
            Ended::Stopped(_) => {
                chair.last = Some(counters);
                return;
            }
        };
        chair.panic = Some(message.clone());
        // Before the successor binds: its sockets must not be taken out in its place.
        if let Some(front) = &mut self.front {
            front.unbind(&chair.share.queues);
        }
        if again && !self.stop.is_requested() {
            chair.restarts += 1;
            let mut past = counters;
            report::add(&chair.past, &mut past);
            (chair.past, chair.board) = (past, None);
        } else {
            chair.last = Some(counters);
        }
        self.notify(Notice::Panicked { worker, message, again });
        if self.chairs[worker].is_done() {
            self.bequeath_companion(worker);
        }
        self.watch_anew();
    }

    /// Gives the companion of a worker that is gone for good to one that runs: it answers fragments and unserved queues.
    fn bequeath_companion(&mut self, worker: usize) {
        let had = self.chairs[worker].ports.iter().any(|port| port.role == Role::Companion);
        if !had || self.stop.is_requested() {
            return;
        }
        let mut heirs = self.chairs.iter_mut().filter(|chair| !chair.is_done() && chair.board.is_some());
        let Some(heir) = heirs.next() else { return };
        let Some(first) = &heir.first else { return };
        match first.open_companion() {
            Ok(port) => {
                let name = PortName { name: port.name().to_owned(), role: Role::Companion };
                let _ = heir.orders.send(Order::Take(heir.ports.len(), port));
                heir.waker.notify();
                heir.ports.push(name);
            }
            Err(error) => log::error!("fragments and unserved queues go unanswered: {error}"),
        }
    }

    /// Counters of a port have begun anew.
    fn watch_anew(&mut self) {
        if self.watch.take().is_some() {
            self.watch();
        }
    }

    /// A new worker has taken a seat after a panic.
    fn reopened(
        &mut self,
        worker: usize,
        sockets: Vec<(u16, OwnedFd)>,
        board: Arc<Board>,
        ports: Vec<PortName>,
    ) {
        if let Some(front) = &mut self.front
            && let Err(error) = front.bind(&sockets)
        {
            self.notify(Notice::NotRestarted { worker, why: error.to_string() });
        }
        let chair = &mut self.chairs[worker];
        (chair.board, chair.ports, chair.state) = (Some(board), ports, "running");
        let _ = chair.go.send(());
        self.notify(Notice::Restarted { worker });
        self.watch_anew();
    }

    pub(super) fn notify(&self, notice: Notice) {
        match notice {
            Notice::Demoted { .. } => log::warn!("{notice}"),
            _ => log::error!("{notice}"),
        }
        // Nobody has to listen.
        let _ = self.notices.send(notice);
    }

    pub fn report(&self, running: bool) -> Report {
        let worker = |(worker, chair): (usize, &Chair)| {
            let counters = chair.counters();
            let ports = chair.ports.iter().cloned().zip(counters.ports);
            let ports = ports.chain(chair.streams.iter().cloned().zip(counters.streams));
            report::Worker {
                worker,
                core: chair.share.core,
                queues: chair.share.queues.clone(),
                state: chair.state,
                panic: chair.panic.clone(),
                restarts: chair.restarts,
                turns: counters.stats,
                ports: ports.map(|(name, counters)| report::Port { name, counters }).collect(),
            }
        };
        let workers: Vec<_> = self.chairs.iter().enumerate().map(worker).collect();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            interface: self.config.interface.clone(),
            ports: self.config.ports.to_string(),
            tcp: self.config.tcp.as_ref().map(|tcp| {
                let io = match () {
                    () if self.config.tcp_is_own() => "our own",
                    () if self.config.tcp_is_uring() => "io_uring",
                    () => "epoll",
                };
                format!("{} over {io}", tcp.ports)
            }),
            addresses: self.config.addresses.iter().map(ToString::to_string).collect(),
            io: match self.ladder.rung {
                Rung::Socket if self.config.io == Io::AfXdp => Io::Mmsg.as_str(),
                _ => self.config.io.as_str(),
            },
            fallback: self.fallback.clone(),
            rung: (self.config.io == Io::AfXdp || !self.ladder.steps.is_empty())
                .then_some(self.ladder.rung),
            demotions: self.ladder.steps.clone(),
            seconds: self.since.elapsed().as_secs_f64(),
            running,
            xdp: self.front.as_ref().map(Front::report),
            dpdk: self.dpdk.as_ref().map(dpdk::Host::report),
            total: {
                let total = Total::of(&workers);
                let given_up = self.ladder.steps.iter().all(|step| step.ledger.balances());
                Total { ledger_balances: total.ledger_balances && given_up, ..total }
            },
            workers,
        }
    }

    /// One line on what carries the packets: what the ready line says.
    pub fn describe(&self) -> String {
        let ports = self.chairs.iter().flat_map(|chair| chair.ports.iter().chain(&chair.streams));
        let ports = ports.filter(|p| p.role != Role::Companion);
        let mut names: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
        names.dedup();
        let workers = self.chairs.len();
        let plural = if workers == 1 { "" } else { "s" };
        format!("{workers} worker{plural}: {}", names.join(" · "))
    }
}
