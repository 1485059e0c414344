//! Which packets came back, once, whole and in order.
//!
//! ```text
//!             next − window                        next
//!   stale ◄──────┤  sent time and "answered" bit     ├──────► not sent yet: corrupt
//!                └───────── one u64 a packet ────────┘
//!   before the first that counts (warm-up, earlier runs): not counted
//!   per flow: the highest sequence answered so far (an answer below it is reordered)
//! ```
//!
//! Memory is fixed when the tracker is made. It never allocates afterwards and asks no clock.

use super::payload::Header;
use super::plan::Plan;
use serde::Serialize;

/// What became of the packets of a run.
///
/// `sent = received + lost`. Every answer is one of received, duplicated, corrupted or stale, unless its
/// packet was sent before the measurement began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets sent.
    pub sent: u64,
    /// Packets whose answer came back whole (its first copy).
    pub received: u64,
    /// Packets without a whole answer: `sent - received`.
    pub lost: u64,
    /// Whole answers to packets that had been answered already.
    pub duplicated: u64,
    /// Of the received: those that came after the answer to a later packet of their flow.
    pub reordered: u64,
    /// Answers that differ from what was sent in at least one byte, in length, or came to another flow's
    /// port.
    pub corrupted: u64,
    /// Answers to packets too old to remember; they are among the lost.
    pub stale: u64,
}

/// What one answer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first whole answer to packet `sequence`, which left at `sent_ns`.
    Received {
        /// The packet's number.
        sequence: u64,
        /// When it was sent, monotonic ns.
        sent_ns: u64,
    },
    /// A further answer to a packet.
    Duplicated,
    /// Not what was sent.
    Corrupted,
    /// Older than the window.
    Stale,
    /// To a packet of the warm-up, or of an earlier run: not counted.
    Unmeasured,
}

/// Follows the packets of one run.
pub struct Tracker {
    plan: Plan,
    /// Per packet of the window: sent time in ns, shifted left by one, and whether it was answered.
    slots: Box<[u64]>,
    mask: u64,
    /// The next sequence to be sent.
    next: u64,
    /// The first sequence that counts; what is before it was warm-up.
    first: u64,
    /// Per flow: one more than the highest sequence answered, 0 at first.
    highest: Box<[u64]>,
    counts: Counts,
}

impl Tracker {
    /// A tracker for packets numbered from `first` that remembers the last `window` (rounded up to a power
    /// of two).
    pub fn new(plan: Plan, window: usize, first: u64) -> Tracker {
        let window = window.max(1).next_power_of_two();
        Tracker {
            slots: vec![0; window].into(),
            mask: window as u64 - 1,
            next: first,
            first,
            highest: vec![0; plan.flows()].into(),
            counts: Counts::default(),
            plan,
        }
    }

    /// The number of the next packet.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Notes that the next packet left at `sent_ns`.
    #[inline(always)]
    pub fn sent(&mut self, sent_ns: u64) {
        self.slots[(self.next & self.mask) as usize] = sent_ns << 1;
        self.next += 1;
        self.counts.sent += 1;
    }

    /// Forgets what was counted so far: from here on it is measured.
    pub fn measure_from_here(&mut self) {
        self.first = self.next;
        self.counts = Counts::default();
    }

    /// Judges an answer that came to the port of `flow`.
    #[inline]
    pub fn answer(&mut self, flow: u16, payload: &[u8]) -> Answer {
        let answer = self.judge(flow, payload);
        match answer {
            Answer::Received { .. } => self.counts.received += 1,
            Answer::Duplicated => self.counts.duplicated += 1,
            Answer::Corrupted => self.counts.corrupted += 1,
            Answer::Stale => self.counts.stale += 1,
            Answer::Unmeasured => {}
        }
        answer
    }

    /// Counts an answer that was no datagram of any flow.
    #[inline]
    pub fn corrupted(&mut self) {
        self.counts.corrupted += 1;
    }

    #[inline(always)]
    fn judge(&mut self, flow: u16, payload: &[u8]) -> Answer {
        let Some(header) = Header::decode(payload) else { return Answer::Corrupted };
        let Header { sequence, time_ns, .. } = header;
        if sequence >= self.next
            || header.flow != flow
            || self.plan.flow(sequence) != flow
            || self.plan.payload_len(sequence) != payload.len()
            || !header.pattern_holds(payload)
        {
            return Answer::Corrupted;
        }
        if sequence < self.first {
            return Answer::Unmeasured;
        }
        if self.next - sequence > self.mask + 1 {
            return Answer::Stale;
        }
        let slot = &mut self.slots[(sequence & self.mask) as usize];
        // The slot has no room for the time's top bit, which is set after 292 years of uptime.
        if *slot >> 1 != time_ns {
            return Answer::Corrupted;
        }
        if *slot & 1 != 0 {
            return Answer::Duplicated;
        }
        *slot |= 1;
        let highest = &mut self.highest[flow as usize];
        if sequence < *highest {
            self.counts.reordered += 1;
        } else {
            *highest = sequence + 1;
        }
        Answer::Received { sequence, sent_ns: time_ns }
    }

