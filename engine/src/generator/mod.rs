//! The traffic generator: sends datagrams on a schedule fixed in advance and checks every byte that comes back.
//!
//! ```text
//!   schedule ──► session ──► link ─────────────► server
//!   when?        what?       kernel sockets        │
//!                            or AF_XDP             │
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
//! | [`template`] | headers of packets that go out as frames | share code with the net layer |
//! | [`run`] | the loop: spin, send, receive, stop | allocate |
//! | [`ceiling`] | searches the highest rate without loss | send |
//! | [`report`] | table and JSON | |

pub mod ceiling;
pub mod frames;
pub mod latency;
pub mod link;
pub mod live;
mod mmsg;
pub mod payload;
pub mod plan;
pub mod report;
pub mod run;
pub mod schedule;
pub mod session;
pub mod socket;
pub mod template;
pub mod tracker;

use link::{Link, monotonic_ns};
use std::io;
use std::sync::atomic::AtomicBool;

/// What to send, how fast, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Flows and sizes.
    pub plan: plan::Plan,
    /// How fast.
    pub rate: schedule::Rate,
    /// Most packets back to back, at most [`crate::frame::BURST`].
    pub burst: usize,
    /// When to begin and to end.
    pub limits: run::Limits,
}

/// Sends `load` over `link`, numbering packets from `first`, until its limits are reached or `stop` is set. The calling
/// thread spins meanwhile.
pub fn measure(
    load: &Load,
    link: &mut impl Link,
    first: u64,
    live: &live::Live,
    stop: &AtomicBool,
) -> io::Result<session::Outcome> {
    let config =
        session::SessionConfig { plan: load.plan.clone(), rate: load.rate, burst: load.burst, first };
    let mut session = session::Session::new(config, monotonic_ns());
    run::run(&mut session, link, &load.limits, live, stop)?;
    Ok(session.outcome())
}
