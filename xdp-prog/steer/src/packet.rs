//! Reading headers out of a packet.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A packet whose headers can be read by offset.
///
/// In the kernel this is direct packet access (the verifier must see one bounds check per read, which is
/// why there is no slice here); elsewhere it is a slice.
pub trait Packet {
    /// The header of type `T` that starts `offset` bytes into the packet, or `None` when the packet (or
    /// its linear part) ends before the header does.
    fn load<T: FromBytes + Unaligned + KnownLayout + Immutable + Copy>(&self, offset: usize) -> Option<T>;
}

impl Packet for [u8] {
    #[inline(always)]
    fn load<T: FromBytes + Unaligned + KnownLayout + Immutable + Copy>(&self, offset: usize) -> Option<T> {
        T::read_from_prefix(self.get(offset..)?).ok().map(|(header, _)| header)
    }
}
