//! Which datagrams leave without a copy, and when that is given up.
//!
//! A zero-copy send costs a second completion, and bookkeeping for the pages. Where the way out copies all the same (loopback,
//! veth, a device without scatter-gather) it costs that for nothing; the kernel says so with each datagram, and after some in a
//! row none is sent so any more.

/// IORING_SEND_ZC_REPORT_USAGE: say whether it was copied after all (Linux 6.2).
pub(super) const REPORT_USAGE: u16 = 8;
/// IORING_NOTIF_USAGE_ZC_COPIED: it was.
const COPIED: u32 = 1 << 31;
/// Datagrams in a row that were copied all the same before it is given up: a burst. Fewer may be an odd peer on the same machine,
/// more are lost time.
const IN_VAIN: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct ZeroCopy {
    from: usize,
    in_vain: u32,
}

impl ZeroCopy {
    /// For datagrams of at least `from` bytes; 0: none.
    pub(super) fn new(from: u32) -> ZeroCopy {
        ZeroCopy { from: if from == 0 { usize::MAX } else { from as usize }, in_vain: 0 }
    }

    /// True when any datagram leaves without a copy.
    pub(super) fn is_on(&self) -> bool {
        self.from < usize::MAX
    }

    /// True when one of `len` bytes does.
    #[inline]
    pub(super) fn wants(&self, len: usize) -> bool {
        len >= self.from
    }

    /// Takes the result of a notification.
    pub(super) fn notified(&mut self, result: i32) {
        match result as u32 & COPIED {
            0 => self.in_vain = 0,
            _ => self.was_in_vain(),
        }
    }

    /// It was copied, or refused, all the same.
    pub(super) fn was_in_vain(&mut self) {
        self.in_vain += 1;
        if self.in_vain == IN_VAIN && self.is_on() {
            self.from = usize::MAX;
            log::info!("io_uring: the way out copies all the same: zero-copy sending is switched off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_where_everything_is_copied_and_only_there() {
        let mut zero_copy = ZeroCopy::new(512);
        assert!(zero_copy.wants(512) && !zero_copy.wants(511));
        for n in 0..10 * IN_VAIN {
            zero_copy.notified(if n % IN_VAIN == 0 { 0 } else { COPIED as i32 });
        }
        assert!(zero_copy.is_on(), "one in {IN_VAIN} is not copied");
        zero_copy.notified(0);
        (0..IN_VAIN).for_each(|_| zero_copy.notified(COPIED as i32));
        assert!(!zero_copy.is_on() && !zero_copy.wants(65_000));
        assert!(!ZeroCopy::new(0).is_on());
    }
}
