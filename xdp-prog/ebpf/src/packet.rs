//! Direct packet access.

use aya_ebpf::programs::XdpContext;
use volley_steer::packet::Packet;
use volley_steer::zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The linear part of a packet.
pub struct Linear {
    data: usize,
    data_end: usize,
}

impl Linear {
    /// The packet a program was called with.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Linear {
        Linear { data: ctx.data(), data_end: ctx.data_end() }
    }

    /// A pointer to a `T` that starts `offset` bytes into the packet, if it ends within.
    ///
    /// Written so that the verifier sees what it asks for: the same pointer, compared once, then used.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.data_end { None } else { Some(start as *mut T) }
    }
}

impl Packet for Linear {
    #[inline(always)]
    fn load<T: FromBytes + Unaligned + KnownLayout + Immutable + Copy>(&self, offset: usize) -> Option<T> {
        let header = self.at::<T>(offset)?;
        // SAFETY: `at` checked that `size_of::<T>()` bytes lie within the packet, which is the program's own
        // while it runs; `T` has no alignment and is valid for all bytes (`Unaligned`, `FromBytes`).
        Some(unsafe { *header })
    }
}
