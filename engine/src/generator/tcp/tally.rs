//! What a run counts and times.

use super::super::latency::{Summary, Times};
use crate::stream::CloseReason;
use serde::Serialize;

/// Counts of a run since its warm-up ended; of what was opened and what went wrong, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections opened.
    pub opened: u64,
    /// Connections that ended as they should.
    pub closed: u64,
    /// Connections that ended otherwise, or never opened.
    pub failed: u64,
    /// Of those, because a reset came.
    pub reset: u64,
    /// Of those, because nobody answered.
    pub timed_out: u64,
    /// Whole messages that came back.
    pub messages: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Pieces received (each what stood together) that were not the bytes expected.
    pub corrupted: u64,
    /// Opens put off: no local port was free.
    pub no_port: u64,
}

/// Counts and times while a run goes on.
#[derive(Default)]
pub struct Tally {
    /// The counts.
    pub counts: Counts,
    /// Of each message, or of each connect and echo: how long it took.
    pub times: Times,
}

impl Tally {
    /// A connection ended that should not have.
    pub fn fail(&mut self, reason: CloseReason) {
        self.counts.failed += 1;
        match reason {
            CloseReason::Reset | CloseReason::Refused => self.counts.reset += 1,
            CloseReason::TimedOut => self.counts.timed_out += 1,
            _ => {}
        }
    }

    /// The warm-up is over. What was opened and what went wrong in it still counts.
    pub fn measure_from_here(&mut self) {
        let Counts { opened, failed, reset, timed_out, corrupted, .. } = self.counts;
        self.counts = Counts { opened, failed, reset, timed_out, corrupted, ..Counts::default() };
        self.times.reset();
    }

    /// The times so far.
    pub fn summary(&self) -> Summary {
        self.times.summary()
    }
}
