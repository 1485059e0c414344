//! The bytes of a stream: a function of the position alone, so that whoever knows the position can check them.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// Longest piece that [`Pattern::at`] gives out, in bytes.
pub const LONGEST: usize = 64 << 10;

/// The period of what is sent: a prime, so that a message that is lost, repeated or moved does not fall on an equal one.
const PERIOD: usize = 65_521;

/// A repeating row of bytes.
pub struct Pattern {
    /// The period, and what follows it up to [`LONGEST`] more bytes.
    bytes: Box<[u8]>,
    period: usize,
}

impl Default for Pattern {
    /// What the generator sends: noise, the same in every run.
    fn default() -> Pattern {
        let mut period = vec![0; PERIOD];
        SmallRng::seed_from_u64(862).fill_bytes(&mut period);
        Pattern::of(&period)
    }
}

impl Pattern {
    fn of(period: &[u8]) -> Pattern {
        let bytes = period.iter().copied().cycle().take(period.len() + LONGEST).collect();
        Pattern { bytes, period: period.len() }
    }

    /// What a character generator sends: the ring of the 95 printable characters, in lines of 72, each of which begins one
    /// later (RFC 864).
    pub fn characters() -> Pattern {
        let ring = |n: usize| b' ' + (n % 95) as u8;
        let line = |n: usize| (n..n + 72).map(ring).chain(*b"\r\n");
        Pattern::of(&(0..95).flat_map(line).collect::<Vec<_>>())
    }

    /// The `len` bytes (at most [`LONGEST`]) from `position` on.
    #[inline]
    pub fn at(&self, position: u64, len: usize) -> &[u8] {
        let from = (position % self.period as u64) as usize;
        &self.bytes[from..from + len]
    }

    /// Whether `bytes` are those from `position` on.
    #[inline]
    pub fn is(&self, position: u64, bytes: &[u8]) -> bool {
        let mut position = position;
        bytes.chunks(LONGEST).all(|piece| {
            let same = piece == self.at(position, piece.len());
            position += piece.len() as u64;
            same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_moved_or_missing_byte_shows() {
        let pattern = Pattern::default();
        let mut bytes = pattern.at(1_000_000, 500).to_vec();
        assert!(pattern.is(1_000_000, &bytes));
        for at in [0, 250, 499] {
            bytes[at] ^= 1;
            assert!(!pattern.is(1_000_000, &bytes), "byte {at}");
            bytes[at] ^= 1;
        }
        assert!(!pattern.is(1_000_001, &bytes) && !pattern.is(1_000_000 + 64, &bytes));
        bytes.remove(100);
        assert!(!pattern.is(1_000_000, &bytes));
    }

    #[test]
    fn it_goes_on_across_its_period_and_pieces() {
        let pattern = Pattern::default();
        let long: Vec<u8> =
            (0..3).flat_map(|n| pattern.at(7 + n * LONGEST as u64, LONGEST).to_vec()).collect();
        assert!(pattern.is(7, &long));
        assert_eq!(pattern.at(PERIOD as u64 + 3, 10), pattern.at(3, 10));
    }

    #[test]
    fn the_characters_are_the_services() {
        let service = Pattern::characters();
        assert!(service.at(0, 74).starts_with(b" !\"#$%") && service.at(0, 74).ends_with(b"efg\r\n"));
        assert!(service.at(74, 74).starts_with(b"!\"#"));
        assert_eq!(service.at(95 * 74, 74), service.at(0, 74));
    }
}
