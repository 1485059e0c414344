//! When each packet is to leave, fixed before the first one does.
//!
//! ```text
//!   intended:  0────1────2────3────4────5────6────7      start + n / rate
//!   a stall:   0────1───────────────█2█3█4█5─6────7      caught up, at most at twice the rate
//! ```
//!
//! The schedule never bends to the answers (open loop): a packet that leaves late keeps its intended time,
//! and latency is counted from there, so a stall of either side is not hidden by the packets that were not
//! sent during it ("coordinated omission"). It asks no clock: time is an argument.

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many packets per second, each with its own intended time.
    Fixed(f64),
    /// As fast as rings and sockets take them. A packet's intended time is then when it left.
    Max,
}

/// The schedule of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    /// Nanoseconds between packets; 0 when flat out.
    interval_ns: f64,
    /// Most packets that leave back to back.
    burst: u64,
    /// When the packets sent so far would have left at twice the rate.
    paced_ns: f64,
}

/// How much faster than the rate a late schedule is caught up. Higher returns sooner and floods the other
/// end's rings (loss of our own making); at 1 a schedule once late would stay late for ever.
const CATCH_UP: f64 = 2.0;

impl Schedule {
    /// A schedule whose packet 0 is due at `start_ns`; at most `burst` packets leave back to back.
    pub fn new(rate: Rate, burst: usize, start_ns: u64) -> Schedule {
        let interval_ns = match rate {
            Rate::Fixed(pps) => 1e9 / pps.max(f64::MIN_POSITIVE),
            Rate::Max => 0.0,
        };
        Schedule { start_ns, interval_ns, burst: burst.max(1) as u64, paced_ns: 0.0 }
    }

    /// When packet `n` of the run (from 0) is to leave; `None` when flat out.
    #[inline(always)]
    pub fn intended_ns(&self, n: u64) -> Option<u64> {
        (self.interval_ns > 0.0).then(|| self.start_ns + (n as f64 * self.interval_ns) as u64)
    }

    /// How many packets may leave at `now_ns`, when `sent` have left already: at most the burst.
    #[inline]
    pub fn due(&self, sent: u64, now_ns: u64) -> usize {
        if self.interval_ns == 0.0 {
            return self.burst as usize;
        }
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let due = (elapsed as f64 / self.interval_ns) as u64 + 1;
        // The pace: a bucket of `burst` packets that fills at CATCH_UP times the rate.
        let step = self.interval_ns / CATCH_UP;
        let backlog = ((self.paced_ns - elapsed as f64) / step).ceil().max(0.0) as u64;
        due.saturating_sub(sent).min(self.burst.saturating_sub(backlog)) as usize
    }

    /// Notes that `count` packets left at `now_ns`.
    #[inline]
    pub fn sent(&mut self, count: usize, now_ns: u64) {
        let elapsed = now_ns.saturating_sub(self.start_ns) as f64;
        self.paced_ns = self.paced_ns.max(elapsed) + count as f64 * self.interval_ns / CATCH_UP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intended_times_are_evenly_spaced() {
        let schedule = Schedule::new(Rate::Fixed(1_000_000.0), 64, 500);
        assert_eq!(schedule.intended_ns(0), Some(500));
        assert_eq!(schedule.intended_ns(3), Some(3_500));
        assert_eq!(schedule.intended_ns(1_000_000), Some(1_000_000_500));
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        assert_eq!(Schedule::new(Rate::Fixed(1e6), 64, 500).due(0, 499), 0);
    }

    #[test]
    fn flat_out_is_a_burst_every_time() {
        let mut schedule = Schedule::new(Rate::Max, 32, 0);
        for now in 0..10 {
            assert_eq!(schedule.due(now * 32, now), 32);
            schedule.sent(32, now);
        }
        assert_eq!(schedule.intended_ns(7), None);
    }

    #[test]
    fn a_stall_is_caught_up_in_bounded_bursts_at_twice_the_rate() {
        let mut schedule = Schedule::new(Rate::Fixed(1e6), 16, 0);
        // 10 ms late at 1 packet/µs: 10,000 packets are due at once, but only a burst may leave.
        let (mut sent, mut now) = (0, 10_000_000);
        assert_eq!(schedule.due(sent, now), 16);
        let mut steps = 0;
        loop {
            let due = schedule.due(sent, now);
            assert!(due <= 16);
            schedule.sent(due, now);
            sent += due as u64;
            if sent == now / 1_000 + 1 {
                break;
            }
            now += 1_000;
            steps += 1;
        }
        // Caught up after about as long again as the stall was: net gain of one packet per µs.
        assert!((9_900..=10_100).contains(&steps), "{steps} µs");
    }

    proptest! {
        #[test]
        fn polled_often_enough_every_packet_leaves_on_time(
            pps in 1_000u32..10_000_000, burst in 1usize..64
        ) {
            let interval = 1e9 / f64::from(pps);
            let mut schedule = Schedule::new(Rate::Fixed(f64::from(pps)), burst, 77);
            let mut sent = 0u64;
            for step in 0..500u64 {
                let now = 77 + (step as f64 * interval / 2.0) as u64;
                let due = schedule.due(sent, now);
                for n in sent..sent + due as u64 {
                    let intended = schedule.intended_ns(n).unwrap();
                    prop_assert!(intended <= now && (now - intended) as f64 <= interval + 1.0);
                }
                schedule.sent(due, now);
                sent += due as u64;
            }
            prop_assert!(sent >= 249);
        }
    }
}
