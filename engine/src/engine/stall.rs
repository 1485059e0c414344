//! When a queue has stalled: counters, carrier and time in, a decision out. It asks nobody and keeps no clock.
//!
//! ```text
//!   transmit   carrier, frames submitted ─── no completion for a second, two wake-ups in it ──────────► stalled
//!   receive    carrier, the NIC's counter for the queue rises, packets steered to our sockets
//!              reach none ─── the queue's rx ring empty for a second ─────────────────────────────────► stalled
//! ```
//!
//! An idle NIC is not stalled, whatever stands still; nor is one without carrier; nor one that only receives what is not
//! ours; nor one whose worker is held up.

use crate::time::Now;
use std::fmt;

/// How long nothing may move. A device that is reset or retrained is back, or without carrier, within less.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Wake-ups that must have gone unheard: one may meet a device that is just going to sleep.
const WAKEUPS: u64 = 2;

/// Packets the NIC received, and packets steered past us, before an empty ring counts. Fewer could be one stray train.
const PACKETS: u64 = 4;

/// After so long the packets are counted anew, so that one stray packet an hour does not add up to a stall in a day.
const WINDOW_NS: u64 = 10 * PATIENCE_NS;

/// What is seen of one queue at one moment. Counters grow from any beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The link has a carrier.
    pub carrier: bool,
    /// The worker has made turns since the last look: one that hangs in its app leaves its rings as they are.
    pub turning: bool,
    /// Frames handed to the kernel for transmit.
    pub submitted: u64,
    /// Frames whose buffer came back.
    pub completed: u64,
    /// Times the kernel was asked to transmit.
    pub wakeups: u64,
    /// Frames taken from the queue's rx ring.
    pub received: u64,
    /// Packets the NIC says it received on the queue.
    pub nic: u64,
    /// Packets redirected to sockets of ours (of any queue) that no socket of ours has received or counted as dropped.
    pub missed: u64,
    /// Packets of ours that found no socket behind their queue (any queue).
    pub unbound: u64,
    /// The queue's socket is in the program's map; packets that found none were other queues'.
    pub bound: bool,
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// This many frames are submitted and none comes back.
    Transmit(u64),
    /// This many packets were steered our way and none arrives.
    Receive(u64),
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Transmit(frames) => {
                write!(
                    f,
                    "{frames} frames are submitted and none was completed for a second, in spite of wake-ups"
                )
            }
            Stall::Receive(packets) => {
                write!(
                    f,
                    "the NIC receives and {packets} packets were steered, but its rx ring stays empty"
                )
            }
        }
    }
}

/// Watches one queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detector {
    /// Since when, and from which counters, transmit and receive have not moved.
    transmit: Option<(u64, Sight)>,
    receive: Option<(u64, Sight)>,
}

impl Detector {
    /// Takes a look; says whether the queue has stalled. To be called a few times a second.
    pub fn look(&mut self, now: Now, sight: &Sight) -> Option<Stall> {
        if !sight.carrier || !sight.turning {
            *self = Detector::default();
            return None;
        }
        self.transmit(now, sight).or_else(|| self.receive(now, sight))
    }

    fn transmit(&mut self, now: Now, sight: &Sight) -> Option<Stall> {
        let waiting = sight.submitted.saturating_sub(sight.completed);
        match self.transmit {
            _ if waiting == 0 => self.transmit = None,
            Some((since, seen)) if seen.completed == sight.completed => {
                let unheard = sight.wakeups.saturating_sub(seen.wakeups) >= WAKEUPS;
                return (unheard && now.ns.saturating_sub(since) >= PATIENCE_NS)
                    .then_some(Stall::Transmit(waiting));
            }
            _ => self.transmit = Some((now.ns, *sight)),
        }
        None
    }

