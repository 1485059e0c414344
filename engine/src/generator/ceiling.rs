//! The highest rate at which nothing is lost: found by halving, each step a short run with every byte
//! checked.
//!
//! ```text
//!   0 ──────── lossless ────────┬──?──┬─────── lossy ──────── what came back flat out
//!                             low   high      next probe: the middle
//! ```
//!
//! Pure: it is told what each probe saw and says what to try next.

use serde::Serialize;
use std::time::Duration;

/// How long each probe sends. Shorter misses what happens now and then, longer makes a search boring.
pub const PROBE: Duration = Duration::from_secs(1);
/// Where a search begins, as a multiple of what is answered flat out: a server that is overrun answers less
/// than it can.
pub const ABOVE_FLAT_OUT: f64 = 1.25;

/// Probes of a search: each halves what is uncertain, so seven leave under 1 % of the flat-out rate.
const PROBES: usize = 7;
/// Tries of a rate: on a machine that also does other things a pause loses packets that the rate would not.
const TRIES: usize = 2;
/// Part of the rate that must really have been sent. Below it the generator, not the other end, is the
/// limit.
const KEPT_UP: f64 = 0.98;

/// One probe of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// Packets per second asked for.
    pub rate_pps: f64,
    /// Packets per second sent.
    pub sent_pps: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
    /// Answers that were wrong in any other way.
    pub wrong: u64,
}

impl Probe {
    /// Every packet was answered once and whole, and the generator kept up.
    pub fn is_clean(&self) -> bool {
        self.sent > 0 && self.lost == 0 && self.wrong == 0 && self.sent_pps >= self.rate_pps * KEPT_UP
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ceiling {
    /// The highest rate that was answered without loss; 0 when none was.
    pub rate_pps: f64,
    /// All probes, in order.
    pub probes: Vec<Probe>,
}

/// Searches below `above` (packets per second: what came back flat out), running `probe` at each rate it
/// wants to know about.
pub fn search<E>(above: f64, mut probe: impl FnMut(f64) -> Result<Probe, E>) -> Result<Ceiling, E> {
    let (mut low, mut high) = (0.0, above);
    let mut probes = Vec::with_capacity(PROBES * TRIES);
    for _ in 0..PROBES {
        let rate = (low + high) / 2.0;
        let mut clean = false;
        for _ in 0..TRIES {
            let seen = probe(rate)?;
            probes.push(seen);
            clean = seen.is_clean();
            if clean {
                break;
            }
        }
        if clean {
            low = rate;
        } else {
            high = rate;
        }
    }
    Ok(Ceiling { rate_pps: low, probes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn seen(rate_pps: f64, lost: u64) -> Result<Probe, Infallible> {
        Ok(Probe { rate_pps, sent_pps: rate_pps, sent: 1000, lost, wrong: 0 })
    }

    proptest! {
        #[test]
        fn finds_the_limit_from_below(limit in 1_000f64..990_000.0) {
            let found = search(1e6, |rate| seen(rate, u64::from(rate > limit))).unwrap();
            prop_assert!(found.rate_pps <= limit && found.rate_pps > limit - 1e6 / 64.0);
        }
    }

    #[test]
    fn one_bad_try_is_not_the_end() {
        let mut tries = 0;
        let found = search(1e6, |rate| {
            tries += 1;
            seen(rate, (tries % 2) as u64)
        });
        assert!(found.unwrap().rate_pps > 990_000.0);
    }

    #[test]
    fn nothing_found_is_zero_and_tried_twice_each() {
        let found = search(1e6, |rate| seen(rate, 1)).unwrap();
        assert_eq!((found.rate_pps, found.probes.len()), (0.0, PROBES * TRIES));
    }

    #[test]
    fn a_generator_that_cannot_keep_up_is_no_proof() {
        let slow = |rate_pps| Ok::<_, Infallible>(Probe { sent_pps: 1.0, ..seen(rate_pps, 0).unwrap() });
        assert_eq!(search(1e6, slow).unwrap().rate_pps, 0.0);
    }
}
