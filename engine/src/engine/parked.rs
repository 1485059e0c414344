//! What stands in for a port while it is exchanged: it receives nothing, and tells who sends to try again.

use crate::datagram::{Batch, DatagramPort, DatagramStats, Datagrams, SendError, Verdicts};
use crate::frame::Ledger;
use crate::net::Path;
use crate::time::Now;
use std::os::fd::RawFd;

/// See the module.
pub struct Parked;

impl DatagramPort for Parked {
    fn name(&self) -> &str {
        "parked"
    }
    fn recv(&mut self, _: &mut Batch, _: Now) -> usize {
        0
    }
    fn open<'b>(&mut self, _: &'b mut Batch, _: &mut Datagrams<'b>) -> usize {
        0
    }
    fn settle(&mut self, _: &mut Batch, _: &Verdicts) {}
    fn send(&mut self, _: &Path, _: usize, _: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        Err(SendError::Full)
    }
    fn flush(&mut self) {}
    fn stats(&self) -> DatagramStats {
        DatagramStats::default()
    }
    fn ledger(&self) -> Ledger {
        Ledger::default()
    }
    fn max_payload(&self, ipv4: bool) -> usize {
        // What a link of 1,500 bytes takes, so that whoever measures does not find the door shut.
        if ipv4 { 1472 } else { 1452 }
    }
    fn stop_rx(&mut self) {}
    fn is_drained(&self) -> bool {
        true
    }
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}