    /// The counts so far; what is still under way is among the lost.
    pub fn counts(&self) -> Counts {
        Counts { lost: self.counts.sent - self.counts.received, ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> Plan {
        Plan::new(4, 1, 18..=80)
    }

    /// The payload of packet `n`, sent at `1000 + n`.
    fn packet(n: u64) -> Vec<u8> {
        let mut payload = vec![0; plan().payload_len(n)];
        Header { flow: plan().flow(n), sequence: n, time_ns: 1000 + n }.encode(&mut payload);
        payload
    }

    fn tracker(window: usize, sent: u64) -> Tracker {
        let mut tracker = Tracker::new(plan(), window, 0);
        (0..sent).for_each(|n| tracker.sent(1000 + n));
        tracker
    }

    fn answer(tracker: &mut Tracker, n: u64) -> Answer {
        tracker.answer(plan().flow(n), &packet(n))
    }

    #[test]
    fn an_answer_is_received_once() {
        let mut tracker = tracker(64, 8);
        assert_eq!(answer(&mut tracker, 5), Answer::Received { sequence: 5, sent_ns: 1005 });
        assert_eq!(answer(&mut tracker, 5), Answer::Duplicated);
        let counts = tracker.counts();
        assert_eq!((counts.sent, counts.received, counts.lost, counts.duplicated), (8, 1, 7, 1));
    }

    #[test]
    fn order_counts_within_a_flow_only() {
        let mut tracker = tracker(64, 12);
        for n in [3, 2, 1, 0] {
            answer(&mut tracker, n); // four flows: no order between them
        }
        assert_eq!(tracker.counts().reordered, 0);
        answer(&mut tracker, 8);
        answer(&mut tracker, 4); // after 8 of the same flow
        assert_eq!(tracker.counts().reordered, 1);
    }

    #[test]
    fn unsent_misdelivered_and_cut_answers_are_corrupt() {
        let mut tracker = tracker(64, 8);
        assert_eq!(answer(&mut tracker, 8), Answer::Corrupted);
        assert_eq!(tracker.answer(2, &packet(1)), Answer::Corrupted);
        let whole = packet(1);
        assert_eq!(tracker.answer(1, &whole[..whole.len() - 1]), Answer::Corrupted);
        assert_eq!(tracker.counts().corrupted, 3);
    }

    #[test]
    fn what_left_the_window_is_stale_not_wrong() {
        let mut tracker = tracker(8, 9);
        assert_eq!(answer(&mut tracker, 0), Answer::Stale);
        assert!(matches!(answer(&mut tracker, 1), Answer::Received { .. }));
    }

    #[test]
    fn warm_up_does_not_count() {
        let mut tracker = tracker(64, 4);
        answer(&mut tracker, 0);
        tracker.measure_from_here();
        tracker.sent(1004);
        assert_eq!(answer(&mut tracker, 1), Answer::Unmeasured);
        answer(&mut tracker, 4);
        let counts = tracker.counts();
        assert_eq!((counts.sent, counts.received, counts.lost, counts.stale), (1, 1, 0, 0));
    }

    proptest! {
        /// Whatever a network does to the answers, the counts are exactly what it did.
        #[test]
        fn counts_are_what_was_injected(fates in prop::collection::vec(0u8..5, 1..200), flip in 1u8..) {
            let mut tracker = tracker(256, fates.len() as u64);
            let mut expected = Counts { sent: fates.len() as u64, ..Counts::default() };
            for (n, fate) in fates.iter().enumerate() {
                let n = n as u64;
                match fate {
                    0 => expected.lost += 1,
                    1 => {
                        answer(&mut tracker, n);
                        answer(&mut tracker, n);
                        expected.received += 1;
                        expected.duplicated += 1;
                    }
                    2 => {
                        let mut broken = packet(n);
                        let at = (n as usize * 7) % broken.len();
                        broken[at] ^= flip;
                        tracker.answer(plan().flow(n), &broken);
                        expected.corrupted += 1;
                        expected.lost += 1;
                    }
                    _ => {
                        answer(&mut tracker, n);
                        expected.received += 1;
                    }
                }
            }
            prop_assert_eq!(tracker.counts(), expected);
        }
    }
}
