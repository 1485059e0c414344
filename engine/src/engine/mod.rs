//! The engine: workers over ports, put together from a configuration.
//!
//! ```text
//!   kernel sockets bound ─► XDP program attached ─► AF_XDP sockets bound to queues ─► rules claimed ─► ready
//!   rules released ─► workers drain, close AF_XDP, then kernel sockets ─► program detached ─► report
//! ```
//!
//! Traffic is steered only while somebody is there to answer it, and at every step before and after, the kernel has it.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | what an engine is told |
//! | [`ladder`] | zero-copy, copy, generic, socket: where it stands and how far down it may go |
//! | [`stall`], `watch` | when a queue has stalled; gathering what that is decided on |
//! | `step`, `parked` | a step down while the workers run; what stands in for a port meanwhile |
//! | `plan` | queues and cores dealt to workers |
//! | `ports` | the ports of one worker |
//! | `streams` | the stream ports of one worker |
//! | [`companion`] | the kernel sockets of every steered address and port, as one port |
//! | `front` | the XDP program in front of the engine |
//! | `dpdk` | the devices of an engine over DPDK (with the cargo feature; without, the refusal) |
//! | `seat` | a worker's thread; what happens when it panics |
//! | `control` | the thread that owns all of it |
//! | [`report`], [`status`] | what it did and does |

pub mod companion;
pub mod config;
mod control;
#[cfg_attr(not(feature = "dpdk"), path = "no_dpdk.rs")]
mod dpdk;
mod error;
mod front;
pub mod ladder;
mod link;
mod parked;
mod plan;
mod ports;
pub mod report;
mod seat;
pub mod stall;
pub mod status;
mod step;
mod streams;
mod watch;

pub use config::Config;
pub use error::StartError;
pub use report::Report;
pub use seat::{PortName, Role};

use crate::app::{App, WorkerId};
use crate::datagram::DatagramPort;
use crate::host::{self, Service};
use crate::net::owner::HandOverPlace;
use crate::worker::{IdlePolicy, Mailboxes, Sleeper, Stop, WorkerConfig, affinity};
use config::{Attach, Io};
use control::{Chair, Control};
use front::Front;
use ladder::{Demotion, Ladder, Rung, Standing};
use link::Carried;
use plan::Share;
use ports::{Links, Recipe};
use seat::{Event, Final, Seat};
use status::StatusSocket;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages that fit between two workers.
const MAILBOX: usize = 1024;

/// Something the engine's owner may want to act on. It has been logged already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A worker panicked; its queues are the kernel's.
    Panicked {
        /// Which worker.
        worker: usize,
        /// What the panic said.
        message: String,
        /// A new worker is about to take its place.
        again: bool,
    },
    /// The new worker runs.
    Restarted {
        /// Which worker.
        worker: usize,
    },
    /// The new worker could not be started.
    NotRestarted {
        /// Which worker.
        worker: usize,
        /// Why.
        why: String,
    },
    /// A queue has stalled or could not be bound: the engine goes on a rung lower, and stays there.
    Demoted {
        /// The rung it stood on.
        from: Rung,
        /// The rung it goes on with.
        to: Rung,
        /// Why.
        why: String,
    },
    /// A queue has stalled, and what was asked for leaves no rung below.
    Stalled {
        /// What stands still.
        why: String,
    },
    /// A port is gone (its interface was removed, say); the worker goes on with the others.
    PortGone {
        /// Which worker.
        worker: usize,
        /// What the port says.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Panicked { worker, message, again } => {
                let then = if *again { "it is started anew" } else { "it stays down" };
                write!(
                    f,
                    "worker {worker} panicked ({message}); its queues are the kernel's now and {then}"
                )
            }
            Notice::Restarted { worker } => write!(f, "worker {worker} runs again"),
            Notice::NotRestarted { worker, why } => {
                write!(f, "worker {worker} could not be started anew: {why}")
            }
            Notice::Demoted { from, to, why } => write!(f, "stepping down from {from} to {to}: {why}"),
            Notice::Stalled { why } => write!(f, "{why}, and what is required leaves no step down"),
            Notice::PortGone { worker, reason } => write!(f, "worker {worker} lost a port: {reason}"),
        }
    }
}

