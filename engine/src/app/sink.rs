//! The sink: every datagram is taken and nothing is answered.

use super::App;

/// Takes each datagram and answers none: what receiving alone costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sink;

impl App for Sink {
    type Msg = ();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::burst_of;
    use crate::datagram::Verdict;

    #[test]
    fn nothing_is_answered() {
        assert_eq!(burst_of(&mut Sink, &[b"hello"])[0].0, Verdict::Consume);
    }
}
