//! The traffic generator: sends datagrams on a schedule fixed in advance and checks every byte that comes
//! back.
//!
//! ```text
//!   schedule ──► session ──► link ─────────────► server
//!   when?        what?       kernel sockets,       │
//!                            AF_XDP or DPDK        │
//!   report  ◄── session ◄── link ◄─────────────────┘
//!                tracker: lost, duplicated, reordered, corrupted; latency from the intended time
//! ```
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | [`payload`] | writes and checks a payload: id, time, pattern | know a socket |
//! | [`plan`] | flow and length of packet `n` | remember anything |
//! | [`schedule`] | when packet `n` is to leave | wait for answers |
//! | [`tracker`] | counts what came back, in bounded memory | allocate while running |
//! | [`latency`] | histograms in ns | |
//! | [`session`] | the four above as one measurement, driven by bytes and time | touch the kernel |
//! | [`link`], [`socket`], [`frames`] | carry a session's packets | judge their payload |
//! | [`af_xdp`] | opens sockets and rule for frames | send |
//! | `dpdk` | opens a device for frames (feature `dpdk`) | ask a kernel for the way |
//! | [`blast`] | sends from inside the kernel, counts answers | verify bytes |
//! | [`template`] | headers of packets that go out as frames | share code with the net layer |
//! | [`approach`], [`route`] | interface, source address, MAC of the next hop | send the load |
//! | [`run`] | the loop: spin, send, receive, stop | allocate |
//! | [`ceiling`] | searches the highest rate without loss | send |
//! | [`report`] | table and JSON | |
//! | [`tcp`] | the same for streams: connections, messages, bulk | send datagrams |

pub mod af_xdp;
pub mod approach;
pub mod blast;
pub mod ceiling;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod frames;
pub mod latency;
pub mod link;
pub mod live;
mod mmsg;
pub mod payload;
pub mod plan;
pub mod report;
#[cfg(feature = "dpdk")]
pub mod resolve;
pub mod route;
pub mod run;
pub mod schedule;
pub mod session;
pub mod socket;
pub mod tcp;
pub mod template;
pub mod tracker;

use ceiling::{Ceiling, Probe};
use link::{Link, monotonic_ns};
use live::Live;
use run::Limits;
use schedule::Rate;
use session::{Outcome, Session, SessionConfig};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What to send, how fast, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Flows and sizes.
    pub plan: plan::Plan,
    /// How fast.
    pub rate: Rate,
    /// Most packets back to back, at most [`crate::frame::BURST`].
    pub burst: usize,
    /// When to begin and to end.
    pub limits: Limits,
}

/// A generator over a link: any number of measurements, one after the other. Packets are numbered through,
/// so that an answer to an earlier measurement is told apart.
pub struct Generator<L> {
    link: L,
    next: u64,
}

impl<L: Link> Generator<L> {
    /// A generator over `link`.
    pub fn new(link: L) -> Generator<L> {
        Generator { link, next: 0 }
    }

    /// What carries the packets.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// Sends `load` until its limits are reached or `stop` is set. The calling thread spins meanwhile.
    ///
    /// # Errors
    /// What the link says when it cannot go on.
    pub fn measure(&mut self, load: &Load, live: &Live, stop: &AtomicBool) -> io::Result<Outcome> {
        let config =
            SessionConfig { plan: load.plan.clone(), rate: load.rate, burst: load.burst, first: self.next };
        let mut session = Session::new(config, monotonic_ns());
        let run = run::run(&mut session, &mut self.link, &load.limits, live, stop);
        self.next = session.next();
        run.map(|()| session.outcome())
    }

    /// Searches the highest rate at which nothing of `load` is lost, in 8 to 15 runs of `probe` each
    /// ([`ceiling::PROBE`] is a good one); `load`'s own rate and duration do not matter.
    ///
    /// # Errors
    /// As [`Generator::measure`].
    pub fn find_ceiling(
        &mut self,
        load: &Load,
        probe: Duration,
        live: &Live,
        stop: &AtomicBool,
    ) -> io::Result<Ceiling> {
        let mut at = |rate| {
            let limits =
                Limits { warmup: probe / 10, duration: probe, count: None, linger: load.limits.linger };
            self.measure(&Load { rate, limits, ..load.clone() }, live, stop)
        };
        let flat_out = at(Rate::Max)?;
        let above = (flat_out.received_pps * ceiling::ABOVE_FLAT_OUT).min(flat_out.sent_pps);
        ceiling::search(above, |rate_pps| {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Outcome { counts, sent_pps, .. } = at(Rate::Fixed(rate_pps))?;
            let wrong = counts.duplicated + counts.corrupted;
            Ok(Probe { rate_pps, sent_pps, sent: counts.sent, lost: counts.lost, wrong })
        })
    }
}
