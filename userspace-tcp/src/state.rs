//! The states of a connection (RFC 9293, section 3.3.2).

/// A connection's state. LISTEN is a [`crate::ListenerId`]; SYN-RECEIVED of a passive open and TIME-WAIT stand in tables of
/// their own, smaller than a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection.
    #[default]
    Closed,
    /// An active open has sent SYN.
    SynSent,
    /// SYN sent and received, the acknowledgment of ours outstanding.
    SynReceived,
    /// Data flows.
    Established,
    /// We closed first; our FIN is not acknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer closed first; we may still send.
    CloseWait,
    /// Both closed at once; our FIN is not acknowledged.
    Closing,
    /// The peer closed first, then we; our FIN is not acknowledged.
    LastAck,
    /// Both closed, we first; old segments are waited out.
    TimeWait,
}

impl State {
    /// SYN has been exchanged both ways: every state from ESTABLISHED on.
    pub(crate) const fn synchronized(self) -> bool {
        self as u8 >= State::Established as u8
    }

    /// The application may still queue data to send.
    pub(crate) const fn may_write(self) -> bool {
        matches!(self, State::Established | State::CloseWait | State::SynSent | State::SynReceived)
    }

    /// Data from the peer may still come.
    pub(crate) const fn may_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }
}
