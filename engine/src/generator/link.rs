//! The way out and back: what carries a session's packets.

use super::session::Session;
use std::io;

/// Carries the packets of a [`Session`], in bursts.
pub trait Link {
    /// Sends the session's next packets, at most `count`, and notes them in the session; fewer, or none,
    /// when rings or buffers are full. An error is final.
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()>;

    /// Hands every answer that has arrived (at least a burst of them) to the session, and returns how many
    /// there were.
    fn recv(&mut self, session: &mut Session) -> io::Result<usize>;
}

/// CLOCK_MONOTONIC in ns: the clock of schedules, of latencies, and of the eBPF programs.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("the clock always exists");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
