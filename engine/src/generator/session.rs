//! One measurement without its I/O: schedule, packets and answers, driven with bytes and time.

use super::latency::{Summary, Times};
use super::payload::Header;
use super::plan::Plan;
use super::schedule::{Rate, Schedule};
use super::tracker::{Answer, Counts, Tracker};

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Flows and sizes.
    pub plan: Plan,
    /// How fast.
    pub rate: Rate,
    /// Most packets back to back, at most [`crate::frame::BURST`].
    pub burst: usize,
    /// Number of the first packet. A later session over the same link goes on counting, so that what is
    /// still under way from an earlier one is told apart.
    pub first: u64,
}

/// Least packets remembered, and most: 8 bytes each. The answer to an older packet counts as lost; a
/// million packets are a second at 1 Mpps.
const WINDOW: std::ops::RangeInclusive<usize> = 1 << 12..=1 << 20;
/// A packet that left this late is not on time: the generator was held up, and what it then sends in one go is no schedule any more.
/// Receiving a burst of answers takes less; what a host takes from a core (another machine's turn) takes more.
const ON_TIME_NS: u64 = 20_000;
/// How long a packet is remembered when the rate is known, in seconds: far longer than an answer takes.
const REMEMBER_SECS: f64 = 2.0;

/// A running measurement.
pub struct Session {
    plan: Plan,
    schedule: Schedule,
    tracker: Tracker,
    first: u64,
    started_ns: u64,
    measured_from_ns: u64,
    last_sent_ns: u64,
    latency: Times,
    uncorrected: Times,
    on_time: Times,
    lateness: Times,
}

impl Session {
    /// A session whose first packet is due at `start_ns`.
    pub fn new(config: SessionConfig, start_ns: u64) -> Session {
        let SessionConfig { plan, rate, burst, first } = config;
        let window = match rate {
            Rate::Fixed(pps) => (pps * REMEMBER_SECS) as usize,
            Rate::Max => usize::MAX,
        };
        Session {
            schedule: Schedule::new(rate, burst.min(crate::frame::BURST), start_ns),
            tracker: Tracker::new(plan.clone(), window.clamp(*WINDOW.start(), *WINDOW.end()), first),
            plan,
            first,
            started_ns: start_ns,
            measured_from_ns: start_ns,
            last_sent_ns: start_ns,
            latency: Times::default(),
            uncorrected: Times::default(),
            on_time: Times::default(),
            lateness: Times::default(),
        }
    }

    /// Flows and sizes.
    #[inline(always)]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of the next packet.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.tracker.next()
    }

    /// How many packets are to leave at `now_ns`: 0 to the burst.
    #[inline]
    pub fn due(&self, now_ns: u64) -> usize {
        self.schedule.due(self.next() - self.first, now_ns)
    }

    /// Writes the payload of packet `n`, leaving at `now_ns`, over all of `payload`, which has the plan's
    /// length for it.
    #[inline]
    pub fn encode(&self, n: u64, now_ns: u64, payload: &mut [u8]) {
        Header { flow: self.plan.flow(n), sequence: n, time_ns: now_ns }.encode(payload);
    }

    /// Notes that the next `count` packets left at `now_ns`, the time they were encoded with.
    #[inline]
    pub fn sent(&mut self, count: usize, now_ns: u64) {
        for _ in 0..count {
            let intended = self.schedule.intended_ns(self.next() - self.first).unwrap_or(now_ns);
            self.lateness.record(now_ns.saturating_sub(intended));
            self.tracker.sent(now_ns);
        }
        if count > 0 {
            self.schedule.sent(count, now_ns);
            self.last_sent_ns = now_ns;
        }
    }

    /// Judges an answer that came at `now_ns` to the port of `flow`.
    #[inline]
    pub fn answer(&mut self, flow: u16, payload: &[u8], now_ns: u64) {
        if let Answer::Received { sequence, sent_ns } = self.tracker.answer(flow, payload) {
            let intended = self.schedule.intended_ns(sequence - self.first).unwrap_or(sent_ns);
            self.latency.record(now_ns.saturating_sub(intended));
            if sent_ns.saturating_sub(intended) <= ON_TIME_NS {
                self.on_time.record(now_ns.saturating_sub(intended));
            }
            self.uncorrected.record(now_ns.saturating_sub(sent_ns));
        }
    }

    /// Counts an answer that belongs to no flow, or whose headers are wrong.
    #[inline]
    pub fn corrupted(&mut self) {
        self.tracker.corrupted();
    }

    /// Ends the warm-up: what is counted starts again from nothing.
    pub fn measure_from_here(&mut self, now_ns: u64) {
        self.tracker.measure_from_here();
        self.measured_from_ns = now_ns;
        for times in [&mut self.latency, &mut self.uncorrected, &mut self.on_time, &mut self.lateness] {
            times.reset();
        }
    }

    /// Nanoseconds since the first packet was due.
    #[inline(always)]
    pub fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.started_ns)
    }

    /// The counts so far; what is still under way is among the lost.
    #[inline]
    pub fn counts(&self) -> Counts {
        self.tracker.counts()
    }

    /// What was measured.
    pub fn outcome(&self) -> Outcome {
        let counts = self.counts();
        let duration_ns = self.last_sent_ns.saturating_sub(self.measured_from_ns).max(1);
        let per_second = |packets: u64| packets as f64 * 1e9 / duration_ns as f64;
        Outcome {
            counts,
            duration_ns,
            sent_pps: per_second(counts.sent),
            received_pps: per_second(counts.received),
            latency: self.latency.summary(),
            latency_uncorrected: self.uncorrected.summary(),
            latency_on_time: self.on_time.summary(),
            lateness: self.lateness.summary(),
        }
    }
}

