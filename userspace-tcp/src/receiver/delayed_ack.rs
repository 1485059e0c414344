//! When an acknowledgment is due: at once, with the next segment, or when the timer fires.

use crate::tcb::{Cold, Hot, f};
use crate::time::{Instant, deadline_ms};

/// In-order data of `len` bytes has arrived.
#[inline]
pub(crate) fn data_arrived(hot: &mut Hot, len: u32) {
    let units = len.div_ceil(64).min(255) as u8;
    hot.rcv_mss = hot.rcv_mss.max(units);
    hot.unacked = hot.unacked.saturating_add(len.min(0xffff) as u16);
    hot.set(f::ACK_PENDING);
    // RFC 5681, section 4.2: at least every second full-sized segment.
    if u32::from(hot.unacked) > u32::from(hot.rcv_mss) * 64 {
        hot.set(f::ACK_NOW);
    }
}

/// An acknowledgment waits for company: arms its timer. Returns when it fires.
pub(crate) fn arm(hot: &mut Hot, cold: &mut Cold, now: Instant) -> Option<u32> {
    if hot.has(f::ACK_TIMER) {
        return None;
    }
    hot.set(f::ACK_TIMER);
    cold.ack_at = deadline_ms(now, cold.delayed_ack);
    Some(cold.ack_at)
}

/// A segment with the acknowledgment leaves.
#[inline]
pub(crate) fn sent(hot: &mut Hot) {
    hot.unacked = 0;
    hot.clear(f::ACK_PENDING | f::ACK_NOW | f::ACK_TIMER);
}
