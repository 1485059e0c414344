//! The engine's control thread: everything that happens while it runs and is not a packet.
//!
//! It owns the steering and the seats, takes their events in order, and answers who asks for the state. Workers never
//! wait for it, except a new one for its first go.

use super::config::Config;
use super::front::Front;
use super::report::{self, Report, Total};
use super::seat::{Ended, Event, Final, PortName, Role};
use super::{Notice, StartError};
use crate::worker::{Board, Stop, Waker};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the control thread knows of a seat.
pub(super) struct Chair {
    pub share: super::plan::Share,
    pub thread: Option<JoinHandle<()>>,
    pub go: Sender<()>,
    pub waker: Arc<Waker>,
    pub board: Option<Arc<Board>>,
    pub ports: Vec<PortName>,
    /// What earlier workers in this seat counted.
    pub past: Final,
    /// The last counters of the worker in it, once it has ended.
    pub last: Option<Final>,
    pub state: &'static str,
    pub panic: Option<String>,
    pub restarts: u32,
}

impl Chair {
    fn is_done(&self) -> bool {
        self.last.is_some()
    }

    /// Counters so far, earlier workers included.
    fn counters(&self) -> Final {
        let mut now = match (&self.last, &self.board) {
            (Some(last), _) => last.clone(),
            (None, Some(board)) => Final {
                stats: board.turns.get(),
                ports: board.ports.iter().map(|port| port.get()).collect(),
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
    pub chairs: Vec<Chair>,
    pub stop: Stop,
    pub events: Receiver<Event>,
    pub notices: Sender<Notice>,
    pub since: Instant,
}

impl Control {
    /// Waits until every seat has opened its ports, then binds the sockets, claims the rules and lets the workers go.
    ///
    /// # Errors
    /// The first that any seat met; the other seats then end as their goes are dropped.
    pub fn set_out(&mut self) -> Result<(), StartError> {
        let mut all_sockets = Vec::new();
        for _ in 0..self.chairs.len() {
            match self.events.recv() {
                Ok(Event::Opened { worker, sockets, board, ports }) => {
                    let chair = &mut self.chairs[worker];
                    (chair.board, chair.ports) = (Some(board), ports);
                    all_sockets.extend(sockets);
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
        }
        self.since = Instant::now();
        for chair in &mut self.chairs {
            chair.state = "running";
            let _ = chair.go.send(());
        }
        Ok(())
    }

    /// Takes events until the engine has stopped; returns the final report.
    pub fn run(mut self) -> Report {
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Stop => self.begin_stop(),
                Event::Ask(reply) => {
                    let _ = reply.send(self.report(true));
                }
                Event::Opened { worker, sockets, board, ports } => {
                    self.reopened(worker, sockets, board, ports)
                }
                Event::Refused { worker, error } => {
                    let chair = &mut self.chairs[worker];
                    (chair.last, chair.state) = (Some(Final::default()), "panicked");
                    self.notify(Notice::NotRestarted { worker, why: error.to_string() });
                }
                Event::PortGone { worker, reason } => self.notify(Notice::PortGone { worker, reason }),
                Event::Ended { worker, how, counters, again } => self.ended(worker, how, counters, again),
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
        let report = self.report(false);
        drop(self.front);
        report
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
    }

    fn notify(&self, notice: Notice) {
        log::error!("{notice}");
        // Nobody has to listen.
        let _ = self.notices.send(notice);
    }

    pub fn report(&self, running: bool) -> Report {
        let worker = |(worker, chair): (usize, &Chair)| {
            let counters = chair.counters();
            let ports = chair.ports.iter().cloned().zip(counters.ports);
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
            addresses: self.config.addresses.iter().map(ToString::to_string).collect(),
            io: self.config.io.as_str(),
            fallback: self.fallback.clone(),
            seconds: self.since.elapsed().as_secs_f64(),
            running,
            xdp: self.front.as_ref().map(Front::report),
            total: Total::of(&workers),
            workers,
        }
    }

    /// One line on what carries the packets: what the ready line says.
    pub fn describe(&self) -> String {
        let ports = self.chairs.iter().flat_map(|chair| &chair.ports).filter(|p| p.role != Role::Companion);
        let mut names: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
        names.dedup();
        let workers = self.chairs.len();
        let plural = if workers == 1 { "" } else { "s" };
        format!("{workers} worker{plural}: {}", names.join(" · "))
    }
}