    fn receive(&mut self, now: Now, sight: &Sight) -> Option<Stall> {
        match self.receive {
            Some((since, seen))
                if seen.received == sight.received && now.ns.saturating_sub(since) < WINDOW_NS =>
            {
                let unbound = if sight.bound { 0 } else { sight.unbound.saturating_sub(seen.unbound) };
                let lost = sight.missed.saturating_sub(seen.missed) + unbound;
                let arrived = sight.nic.saturating_sub(seen.nic);
                let long = now.ns.saturating_sub(since) >= PATIENCE_NS;
                (long && arrived >= PACKETS && lost >= PACKETS).then_some(Stall::Receive(lost))
            }
            _ => {
                self.receive = Some((now.ns, *sight));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, Ctx, WorkerId};
    use crate::datagram::{Datagram, DatagramPort, SendError};
    use crate::engine::parked::Parked;
    use crate::net::packet::Packet;
    use crate::net::{Net, NetConfig, Path};
    use crate::port::{MemoryConfig, MemoryPort, MemoryWire, Port, QueueCounters};
    use crate::worker::{Board, Helpers, Mailboxes, Waker, Worker, WorkerConfig};
    use std::sync::Arc;

    const GOOD: Sight = Sight {
        carrier: true,
        turning: true,
        submitted: 0,
        completed: 0,
        wakeups: 0,
        received: 0,
        nic: 0,
        missed: 0,
        unbound: 0,
        bound: true,
    };

    /// Looks every quarter of a second at what `step` says of the n-th look; the number of the look that found a stall.
    fn looks(count: u64, step: impl Fn(u64) -> Sight) -> Option<(u64, Stall)> {
        let mut detector = Detector::default();
        (0..count).find_map(|n| {
            let now = Now { ns: 77 + n * 250_000_000, unix_secs: 0 };
            Some((n, detector.look(now, &step(n))?))
        })
    }

    #[test]
    fn what_stands_still_is_a_stall_after_a_second() {
        type Case = (&'static str, fn(u64) -> Sight, Option<(u64, Stall)>);
        let cases: [Case; 20] = [
            ("idle", |_| GOOD, None),
            ("idle, woken", |n| Sight { wakeups: n, ..GOOD }, None),
            (
                "frames out, none back",
                |n| Sight { submitted: 3, wakeups: n, ..GOOD },
                Some((4, Stall::Transmit(3))),
            ),
            (
                "more and more out, none back",
                |n| Sight { submitted: 1 + n, wakeups: n, ..GOOD },
                Some((4, Stall::Transmit(5))),
            ),
            ("nobody woke the kernel", |_| Sight { submitted: 3, ..GOOD }, None),
            ("woken once", |n| Sight { submitted: 3, wakeups: n.min(1), ..GOOD }, None),
            (
                "woken late",
                |n| Sight { submitted: 3, wakeups: n.saturating_sub(20), ..GOOD },
                Some((22, Stall::Transmit(3))),
            ),
            (
                "slow, but it completes",
                |n| Sight { submitted: 9 + n, completed: n / 3, wakeups: n, ..GOOD },
                None,
            ),
            ("all came back", |n| Sight { submitted: 9, completed: 9, wakeups: n, ..GOOD }, None),
            ("no carrier", |n| Sight { carrier: false, submitted: 3, wakeups: n, ..GOOD }, None),
            (
                "the carrier comes and goes",
                |n| Sight { carrier: n % 3 != 0, submitted: 3, wakeups: n, ..GOOD },
                None,
            ),
            (
                "carrier back, still nothing",
                |n| Sight { carrier: n >= 10, submitted: 3, wakeups: n, ..GOOD },
                Some((14, Stall::Transmit(3))),
            ),
            (
                "the NIC receives, we are steered, the ring is empty",
                |n| Sight { nic: 10 * n, missed: 9 * n, ..GOOD },
                Some((4, Stall::Receive(36))),
            ),
            ("the app hangs", |n| Sight { turning: n % 8 == 7, nic: 10 * n, missed: 9 * n, ..GOOD }, None),
            ("what the NIC receives is not ours", |n| Sight { nic: 10 * n, ..GOOD }, None),
            ("what is steered is another queue's", |n| Sight { missed: 10 * n, ..GOOD }, None),
            ("it receives", |n| Sight { nic: 10 * n, missed: 9 * n, received: n / 2, ..GOOD }, None),
            (
                "other queues have no socket, ours has one",
                |n| Sight { nic: 10 * n, unbound: 9 * n, ..GOOD },
                None,
            ),
            (
                "ours has lost its socket",
                |n| Sight { nic: 10 * n, unbound: 9 * n, bound: n < 8, ..GOOD },
                Some((8, Stall::Receive(72))),
            ),
            ("one stray packet in ten seconds", |n| Sight { nic: n, missed: n / 40, ..GOOD }, None),
        ];
        for (what, step, expected) in cases {
            assert_eq!(looks(500, step), expected, "{what}");
        }
    }

    #[test]
    fn a_look_that_comes_late_is_as_good() {
        let mut detector = Detector::default();
        let sight = |wakeups| Sight { submitted: 1, wakeups, ..GOOD };
        assert_eq!(detector.look(Now { ns: 0, unix_secs: 0 }, &sight(0)), None);
        let late = Now { ns: 60_000_000_000, unix_secs: 0 };
        assert_eq!(detector.look(late, &sight(2)), Some(Stall::Transmit(1)));
        // A clock that stands or runs back decides nothing.
        assert_eq!(detector.look(Now { ns: 0, unix_secs: 0 }, &sight(9)), None);
    }

    /// An app that remembers who came first and sends to them whenever somebody comes.
    #[derive(Default)]
    struct Greeter {
        first: Option<Path>,
        refused: u32,
    }

    impl App for Greeter {
        type Msg = ();
        fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, ()>) {
            let first = *self.first.get_or_insert(datagram.path());
            self.refused += u32::from(ctx.send(&first, b"hello again") == Err(SendError::Full));
            datagram.reply(datagram.payload().len());
        }
    }

    /// A memory port under a net layer, its device's end, and the bytes of a packet for it.
    fn port() -> (Box<dyn DatagramPort>, MemoryWire, Vec<u8>) {
        let (port, wire) = MemoryPort::new(&MemoryConfig::default());
        let (from, to) = ("10.0.0.2:40000".parse().unwrap(), "10.0.0.1:7777".parse().unwrap());
        let net = Net::new(Box::new(port) as Box<dyn Port>, NetConfig::default());
        (Box::new(net), wire, Packet::new(from, to, b"hello").build())
    }

    #[test]
    fn a_device_that_hangs_is_found_and_its_port_exchanged_under_the_app() {
        let (first, mut wire, packet) = port();
        let waker = Arc::new(Waker::new(|| ()));
        let mailboxes = Mailboxes::mesh(std::slice::from_ref(&waker), 8).remove(0);
        let config = WorkerConfig::new(WorkerId(0));
        let helpers = Helpers::new(1, waker);
        let mut worker = Worker::new(&config, Greeter::default(), vec![first], mailboxes, helpers);
        let board = Board::new(1, 1);
        let mut detector = Detector::default();
        let mut ns = 0;
        // A turn every 10 ms, a look every 100.
        let mut second = |worker: &mut Worker<Greeter>, each: &mut dyn FnMut(u64)| {
            for _ in 0..100 {
                ns += 10_000_000;
                each(ns);
                worker.turn(Now { ns, unix_secs: 0 });
                worker.publish(&board);
                let QueueCounters { rx_frames, tx_frames, tx_completed, tx_wakeups } =
                    board.queues[0].get();
                let sight = Sight {
                    submitted: tx_frames,
                    completed: tx_completed,
                    wakeups: tx_wakeups,
                    received: rx_frames,
                    ..GOOD
                };
                if ns % 100_000_000 == 0
                    && let Some(stall) = detector.look(Now { ns, unix_secs: 0 }, &sight)
                {
                    return Some((ns, stall));
                }
            }
            None
        };
        worker.start(Now::default());
        for _ in 0..3 {
            let healthy = second(&mut worker, &mut |_| {
                wire.inject(0, &packet).unwrap();
                wire.collect(|_| ());
            });
            assert_eq!(healthy, None);
        }
        assert_eq!(second(&mut worker, &mut |_| _ = wire.collect(|_| ())), None, "idle");
        wire.hold_completions(true);
        wire.inject(0, &packet).unwrap();
        let mut hangs = |_| _ = wire.collect(|_| ());
        assert_eq!(second(&mut worker, &mut hangs), None, "not yet a second");
        let (at, stall) = second(&mut worker, &mut hangs).expect("a second and more");
        assert_eq!((at, stall), (5_100_000_000, Stall::Transmit(2)));

        // While it is exchanged there is nothing to send over, and nothing is lost but what was under way.
        let mut old = worker.exchange().put(0, Box::new(Parked)).unwrap();
        let ledger = old.close();
        assert!(ledger.balances() && ledger.abandoned == 2 && ledger.app + ledger.held == 0, "{ledger}");
        worker.turn(Now { ns: at, unix_secs: 0 });
        let (next, mut wire, packet) = port();
        assert_eq!(worker.exchange().put(0, next).unwrap().name(), "parked");
        wire.inject(0, &packet).unwrap();
        worker.turn(Now { ns: at, unix_secs: 0 });
        assert_eq!(wire.collect_all().len(), 2, "an answer, and a greeting over a path of the old port");
        assert_eq!((worker.app().first.is_some(), worker.app().refused), (true, 0));
        let ledger = worker.close()[0].ledger;
        assert!(ledger.balances() && ledger.app == 0, "{ledger}");
        drop(old);
    }
}
