//! The loop: send what is due, take what has come, until the end.

use super::link::{Link, monotonic_ns};
use super::live::Live;
use super::session::Session;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// When a measurement begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long to send without measuring.
    pub warmup: Duration,
    /// How long to send and measure.
    pub duration: Duration,
    /// How many measured packets to send at most.
    pub count: Option<u64>,
    /// How long to wait for answers after the last packet.
    pub linger: Duration,
}

/// Runs a session over a link until its limits are reached or `stop` is set.
///
/// Spins: whoever calls this gives it a core. Nothing is allocated in the loop.
pub fn run(
    session: &mut Session,
    link: &mut impl Link,
    limits: &Limits,
    live: &Live,
    stop: &AtomicBool,
) -> io::Result<()> {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let warmup = nanos(limits.warmup);
    let end = warmup.saturating_add(nanos(limits.duration));
    let most = limits.count.unwrap_or(u64::MAX);
    let mut warming = warmup > 0;
    while !stop.load(Ordering::Relaxed) {
        let now = monotonic_ns();
        let elapsed = session.elapsed_ns(now);
        if warming && elapsed >= warmup {
            session.measure_from_here(now);
            warming = false;
        }
        let counts = session.counts();
        live.publish(&counts);
        let left = if warming { u64::MAX } else { most.saturating_sub(counts.sent) };
        if elapsed >= end || left == 0 {
            break;
        }
        let due = (session.due(now) as u64).min(left) as usize;
        if due > 0 {
            link.send(session, due)?;
        }
        link.recv(session)?;
    }
    let asked_until = monotonic_ns().saturating_add(nanos(limits.linger));
    // The whole time, even when all is answered: second answers may be behind the first.
    while monotonic_ns() < asked_until {
        link.recv(session)?;
    }
    live.publish(&session.counts());
    Ok(())
}
