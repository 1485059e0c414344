//! Congestion control: how large the window may grow, and how far it falls. In bytes.

mod cubic;
mod newreno;

use crate::config::CongestionControl;
use cubic::Cubic;

/// One connection's controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    pub kind: CongestionControl,
    pub ssthresh: u32,
    cubic: Cubic,
    /// Bytes acknowledged since the window last grew by a segment (RFC 5681, section 3.1, appropriate byte counting).
    counted: u32,
}

/// What an acknowledgment tells the controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    /// Bytes newly acknowledged.
    pub bytes: u32,
    /// Sender's maximum segment size.
    pub mss: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Milliseconds now, wrapping.
    pub now_ms: u32,
}

/// No window grows beyond this.
const MAX_WINDOW: u32 = 1 << 30;

impl Congestion {
    pub(crate) fn new(kind: CongestionControl) -> Congestion {
        // "Arbitrarily high" at first (RFC 5681, section 3.1).
        Congestion { kind, ssthresh: u32::MAX, cubic: Cubic::default(), counted: 0 }
    }

    /// The window after `ack`, when the window was what limited the sender.
    pub(crate) fn grow(&mut self, cwnd: u32, ack: Ack) -> u32 {
        let mss = ack.mss.max(1);
        let grown = if cwnd < self.ssthresh {
            // Slow start: by what is acknowledged (RFC 5681, section 3.1), but no further than ssthresh in one step.
            newreno::slow_start(cwnd, ack.bytes, mss).min(self.ssthresh.max(cwnd + mss))
        } else {
            match self.kind {
                CongestionControl::NewReno => newreno::avoidance(cwnd, &mut self.counted, ack.bytes, mss),
                CongestionControl::Cubic => self.cubic.avoidance(cwnd, ack),
            }
        };
        grown.min(MAX_WINDOW)
    }

    /// Loss or ECN: the new ssthresh. `flight` is FlightSize.
    pub(crate) fn reduce(&mut self, cwnd: u32, flight: u32, mss: u32) -> u32 {
        self.counted = 0;
        self.ssthresh = match self.kind {
            CongestionControl::NewReno => newreno::halve(flight, mss),
            CongestionControl::Cubic => self.cubic.reduce(cwnd, flight, mss),
        };
        self.ssthresh
    }

    /// What a reduction changed and [`Congestion::restore`] gives back.
    pub(crate) fn save(&self) -> Saved {
        Saved { ssthresh: self.ssthresh, cubic: self.cubic }
    }

    /// Undoes reductions that were found to be unneeded.
    pub(crate) fn restore(&mut self, saved: &Saved) {
        self.ssthresh = saved.ssthresh;
        self.cubic = saved.cubic;
    }

    /// A timeout or an idle time ends CUBIC's epoch (RFC 9438, sections 4.8 and 5.8).
    pub(crate) fn new_epoch(&mut self) {
        self.cubic.end_epoch();
    }
}

/// See [`Congestion::save`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Saved {
    ssthresh: u32,
    cubic: Cubic,
}

/// The initial window: ten segments (RFC 6928), or one after a lost SYN (RFC 5681, section 3.1).
pub(crate) fn initial_window(mss: u32, segments: u16, syn_lost: bool) -> u32 {
    if syn_lost { mss } else { (u32::from(segments) * mss).min(u32::from(segments) * 1460).max(2 * mss) }
}
