//! The parser, for the fuzz target that compares it with another. Not part of the interface: it is there with `--cfg fuzzing` only.

use crate::counters::Drop;
use crate::segment::{Segment, SegmentIn};

/// What a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// CWR to FIN, as in the header.
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, at most 14.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks.
    pub sack: Vec<(u32, u32)>,
    /// Where the payload begins.
    pub offset: usize,
    /// Its length.
    pub len: usize,
}

/// Parses a segment as `receive_burst` does.
pub fn parse(segment: &SegmentIn<'_>) -> Result<Parsed, Drop> {
    let s = Segment::parse(segment, 0)?;
    Ok(Parsed {
        ports: (s.key.remote_port, s.key.local_port),
        seq: s.seq.0,
        ack: s.ack.0,
        flags: s.flags,
        window: s.window,
        mss: s.options.mss,
        window_scale: s.options.window_scale,
        sack_permitted: s.options.sack_permitted,
        timestamps: s.options.timestamps,
        sack: s.options.sack_blocks().iter().map(|(start, end)| (start.0, end.0)).collect(),
        offset: s.offset as usize,
        len: s.len as usize,
    })
}
