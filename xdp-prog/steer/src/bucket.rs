//! A token bucket in one word: the generic cell rate algorithm (ITU-T I.371).
//!
//! The word is the time at which the bucket will be full again. A packet that is let through moves it on by one interval; one that
//! would move it further ahead of now than the burst allows is not let through, and moves nothing.

use core::cell::Cell;

/// Whether one more is let through at `now_ns`, at one in `interval_ns` in the long run and `burst` at once (0 counts as 1).
#[inline(always)]
pub fn admit(word: &Cell<u64>, now_ns: u64, interval_ns: u32, burst: u32) -> bool {
    let full_at = if word.get() > now_ns { word.get() } else { now_ns };
    let ahead = u64::from(interval_ns) * u64::from(burst.saturating_sub(1));
    if full_at - now_ns > ahead {
        return false;
    }
    word.set(full_at + u64::from(interval_ns));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_nothing_is_saved_up_beyond_the_burst() {
        let word = Cell::new(0);
        let admitted = |now, tries: u32| (0..tries).filter(|_| admit(&word, now, 100, 4)).count();
        assert_eq!(admitted(1_000_000, 10), 4);
        assert_eq!(admitted(1_000_099, 10), 0);
        assert_eq!(admitted(1_000_100, 10), 1);
        assert_eq!(admitted(1_000_350, 10), 2);
        assert_eq!(admitted(9_000_000, 10), 4);
        let word = Cell::new(0);
        assert!(admit(&word, 5, 100, 0) && !admit(&word, 104, 100, 0) && admit(&word, 105, 100, 0));
    }
}
