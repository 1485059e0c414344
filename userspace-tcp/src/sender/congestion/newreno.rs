//! Slow start and congestion avoidance of RFC 5681, which NewReno (RFC 6582) uses.

/// Slow start: cwnd grows by min(N, SMSS) for each acknowledgment; acknowledgments that a burst merged count as the segments
/// they cover (RFC 3465, with no limit L, since stretched acknowledgments are what a burst makes).
pub(super) fn slow_start(cwnd: u32, acked: u32, _mss: u32) -> u32 {
    cwnd.saturating_add(acked)
}

/// Congestion avoidance: one segment for each window acknowledged (RFC 5681, section 3.1, equation 3 in bytes).
pub(super) fn avoidance(cwnd: u32, counted: &mut u32, acked: u32, mss: u32) -> u32 {
    *counted = counted.saturating_add(acked);
    if *counted < cwnd {
        return cwnd;
    }
    *counted -= cwnd;
    cwnd.saturating_add(mss)
}

/// ssthresh = max(FlightSize / 2, 2 * SMSS) (RFC 5681, equation 4).
pub(super) fn halve(flight: u32, mss: u32) -> u32 {
    (flight / 2).max(2 * mss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_then_adds_a_segment_a_round_trip() {
        let mut cwnd = 10_000;
        for _ in 0..10 {
            cwnd = slow_start(cwnd, 1_000, 1_000);
        }
        assert_eq!(cwnd, 20_000);
        let mut counted = 0;
        for _ in 0..20 {
            cwnd = avoidance(cwnd, &mut counted, 1_000, 1_000);
        }
        assert_eq!(cwnd, 21_000);
        assert_eq!((halve(21_000, 1_000), halve(3_000, 1_000)), (10_500, 2_000));
    }
}
