//! A worker's seat: the thread it runs on, with what outlives the worker itself.
//!
//! ```text
//!   pin ─► open ports ─► Opened ──(sockets bound, rules claimed)──► go ─► run ─► Ended
//!            ▲                                                             │
//!            └──────────── again, with a fresh app, after a panic ─────────┘
//! ```
//!
//! Ports are opened and closed on the seat's own thread, so that their memory lies on its NUMA node and so that a worker's
//! end, of whatever kind, is the end of its sockets: the kernel takes a closed socket out of the XDP program's map by
//! itself.

use super::error::StartError;
use super::parked::Parked;
use crate::app::{App, WorkerId};
use crate::datagram::DatagramPort;
use crate::port::QueueCounters;
use crate::stream::StreamPort;
use crate::worker::{
    Board, End, Exchange, Helpers, IdlePolicy, LoopStats, Mailboxes, PortCounters, Run, Sleeper, Stop,
    Worker, WorkerConfig, affinity, run,
};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// Times a worker is started anew after a panic: enough for a rare bug, not enough for a payload that panics each time.
const RESTARTS_MAX: u32 = 8;

/// Jobs under way on one worker's helper thread. More would only wait in a longer queue.
const JOBS: usize = 256;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes steered frames.
    AfXdp,
    /// Takes what reaches the kernel although it is steered.
    Companion,
    /// Takes everything: the engine runs over kernel sockets.
    Kernel,
    /// Takes everything that reaches a device's queue.
    Dpdk,
    /// Carries streams over the kernel's TCP.
    Stream,
}

/// Ports as opened, in the order of their indices.
#[derive(Default)]
pub struct Opened {
    /// The ports.
    pub ports: Vec<(Role, Box<dyn DatagramPort>)>,
    /// Stream ports, whose indices follow.
    pub streams: Vec<Box<dyn StreamPort>>,
    /// AF_XDP sockets to put into the XDP program's map, by queue.
    pub sockets: Vec<(u16, OwnedFd)>,
    /// The AF_XDP port is in zero-copy mode.
    pub zero_copy: bool,
    /// Why it is not, although the device offers it.
    pub refused_zero_copy: Option<String>,
}

/// What a worker is told between two turns.
pub enum Order {
    /// Give the first port back, as [`Event::Parted`].
    Part,
    /// Take this port at this index.
    Take(usize, Box<dyn DatagramPort>),
}

/// What a seat tells the engine.
pub enum Event {
    /// The ports are open; the seat waits for its go.
    Opened {
        /// Which worker.
        worker: usize,
        /// Sockets to bind, by queue.
        sockets: Vec<(u16, OwnedFd)>,
        /// Where it will publish.
        board: Arc<Board>,
        /// Its ports.
        ports: Vec<PortName>,
        /// Its stream ports.
        streams: Vec<PortName>,
        /// The AF_XDP port is in zero-copy mode.
        zero_copy: bool,
        /// Why it is not, although the device offers it.
        refused_zero_copy: Option<String>,
    },
    /// The first port, out of the worker's hands; nothing of it is under way there.
    Parted {
        /// Which worker.
        worker: usize,
        /// The port, still open.
        port: Box<dyn DatagramPort>,
    },
    /// The ports could not be opened; the thread ends.
    Refused {
        /// Which worker.
        worker: usize,
        /// Why.
        error: StartError,
    },
    /// A port is gone; the worker goes on with the others.
    PortGone {
        /// Which worker.
        worker: usize,
        /// What the port says.
        reason: String,
    },
    /// The worker has ended and its ports are closed.
    Ended {
        /// Which worker.
        worker: usize,
        /// How.
        how: Ended,
        /// The last counters.
        counters: Final,
        /// Another worker is about to take the seat.
        again: bool,
    },
    /// Somebody asks for a snapshot.
    Ask(Sender<super::report::Report>),
    /// Somebody asks to stop.
    Stop,
}

/// A port's name and purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortName {
    /// Name for reports.
    pub name: String,
    /// What it is for.
    pub role: Role,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped(End),
    /// It panicked, with this message.
    Panicked(String),
}

/// A worker's last counters.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// The loop's.
    pub stats: LoopStats,
    /// Each port's.
    pub ports: Vec<PortCounters>,
    /// Each stream port's.
    pub streams: Vec<PortCounters>,
}

/// What a seat is made of.
pub struct Seat<A: App> {
    pub worker: WorkerConfig,
    pub core: Option<usize>,
    pub idle: IdlePolicy,
    pub drain_ns: u64,
    pub restart: bool,
    pub app: Arc<dyn Fn(WorkerId) -> A + Send + Sync>,
    pub open: Box<dyn FnMut() -> Result<Opened, StartError> + Send>,
    pub mailboxes: Mailboxes<A::Msg>,
    pub sleeper: Sleeper,
    pub stop: Stop,
    pub events: Sender<Event>,
    pub go: Receiver<()>,
    pub orders: Receiver<Order>,
    /// Queues of the first port.
    pub queues: usize,
}

