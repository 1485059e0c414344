//! The echo server: every datagram goes back as it came.

use super::{App, Ctx};
use crate::datagram::Datagram;

/// Answers each datagram with its own payload, in place; the checksum is never computed anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl App for Echo {
    type Msg = ();

    #[inline]
    fn on_burst(&mut self, burst: &mut [Datagram<'_>], _: &mut Ctx<'_, ()>) {
        for datagram in burst {
            datagram.reply(datagram.payload().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::burst_of;
    use crate::datagram::Verdict;

    #[test]
    fn what_came_goes_back_unchanged() {
        let verdicts = burst_of(&mut Echo, &[b"hello", b""]);
        assert_eq!(verdicts[0], (Verdict::Reply { len: 5, unchanged: true }, b"hello".to_vec()));
        assert_eq!(verdicts[1].0, Verdict::Reply { len: 0, unchanged: true });
    }
}
