//! The loop: open, warm up, measure, finish.

use super::bulk::Bulk;
use super::carrier::Carrier;
use super::connect::Connect;
use super::echo::Echo;
use super::report::Outcome;
use super::tally::Tally;
use super::{Client, Exchange, Load};
use crate::worker::clock::Clock;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long all connections may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// How long peers may go on asking for the last acknowledgments of connections that have ended.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);

/// Events of one turn: so many that a burst's fit, and so few that what arrives meanwhile is not kept waiting.
const EVENTS_PER_TURN: usize = 1024;

/// Runs `load` over `carrier` until its limits are reached or `stop` is set. The calling thread spins meanwhile; nothing is
/// allocated between the opening and the end.
///
/// # Errors
/// When the carrier fails, or no connection opens.
pub fn run(load: &Load, carrier: &mut dyn Carrier, stop: &AtomicBool) -> io::Result<Outcome> {
    let mut client: Box<dyn Client> = match load.exchange {
        Exchange::Echo => Box::new(Echo::new(load)),
        Exchange::Connect => Box::new(Connect::new(load)),
        Exchange::Send | Exchange::Receive => Box::new(Bulk::new(load)),
    };
    let mut run = Run { clock: Clock::new(), tally: Tally::default(), now_ns: 0 };
    let stopped = || stop.load(Ordering::Relaxed);

    let begun = run.turn(client.as_mut(), carrier)?;
    while !client.is_open() && run.now_ns - begun < nanos(OPEN_WITHIN) && !stopped() {
        run.turn(client.as_mut(), carrier)?;
    }
    run.tally.measure_from_here();
    client.begin(carrier.streams(), &mut run.tally);
    carrier.flush();
    let warm = run.now_ns + nanos(load.warmup);
    while run.now_ns < warm && !client.is_done() && !stopped() {
        run.turn(client.as_mut(), carrier)?;
    }
    if load.warmup > Duration::ZERO {
        run.tally.measure_from_here();
    }
    let (before, from) = (carrier.stats(), run.now_ns);
    let until = from.saturating_add(nanos(load.duration));
    while run.now_ns < until && !client.is_done() && !stopped() {
        run.turn(client.as_mut(), carrier)?;
    }
    let (counts, latency, duration_ns) = (run.tally.counts, run.tally.summary(), run.now_ns - from);

    client.finish(carrier.streams());
    carrier.flush();
    let asked_until = run.now_ns.saturating_add(nanos(load.linger));
    while run.now_ns < asked_until && !client.is_done() {
        run.turn(client.as_mut(), carrier)?;
    }
    let forgotten_by = run.now_ns.saturating_add(nanos(FORGOTTEN_WITHIN));
    while run.now_ns < forgotten_by && !carrier.is_forgotten() {
        run.turn(client.as_mut(), carrier)?;
    }
    let unanswered = client.unanswered();
    let late = run.tally.counts;
    carrier.streams().close_port();
    carrier.flush();
    Ok(Outcome::new(counts, late, unanswered, latency, duration_ns, (before, carrier.stats())))
}

struct Run {
    clock: Clock,
    tally: Tally,
    now_ns: u64,
}

impl Run {
    /// One turn; returns when it began.
    fn turn(&mut self, client: &mut dyn Client, carrier: &mut dyn Carrier) -> io::Result<u64> {
        let now = self.clock.now();
        self.now_ns = now.ns;
        carrier.receive(now)?;
        let streams = carrier.streams();
        streams.poll(now);
        for _ in 0..EVENTS_PER_TURN {
            let Some((id, event)) = streams.next_event() else { break };
            client.event(streams, id, event, &mut self.tally);
        }
        client.turn(streams, &mut self.tally);
        carrier.flush();
        Ok(now.ns)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
