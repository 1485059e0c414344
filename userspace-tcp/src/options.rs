//! TCP options: MSS, window scale, SACK permitted, SACK, timestamps; all others are stepped over (RFC 9293, section 3.2).

use crate::sequence::Seq;

/// A block of sequence numbers [start, end) that a receiver holds (RFC 2018).
pub type SackBlock = (Seq, Seq);

/// SACK blocks that fit a header.
pub(crate) const MAX_SACK_BLOCKS: usize = 4;

/// The options of one received segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    pub sack: [SackBlock; MAX_SACK_BLOCKS],
    pub sack_len: u8,
}

impl Options {
    /// Reads options. `None` when one runs past the header or is shorter than two bytes (RFC 9293, section 3.1, MUST-7).
    /// An option of the wrong length for its kind is stepped over.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        // What nearly every segment has: NOP, NOP, timestamps (RFC 7323, appendix A).
        if let &[1, 1, 8, 10, a, b, c, d, e, f, g, h] = bytes {
            options.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            return Some(options);
        }
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            match *kind {
                0 => break,
                1 => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let length = usize::from(*tail.first()?);
            if length < 2 || length > rest.len() {
                return None;
            }
            let (option, after) = rest.split_at(length);
            rest = after;
            let body = &option[2..];
            match (*kind, body) {
                (2, &[a, b]) => options.mss = Some(u16::from_be_bytes([a, b])),
                // A shift above 14 is taken as 14 (RFC 7323, section 2.3).
                (3, &[shift]) => options.window_scale = Some(shift.min(14)),
                (4, &[]) => options.sack_permitted = true,
                (5, blocks) if blocks.len() % 8 == 0 => {
                    for block in blocks.chunks_exact(8).take(MAX_SACK_BLOCKS) {
                        let word = |i: usize| {
                            u32::from_be_bytes([block[i], block[i + 1], block[i + 2], block[i + 3]])
                        };
                        options.sack[usize::from(options.sack_len)] = (Seq(word(0)), Seq(word(4)));
                        options.sack_len += 1;
                    }
                }
                (8, &[a, b, c, d, e, f, g, h]) => {
                    options.timestamps =
                        Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
                }
                _ => {}
            }
        }
        Some(options)
    }

    /// The SACK blocks.
    pub(crate) fn sack_blocks(&self) -> &[SackBlock] {
        &self.sack[..usize::from(self.sack_len)]
    }
}

/// Options being written: at most 40 bytes, a multiple of four.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionBytes {
    bytes: [u8; 40],
    len: u8,
}

impl OptionBytes {
    pub(crate) const EMPTY: OptionBytes = OptionBytes { bytes: [0; 40], len: 0 };

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// The options of SYN and SYN-ACK.
    pub(crate) fn syn(
        mss: u16,
        scale: Option<u8>,
        sack: bool,
        timestamps: Option<(u32, u32)>,
    ) -> OptionBytes {
        let mut o = OptionBytes::EMPTY;
        let [a, b] = mss.to_be_bytes();
        o.put(&[2, 4, a, b]);
        match (sack, timestamps) {
            (true, Some(ts)) => {
                o.put(&[4, 2]);
                o.timestamps_unpadded(ts);
            }
            (false, Some(ts)) => o.timestamps(ts),
            (true, None) => o.put(&[1, 1, 4, 2]),
            (false, None) => {}
        }
        if let Some(scale) = scale {
            o.put(&[1, 3, 3, scale]);
        }
        o
    }

    fn timestamps_unpadded(&mut self, (val, ecr): (u32, u32)) {
        self.put(&[8, 10]);
        self.put(&val.to_be_bytes());
        self.put(&ecr.to_be_bytes());
    }

    /// Timestamps, padded to twelve bytes.
    #[inline]
    pub(crate) fn timestamps(&mut self, (val, ecr): (u32, u32)) {
        let mut twelve = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        twelve[4..8].copy_from_slice(&val.to_be_bytes());
        twelve[8..].copy_from_slice(&ecr.to_be_bytes());
        self.put(&twelve);
    }

    /// As many of `blocks` as fit: four, or three beside timestamps (RFC 2018, section 3).
    pub(crate) fn sack(&mut self, blocks: &[SackBlock]) {
        let room = (40 - usize::from(self.len) - 4) / 8;
        let blocks = &blocks[..blocks.len().min(room)];
        if blocks.is_empty() {
            return;
        }
        self.put(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
        for (start, end) in blocks {
            self.put(&start.0.to_be_bytes());
            self.put(&end.0.to_be_bytes());
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (sack, ts, scale) in
            [(true, true, true), (true, false, true), (false, true, false), (false, false, true)]
        {
            let ts = ts.then_some((7, 9));
            let scale = scale.then_some(6);
            let bytes = OptionBytes::syn(1460, scale, sack, ts);
            assert_eq!(bytes.len() % 4, 0);
            let read = Options::parse(bytes.as_slice()).unwrap();
            assert_eq!(
                (read.mss, read.window_scale, read.sack_permitted, read.timestamps),
                (Some(1460), scale, sack, ts)
            );
        }
        let blocks = [(Seq(1), Seq(2)), (Seq(3), Seq(4)), (Seq(5), Seq(6)), (Seq(7), Seq(8))];
        let mut plain = OptionBytes::EMPTY;
        plain.sack(&blocks);
        assert_eq!(Options::parse(plain.as_slice()).unwrap().sack_blocks(), &blocks);
        let mut stamped = OptionBytes::EMPTY;
        stamped.timestamps((1, 2));
        stamped.sack(&blocks);
        assert_eq!(Options::parse(stamped.as_slice()).unwrap().sack_blocks(), &blocks[..3]);
    }

    #[test]
    fn impossible_lengths_are_refused_and_unknown_options_stepped_over() {
        assert_eq!(Options::parse(&[2, 0, 0, 0]), None);
        assert_eq!(Options::parse(&[2, 1, 0, 0]), None);
        assert_eq!(Options::parse(&[2, 5, 0, 0]), None);
        assert_eq!(Options::parse(&[1, 1, 1, 2]), None);
        assert_eq!(Options::parse(&[254, 4, 1, 2, 2, 4, 2, 0]).unwrap().mss, Some(512));
        // MSS of a wrong length is not an MSS; what follows the end of the list is not read.
        assert_eq!(Options::parse(&[2, 3, 1, 0]).unwrap().mss, None);
        assert_eq!(Options::parse(&[0, 2, 4, 1]).unwrap().mss, None);
    }
}
