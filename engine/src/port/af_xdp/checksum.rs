//! Transmit metadata: asking the device to finish a checksum.
//!
//! ```text
//!   ── chunk ──┬── 24 bytes: struct xsk_tx_metadata ──┬── packet ──
//!              │ flags │ csum_start │ csum_offset │ … │◄── descriptor address
//! ```
//!
//! Used where the device offers it (`tx-checksum` of netdev's xsk-features), or the kernel in its place when it is told to. Once the
//! UMEM is registered with metadata, the kernel wants room for it before every packet, asked for or not. Source:
//! Documentation/networking/xsk-tx-metadata.rst; linux/if_xdp.h.

use crate::frame::{Frame, flag};

/// Bytes kept before a packet: `sizeof(struct xsk_tx_metadata)` of kernels that know a launch time; older ones use the
/// first 16 of them.
pub(super) const METADATA_BYTES: u32 = 24;

/// Descriptor option: metadata stands before the packet.
pub(super) const TX_METADATA: u32 = libc::XDP_TX_METADATA;

/// Writes the request before the packet when the frame asks for it, and returns the descriptor's options.
#[inline(always)]
pub(super) fn request(frame: &mut Frame) -> u32 {
    if !frame.has(flag::CHECKSUM_PARTIAL) {
        return 0;
    }
    let (offset, len) = (frame.headroom(), frame.len());
    let Some((start, field)) = frame.partial_checksum() else { return 0 };
    if offset < METADATA_BYTES as usize || !frame.set_range(offset - METADATA_BYTES as usize, len) {
        return 0;
    }
    let mut metadata = [0u8; METADATA_BYTES as usize];
    metadata[..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
    metadata[8..10].copy_from_slice(&u16::from(start).to_ne_bytes());
    metadata[10..12].copy_from_slice(&u16::from(field).to_ne_bytes());
    frame.room_mut()[..METADATA_BYTES as usize].copy_from_slice(&metadata);
    let restored = frame.set_range(offset, len);
    debug_assert!(restored, "the range was the frame's own");
    TX_METADATA
}