/// What a session measured.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// What became of the packets.
    #[serde(flatten)]
    pub counts: Counts,
    /// From the start of the measurement to the last packet sent, in ns.
    pub duration_ns: u64,
    /// Packets sent per second.
    pub sent_pps: f64,
    /// Whole answers per second.
    pub received_pps: f64,
    /// Round trip from the *intended* send time to the receipt: corrected for coordinated omission.
    pub latency: Summary,
    /// Round trip from the moment the packet really left.
    pub latency_uncorrected: Summary,
    /// Round trip from the intended send time, of the packets that left within 20 µs of it: what a generator that is held up itself
    /// does not spoil. An open loop does not wait for the server, so the server has no part in which packets these are.
    pub latency_on_time: Summary,
    /// How late the generator itself was: actual minus intended send time.
    pub lateness: Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(pps: f64) -> Session {
        let plan = Plan::new(2, 1, 18..=18);
        Session::new(SessionConfig { plan, rate: Rate::Fixed(pps), burst: 64, first: 1000 }, 0)
    }

    /// Sends what is due at `now` and returns the payloads.
    fn send(session: &mut Session, now: u64) -> Vec<Vec<u8>> {
        let first = session.next();
        let due = session.due(now);
        let packets = (first..first + due as u64)
            .map(|n| {
                let mut payload = vec![0; session.plan().payload_len(n)];
                session.encode(n, now, &mut payload);
                payload
            })
            .collect();
        session.sent(due, now);
        packets
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let mut session = session(1e7);
        // Stalled for 900 ns: ten packets leave at once, each later than it should have.
        let packets = send(&mut session, 900);
        assert_eq!(packets.len(), 10);
        for (n, packet) in packets.iter().enumerate() {
            session.answer((n % 2) as u16, packet, 1_000);
        }
        let outcome = session.outcome();
        assert_eq!((outcome.latency.min_ns, outcome.latency.max_ns), (100, 1_000));
        assert_eq!((outcome.latency_uncorrected.min_ns, outcome.latency_uncorrected.max_ns), (100, 100));
        assert_eq!((outcome.lateness.count, outcome.lateness.max_ns), (10, 900));
        assert_eq!(outcome.latency_on_time.count, 10);
        assert_eq!((outcome.counts.received, outcome.counts.lost), (10, 0));
    }

    #[test]
    fn what_the_generator_sent_late_is_told_apart() {
        let mut session = session(1e5);
        // Due at 0 to 90 µs: those of the last 20 µs are on time.
        let packets = send(&mut session, 90_000);
        assert_eq!(packets.len(), 10);
        for (n, packet) in packets.iter().enumerate() {
            session.answer((n % 2) as u16, packet, 95_000);
        }
        let outcome = session.outcome();
        assert_eq!((outcome.latency.count, outcome.latency_on_time.count), (10, 3));
        assert!((25_000..25_100).contains(&outcome.latency_on_time.max_ns), "{outcome:?}");
    }

    #[test]
    fn warm_up_leaves_no_trace() {
        let mut session = session(1e6);
        let warm = send(&mut session, 5_000);
        session.measure_from_here(5_000);
        session.answer(0, &warm[0], 6_000);
        assert_eq!(session.outcome().latency.count, 0);
        assert_eq!(session.outcome().counts.sent, 0);
        assert_eq!(send(&mut session, 6_000).len(), 1);
        assert_eq!(session.outcome().counts.sent, 1);
    }
}
