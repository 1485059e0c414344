//! The window offered to the peer.

use crate::buffer::{CHUNK, Pool};
use crate::tcb::{Cold, Hot, f};

/// Room for data beyond what has arrived: the buffer's, and a share of the pool's when that runs low.
fn room(hot: &Hot, cold: &Cold, pool: &Pool) -> u32 {
    let free = cold.rcv_buf.saturating_sub(hot.rcv_used);
    let available = pool.available();
    if available >= pool.total() / 4 {
        return free;
    }
    // The nearer the end, the smaller everybody's share; nothing at all once a sixteenth is left.
    let spare = available.saturating_sub(pool.total() / 16);
    free.min((u64::from(spare) * CHUNK as u64 / 8).min(1 << 30) as u32)
}

/// The least step that is worth telling (RFC 9293, section 3.8.6.2.2: Fr * RCV.BUFF, Fr = 1/2, or the peer's segment).
fn step(hot: &Hot, cold: &Cold) -> u32 {
    (cold.rcv_buf / 2).min(u32::from(hot.rcv_mss) * 64)
}

/// Where the right edge would be if it were told now; never left of where it was.
fn edge(hot: &Hot, cold: &Cold, pool: &Pool, shift: u8) -> crate::sequence::Seq {
    let next = hot.rcv_nxt + room(hot, cold, pool).min(0xffff << shift);
    if next.after(hot.rcv_edge) >= step(hot, cold) { next } else { hot.rcv_edge }
}

/// The window field of the next segment; moves the edge. `scaled` is false in SYN and SYN-ACK (RFC 7323, section 2.2).
#[inline]
pub(crate) fn advertise(hot: &mut Hot, cold: &Cold, pool: &Pool, scaled: bool) -> u16 {
    let shift = if scaled { hot.rcv_scale } else { 0 };
    let edge = edge(hot, cold, pool, shift);
    hot.rcv_edge = edge;
    (edge.after(hot.rcv_nxt) >> shift).min(0xffff) as u16
}

/// After a read: the peer must hear of the new room, since it may be waiting for nothing else.
pub(crate) fn update_due(hot: &Hot, cold: &Cold, pool: &Pool) -> bool {
    let now = hot.rcv_edge.after(hot.rcv_nxt);
    let new = edge(hot, cold, pool, hot.rcv_scale).after(hot.rcv_nxt);
    new > now && new >= 2 * now && hot.state.may_receive() && !hot.has(f::FIN_RECEIVED)
}

/// The shift that lets a 16-bit field express the buffer (RFC 7323, section 2.3: at most 14).
pub(crate) fn scale_for(buffer: u32) -> u8 {
    (0..14).find(|&shift| buffer >> shift <= 0xffff).unwrap_or(14)
}
