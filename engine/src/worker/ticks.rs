//! Ticks: a steady beat on absolute deadlines.

/// A beat with a fixed period. The n-th tick is due at `start + n × period`, however late the ones before it were, so
/// lateness never adds up; ticks that could not be called in time are skipped and counted, never made up for in a rush.
#[derive(Debug)]
pub struct Ticks {
    period_ns: u64,
    next_ns: u64,
}

/// One tick that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// How long ago it should have been called, in ns: less than one period.
    pub late_ns: u64,
    /// Ticks before it that were not called at all.
    pub skipped: u64,
}

impl Ticks {
    /// Ticks every `period_ns` (at least 1), the first one a period after `start_ns`.
    pub fn new(start_ns: u64, period_ns: u64) -> Ticks {
        let period_ns = period_ns.max(1);
        Ticks { period_ns, next_ns: start_ns + period_ns }
    }

    /// The tick due at `now_ns`, if one is. At most one per call and period.
    #[inline]
    pub fn due(&mut self, now_ns: u64) -> Option<Due> {
        let late = now_ns.checked_sub(self.next_ns)?;
        let skipped = late / self.period_ns;
        self.next_ns += (skipped + 1) * self.period_ns;
        Some(Due { late_ns: late % self.period_ns, skipped })
    }

    /// When the next one is due.
    pub fn next_deadline(&self) -> u64 {
        self.next_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_does_not_add_up() {
        let mut ticks = Ticks::new(1_000, 100);
        assert_eq!(ticks.due(1_099), None);
        assert_eq!(ticks.due(1_130), Some(Due { late_ns: 30, skipped: 0 }));
        assert_eq!(ticks.due(1_199), None);
        assert_eq!(ticks.due(1_200), Some(Due { late_ns: 0, skipped: 0 }));
        assert_eq!(ticks.next_deadline(), 1_300);
    }

    #[test]
    fn missed_ticks_are_skipped_and_counted() {
        let mut ticks = Ticks::new(0, 100);
        assert_eq!(ticks.due(455), Some(Due { late_ns: 55, skipped: 3 }));
        assert_eq!(ticks.due(499), None);
        assert_eq!(ticks.due(500), Some(Due { late_ns: 0, skipped: 0 }));
    }

    #[test]
    fn a_period_of_zero_is_one_nanosecond() {
        let mut ticks = Ticks::new(10, 0);
        assert_eq!(ticks.due(11), Some(Due { late_ns: 0, skipped: 0 }));
    }
}
