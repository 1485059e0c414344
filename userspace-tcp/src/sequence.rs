//! Sequence numbers: 32 bits, compared modulo 2^32 (RFC 9293, section 3.4).

use std::ops::{Add, AddAssign, Sub};

/// A sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// Before `other` on the circle.
    #[inline(always)]
    pub const fn lt(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }
    /// Before or at `other`.
    #[inline(always)]
    pub const fn le(self, other: Seq) -> bool {
        !other.lt(self)
    }
    /// After `other`.
    #[inline(always)]
    pub const fn gt(self, other: Seq) -> bool {
        other.lt(self)
    }
    /// After or at `other`.
    #[inline(always)]
    pub const fn ge(self, other: Seq) -> bool {
        !self.lt(other)
    }
    /// The later of two.
    #[inline(always)]
    pub const fn max(self, other: Seq) -> Seq {
        if self.lt(other) { other } else { self }
    }
    /// The earlier of two.
    #[inline(always)]
    pub const fn min(self, other: Seq) -> Seq {
        if self.lt(other) { self } else { other }
    }
    /// How far this is after `earlier`; zero when it is not after it.
    #[inline(always)]
    pub const fn after(self, earlier: Seq) -> u32 {
        if self.lt(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }
}

impl Add<u32> for Seq {
    type Output = Seq;
    #[inline(always)]
    fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for Seq {
    #[inline(always)]
    fn add_assign(&mut self, n: u32) {
        self.0 = self.0.wrapping_add(n);
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;
    #[inline(always)]
    fn sub(self, n: u32) -> Seq {
        Seq(self.0.wrapping_sub(n))
    }
}

/// The distance from the right operand to the left, modulo 2^32.
impl Sub<Seq> for Seq {
    type Output = u32;
    #[inline(always)]
    fn sub(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn order_holds_across_the_wrap() {
        let a = Seq(u32::MAX - 1);
        let b = a + 3;
        assert_eq!(b.0, 1);
        assert!(a.lt(b) && b.gt(a) && a.le(a) && b.ge(a) && !b.lt(a));
        assert_eq!((b - a, b.after(a), a.after(b)), (3, 3, 0));
        assert_eq!((a.max(b), a.min(b)), (b, a));
    }
}