/// A running engine. Dropping it stops it.
pub struct Engine {
    events: Sender<Event>,
    notices: Receiver<Notice>,
    control: Option<JoinHandle<Report>>,
    description: String,
    fallback: Option<String>,
    _status: Option<StatusSocket>,
}

impl Engine {
    /// Starts an engine in the calling thread's network namespace, and returns when it can answer. `app` is called on each worker's
    /// own thread.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start<A: App>(
        config: Config,
        app: impl Fn(WorkerId) -> A + Send + Sync + 'static,
    ) -> Result<Engine, StartError> {
        let app: Arc<dyn Fn(WorkerId) -> A + Send + Sync> = Arc::new(app);
        if config.io != Io::AfXdp {
            if config.require_xdp {
                return Err(StartError::XdpRequired {
                    why: format!("--io {} is asked for", config.io.as_str()),
                });
            }
            let bypass = match config.io {
                Io::Dpdk => {
                    let (host, shares) = dpdk::Host::start(&config, &affinity::allowed())?;
                    Some(Bypass::Dpdk(Box::new(host), shares))
                }
                _ => None,
            };
            return Engine::over(config, bypass, None, Vec::new(), &app);
        }
        let link = config.interface.as_deref().and_then(Carried::now);
        let mut steps = Vec::new();
        let mut attempt = Engine::over_af_xdp(&config, &steps, &app);
        if let Err(StartError::Bind { why }) = &attempt
            && config.attach == Attach::Auto
        {
            let generic = Config { attach: Attach::Generic, ..config.clone() };
            steps.push(stepped(Rung::Copy, Rung::Generic, why));
            attempt = Engine::over_af_xdp(&generic, &steps, &app);
        }
        let started = match attempt {
            Err(StartError::XdpRequired { why } | StartError::Bind { why }) if !config.require_xdp => {
                log::warn!("running over kernel sockets: {why}");
                if let Some(last) = steps.last() {
                    steps.push(stepped(last.to, Rung::Socket, &why));
                }
                let config = Config { io: Io::Mmsg, ..config };
                Engine::over(config, None, Some(why), steps, &app)
            }
            Err(StartError::Bind { why }) => Err(StartError::XdpRequired { why }),
            outcome => outcome,
        };
        if started.is_ok()
            && let Some(link) = link
        {
            link.wait();
        }
        started
    }

    /// An engine over AF_XDP, on the rung that `config` and the machine allow; `steps` led here.
    fn over_af_xdp<A: App>(
        config: &Config,
        steps: &[Demotion],
        app: &Arc<dyn Fn(WorkerId) -> A + Send + Sync>,
    ) -> Result<Engine, StartError> {
        if config.interface.is_none() {
            return Err(StartError::XdpRequired { why: "no interface was named".into() });
        }
        // First of all: a port in use must not cost the interface a moment without its link.
        let companion = ports::companion(config)?;
        let front = Front::attach(config)?;
        let bypass = Bypass::Xdp(Box::new(front), companion);
        Engine::over(config.clone(), Some(bypass), None, steps.to_vec(), app)
    }

    fn over<A: App>(
        config: Config,
        bypass: Option<Bypass>,
        fallback: Option<String>,
        steps: Vec<Demotion>,
        app: &Arc<dyn Fn(WorkerId) -> A + Send + Sync>,
    ) -> Result<Engine, StartError> {
        let (front, companion, dpdk, dealt) = match bypass {
            Some(Bypass::Xdp(front, companion)) => (Some(*front), Some(companion), None, None),
            Some(Bypass::Dpdk(host, shares)) => (None, None, Some(*host), Some(shares)),
            None => (None, None, None, None),
        };
        let allowed = affinity::allowed();
        let available = front.as_ref().map(Front::queues);
        let shares = match dealt {
            Some(shares) => shares,
            None => plan::shares(&config, available, &allowed)?,
        };
        let key = match (&front, &dpdk) {
            (Some(front), _) => front.key(),
            (None, Some(_)) => "dpdk".into(),
            (None, None) => front::key(config.interface.as_deref()),
        };
        let links = match &front {
            Some(front) => Some(Links {
                control: Arc::new(
                    crate::control::Control::start().map_err(|e| StartError::Xdp(e.to_string()))?,
                ),
                interface: front.index(),
            }),
            None => None,
        };
        if front.is_some() {
            warn(&config, &shares);
        }
        let standing = Standing::default();
        if front.as_ref().is_some_and(Front::is_generic) {
            standing.set(Rung::Generic);
        }
        let recipes = match &dpdk {
            Some(host) => {
                let recipe = |share| Recipe::elsewhere(host.opener(share));
                shares.iter().map(recipe).collect()
            }
            None => ports::recipes(&config, &shares, links, companion, &standing)?,
        };
        let (events, from_events) = mpsc::channel();
        let (notices, from_notices) = mpsc::channel();
        let stop = Stop::new();
        let mut control = Control {
            fallback: fallback.clone(),
            front,
            dpdk,
            chairs: Vec::new(),
            stop: stop.clone(),
            events: from_events,
            notices,
            since: Instant::now(),
            ladder: Ladder::new(&config, steps),
            standing,
            step: None,
            watch: None,
            config,
        };
        let started =
            spawn(&mut control, shares, recipes, app, &stop, &events).and_then(|()| control.set_out());
        if let Err(error) = started {
            give_up(control);
            return Err(error);
        }
        let status = match StatusSocket::open(
            format!("{}/{key}.{}.sock", status::DIRECTORY, std::process::id()).into(),
            events.clone(),
        ) {
            Ok(status) => Some(status),
            Err(error) => {
                log::warn!("`volley status` will not see this engine: {}: {error}", status::DIRECTORY);
                None
            }
        };
        let description = control.describe();
        let thread = std::thread::Builder::new().name("volley-engine".into());
        let control = thread.spawn(move || control.run()).map_err(|source| StartError::Thread {
            worker: 0,
            what: "the control thread cannot be started",
            source,
        })?;
        Ok(Engine {
            events,
            notices: from_notices,
            control: Some(control),
            description,
            fallback,
            _status: status,
        })
    }

    /// One line on workers and ports.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Why this engine runs over kernel sockets although AF_XDP was asked for.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Waits for something to happen; `None` when nothing did in that time.
    pub fn wait(&self, at_most: Duration) -> Option<Notice> {
        match self.notices.recv_timeout(at_most) {
            Ok(notice) => Some(notice),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(at_most);
                None
            }
        }
    }

    /// What it has done so far; `None` when it is stopping.
    pub fn report(&self) -> Option<Report> {
        let (reply, report) = mpsc::channel();
        self.events.send(Event::Ask(reply)).ok()?;
        report.recv().ok()
    }

    /// Stops: releases the rules, drains, closes everything, and says what was done. `None` when the control thread itself
    /// has panicked.
    pub fn stop(mut self) -> Option<Report> {
        self.end()
    }

    fn end(&mut self) -> Option<Report> {
        let control = self.control.take()?;
        let _ = self.events.send(Event::Stop);
        control.join().ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

/// A step that was taken before there was an engine.
fn stepped(from: Rung, to: Rung, why: &str) -> Demotion {
    let step = Demotion { from, to, why: why.to_owned(), ledger: crate::frame::Ledger::default() };
    log::warn!("{step}");
    step
}

/// Names what is not as it should be on the interface.
fn warn(config: &Config, shares: &[Share]) {
    let Some(interface) = &config.interface else { return };
    let default = Service::default();
    let service = Service {
        queues: Some(shares.iter().flat_map(|share| share.queues.clone()).collect()),
        cores: shares.iter().filter_map(|share| share.core.map(|core| core as u32)).collect(),
        ports: config.ports.0.clone(),
        chunk: config.af_xdp.chunk.unwrap_or(default.chunk),
    };
    for check in host::warnings(interface, &service) {
        let remedy = check.remedy.unwrap_or_default();
        log::warn!("{interface}: {}: {}; mend it with: {remedy}", check.name, check.found);
    }
}

/// What takes packets past the kernel, opened before the workers are.
enum Bypass {
    /// The XDP program, and the kernel sockets beside it.
    Xdp(Box<Front>, Box<dyn DatagramPort>),
    /// DPDK's devices, and who serves which queue.
    Dpdk(Box<dpdk::Host>, Vec<Share>),
}

/// Starts a thread for each share.
fn spawn<A: App>(
    control: &mut Control,
    shares: Vec<Share>,
    recipes: Vec<Recipe>,
    app: &Arc<dyn Fn(WorkerId) -> A + Send + Sync>,
    stop: &Stop,
    events: &Sender<Event>,
) -> Result<(), StartError> {
    let config = control.config.clone();
    // Nobody wakes a worker over a polled device: it spins, unless naps were asked for.
    let usual = match config.io {
        Io::Dpdk => IdlePolicy::Spin,
        _ => IdlePolicy::for_cores(affinity::allowed().len()),
    };
    let idle = config.idle.unwrap_or(usual);
    let failed =
        |worker: usize, what| move |source| StartError::Thread { worker: worker as u16, what, source };
    let mut sleepers = Vec::new();
    for worker in 0..shares.len() {
        sleepers.push(Sleeper::new().map_err(failed(worker, "no eventfd to wake it with"))?);
    }
    let wakers: Vec<_> = sleepers.iter().map(|sleeper| Arc::clone(sleeper.waker())).collect();
    let mailboxes = Mailboxes::mesh(&wakers, MAILBOX);
    let queues: Vec<_> = shares.iter().map(|share| share.queues.clone()).collect();
    let mut recipes = recipes;
    for (recipe, place) in recipes.iter_mut().zip(HandOverPlace::all(&queues, &wakers)) {
        recipe.hand_over_at(place);
    }
    let parts = shares.into_iter().zip(recipes).zip(sleepers).zip(mailboxes).zip(wakers);
    for (worker, ((((share, mut recipe), sleeper), mailboxes), waker)) in parts.enumerate() {
        let id = WorkerId(worker as u16);
        let (go, gone) = mpsc::channel();
        let (orders, from_engine) = mpsc::channel();
        let first = recipe.first().cloned();
        let ring = Arc::clone(&waker);
        let seat = Seat {
            worker: WorkerConfig {
                seed: config.seed.unwrap_or_else(seed).wrapping_add(worker as u64),
                tick_ns: 1_000_000_000u64.checked_div(u64::from(config.tick_hz)),
                ..WorkerConfig::new(id)
            },
            core: share.core,
            idle,
            drain_ns: config.drain().as_nanos() as u64,
            restart: config.on_panic == config::OnPanic::Restart,
            app: Arc::clone(app),
            open: Box::new(move || recipe.open(&ring)),
            mailboxes,
            sleeper,
            stop: stop.clone(),
            events: events.clone(),
            go: gone,
            orders: from_engine,
            queues: share.queues.len(),
        };
        let thread = std::thread::Builder::new().name(format!("volley-{worker}"));
        let thread =
            thread.spawn(move || seat.guarded()).map_err(failed(worker, "its thread cannot be started"))?;
        control.chairs.push(Chair {
            share,
            thread: Some(thread),
            go,
            orders,
            first,
            waker,
            board: None,
            ports: Vec::new(),
            streams: Vec::new(),
            past: Final::default(),
            last: None,
            state: "starting",
            panic: None,
            restarts: 0,
        });
    }
    Ok(())
}

/// A seed from the system's entropy, through the one door the standard library has to it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Takes back a start that failed: without its go a seat closes its ports and ends.
fn give_up(control: Control) {
    // The devices close last, when no seat has a queue of theirs any more.
    let Control { chairs, front, dpdk: _dpdk, stop, .. } = control;
    stop.request();
    let threads: Vec<_> = chairs.into_iter().filter_map(|chair| chair.thread).collect();
    for thread in threads {
        let _ = thread.join();
    }
    drop(front);
}
