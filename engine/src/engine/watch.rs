//! Watching the queues for a stall: gathers what [`super::stall`] decides on, a few times a second, on the engine's control thread.
//!
//! ```text
//!   workers' boards ─┐
//!   rtnetlink        ├──► a Sight of each queue ──► Detector ──► the first that has stalled
//!   driver's counters│
//!   program's counters ┘     (and the socket map, when a queue is suspected to have lost its socket)
//! ```
//!
//! Workers are not asked and do nothing for it but publish their counters, which they do anyway.

use super::control::Chair;
use super::front::Front;
use super::ladder::Rung;
use super::stall::{Detector, Sight, Stall};
use crate::host::arrivals::Arrivals;
use crate::port::PortStats;
use crate::time::Now;
use std::time::Duration;

/// Between two looks. Each costs some system calls, a few hundred µs with a NIC of many counters; a stall is a second long.
pub const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Watches every queue of an engine. Made anew when ports or program have changed: counters begin anew then, too.
pub struct Watch {
    arrivals: Arrivals,
    queues: Vec<Watched>,
    base: Option<Base>,
}

/// One queue.
struct Watched {
    worker: usize,
    /// Its place among the worker's queues.
    at: usize,
    queue: u16,
    detector: Detector,
    last: Sight,
    turns: u64,
}

/// What the sums are counted from.
#[derive(Clone, Copy)]
struct Base {
    redirected: u64,
    taken: u64,
    /// Redirected by the look before: workers publish a little later than the program counts, so that what they have taken by
    /// now is held against what was redirected then, and no packet under way counts as missed.
    before: u64,
}

impl Watch {
    /// Watches the queues of `chairs` on interface `name`, number `index`.
    ///
    /// # Errors
    /// When there is no socket to ask the kernel with.
    pub fn new(name: &str, index: u32, chairs: &[Chair]) -> std::io::Result<Watch> {
        let queues = chairs.iter().enumerate().flat_map(|(worker, chair)| {
            let watched = move |(at, queue): (usize, &u16)| Watched {
                worker,
                at,
                queue: *queue,
                detector: Detector::default(),
                last: Sight::default(),
                turns: 0,
            };
            chair.share.queues.iter().enumerate().map(watched)
        });
        Ok(Watch { arrivals: Arrivals::of(name, index)?, queues: queues.collect(), base: None })
    }

    /// Looks at every queue; the first that has stalled, and how.
    pub fn look(&mut self, now: Now, rung: Rung, front: &Front, chairs: &[Chair]) -> Option<(u16, Stall)> {
        let (redirected, unbound) = front.steered()?;
        let taken = chairs.iter().filter_map(Chair::first_port).map(|port| taken(&port, rung)).sum();
        let arrived = self.arrivals.look().ok()?;
        let base = self.base.get_or_insert(Base { redirected, taken, before: redirected });
        let missed = (base.before - base.redirected).saturating_sub(taken.saturating_sub(base.taken));
        base.before = redirected;
        for watched in &mut self.queues {
            let chair = &chairs[watched.worker];
            let Some(counters) = chair.queue_counters(watched.at) else { continue };
            let turns = chair.turns();
            let mut sight = Sight {
                carrier: arrived.carrier,
                turning: turns != watched.turns,
                submitted: counters.tx_frames,
                completed: counters.tx_completed,
                wakeups: counters.tx_wakeups,
                received: counters.rx_frames,
                // Behind the driver it no longer says which queue was whose.
                nic: match rung {
                    Rung::Generic => arrived.interface,
                    _ => arrived.on(u32::from(watched.queue)),
                },
                missed,
                unbound,
                bound: true,
            };
            let suspect = sight.received == watched.last.received
                && sight.nic > watched.last.nic
                && sight.unbound > watched.last.unbound
                && watched.last != Sight::default();
            sight.bound = !suspect || front.has_socket(watched.queue);
            (watched.last, watched.turns) = (sight, turns);
            match watched.detector.look(now, &sight) {
                // What others' sockets have received is not known here.
                Some(Stall::Receive(_)) if sight.bound && front.is_shared() => {}
                Some(stall) => return Some((watched.queue, stall)),
                None => {}
            }
        }
        None
    }
}

/// Packets of a port that were redirected to it, as far as it and the kernel account for them.
fn taken(port: &PortStats, rung: Rung) -> u64 {
    let PortStats { rx_frames, rx_ring_full, rx_dropped, chains_dropped, fill_ring_empty, .. } = *port;
    // In zero-copy mode a missing frame keeps the packet out of the NIC's ring: it was never redirected.
    let unposted = if rung == Rung::ZeroCopy { 0 } else { fill_ring_empty };
    rx_frames + rx_ring_full + rx_dropped + chains_dropped + unposted
}
