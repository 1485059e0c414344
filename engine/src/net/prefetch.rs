//! Fetching headers into the cache before they are parsed.

use crate::frame::Frame;

/// How many packets ahead headers are fetched. A packet takes some 20 ns to parse and a line from L3 about as long or a few times
/// that: with fewer the parser waits for memory, with many more the first lines are pushed out again before use.
pub(super) const AHEAD: usize = 4;

/// Asks for the first cache line of the packet, and the second, which the headers of tagged or IPv6 packets reach into.
#[inline(always)]
pub(super) fn headers(frame: &Frame) {
    let start = frame.bytes().as_ptr();
    line(start);
    line(start.wrapping_add(64));
}

#[inline(always)]
fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that reads nothing and never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the instruction changes no register, flag or memory.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