impl<A: App> Seat<A> {
    /// As [`Seat::occupy`]; should anything but the worker itself panic, the engine hears of it rather than waiting for ever.
    pub fn guarded(self) {
        let (events, worker) = (self.events.clone(), self.index());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.occupy())) {
            let error = StartError::Panicked { worker: worker as u16, message: message(panic.as_ref()) };
            let _ = events.send(Event::Refused { worker, error });
        }
    }

    /// Runs workers on this thread until one ends as asked, or for good.
    fn occupy(mut self) {
        if let Some(core) = self.core
            && let Err(source) = affinity::pin(core)
        {
            let error = StartError::Thread { worker: self.worker.id.0, what: "cannot be pinned", source };
            return self.tell(Event::Refused { worker: self.index(), error });
        }
        let mut restarts = 0;
        loop {
            let again = self.restart && restarts < RESTARTS_MAX;
            match self.one(again) {
                Some(seat) => self = seat,
                None => return,
            }
            restarts += 1;
        }
    }

    fn index(&self) -> usize {
        usize::from(self.worker.id.0)
    }

    /// The engine outlives its seats' events, or nobody is interested any more.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// One worker, from opening its ports to closing them. Gives the seat back when another is to follow.
    fn one(mut self, again: bool) -> Option<Self> {
        let index = self.index();
        let opened = match (self.open)() {
            Ok(opened) => opened,
            Err(error) => {
                self.tell(Event::Refused { worker: index, error });
                return None;
            }
        };
        let names =
            opened.ports.iter().map(|(role, port)| PortName { name: port.name().into(), role: *role });
        let names: Vec<PortName> = names.collect();
        let streams =
            opened.streams.iter().map(|port| PortName { name: port.name().into(), role: Role::Stream });
        let streams: Vec<PortName> = streams.collect();
        let ports: Vec<_> = opened.ports.into_iter().map(|(_, port)| port).collect();
        // One more place than ports: a worker may inherit the companion of another.
        let board = Arc::new(Board::new(ports.len() + 1, self.queues).with_streams(streams.len()));
        let events = self.events.clone();
        self.tell(Event::Opened {
            worker: index,
            sockets: opened.sockets,
            board: Arc::clone(&board),
            ports: names,
            streams,
            zero_copy: opened.zero_copy,
            refused_zero_copy: opened.refused_zero_copy,
        });
        // No go: another worker could not start, so this one does not either.
        self.go.recv().ok()?;

        let build = || (self.app)(self.worker.id);
        let app = match catch_unwind(AssertUnwindSafe(build)) {
            Ok(app) => app,
            Err(panic) => {
                let how = Ended::Panicked(message(panic.as_ref()));
                drop(ports);
                self.tell(Event::Ended { worker: index, how, counters: Final::default(), again });
                return again.then_some(self);
            }
        };
        let helpers = Helpers::new(JOBS, Arc::clone(self.sleeper.waker()));
        let mut worker =
            Worker::new(&self.worker, app, ports, self.mailboxes, helpers).with_streams(opened.streams);
        let sleeper = &mut self.sleeper;
        let stop = &self.stop;
        let (idle, drain_ns) = (self.idle, self.drain_ns);
        let mut on_failure = |_, reason| {
            let _ = events.send(Event::PortGone { worker: index, reason });
        };
        let orders = &self.orders;
        let mut exchange = |ports: &mut Exchange<'_>| carry_out(orders, ports, &board, index, &events);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run(
                &mut worker,
                sleeper,
                Run {
                    idle,
                    drain_ns,
                    stop,
                    board: &board,
                    on_failure: &mut on_failure,
                    exchange: &mut exchange,
                },
            )
        }));
        let how = match outcome {
            Ok(end) => Ended::Stopped(end),
            Err(panic) => {
                worker.abandon();
                Ended::Panicked(message(panic.as_ref()))
            }
        };
        let again = again && matches!(how, Ended::Panicked(_));
        let counters =
            Final { stats: worker.stats(), ports: worker.close(), streams: worker.close_streams() };
        let mailboxes = worker.into_mailboxes();
        let _ = events.send(Event::Ended { worker: index, how, counters, again });
        again.then_some(Seat { mailboxes, ..self })
    }
}

/// Carries out what the engine has ordered; says whether there was anything. Nothing in here waits.
fn carry_out(
    orders: &Receiver<Order>,
    ports: &mut Exchange<'_>,
    board: &Board,
    worker: usize,
    events: &Sender<Event>,
) -> bool {
    let mut any = false;
    while let Ok(order) = orders.try_recv() {
        any = true;
        match order {
            Order::Part => {
                let Some(port) = ports.put(0, Box::new(Parked)) else { continue };
                // Before the port is reported: whoever adds it to the past must not find it on the board, too.
                board.ports[0].set(&PortCounters::default());
                board.queues.iter().for_each(|queue| queue.set(&QueueCounters::default()));
                let _ = events.send(Event::Parted { worker, port });
            }
            Order::Take(index, port) => drop(ports.put(index, port)),
        }
    }
    any
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
