//! What carries the connections: our own stack over frames, or the kernel's.

use crate::datagram::{Batch, DatagramPort, Datagrams, Verdicts};
use crate::net::Net;
use crate::stream::{EpollStreams, StreamPort, StreamStats};
use crate::time::Now;
use std::io;

/// A stream port, and what drives it.
pub trait Carrier {
    /// Takes in what has arrived.
    ///
    /// # Errors
    /// When what is below cannot go on.
    fn receive(&mut self, now: Now) -> io::Result<()>;

    /// The stream port.
    fn streams(&mut self) -> &mut dyn StreamPort;

    /// Sends what is queued.
    fn flush(&mut self);

    /// Counters of the stream port.
    fn stats(&self) -> StreamStats;

    /// True when nobody has to be answered any more for a connection that has ended, or somebody else answers.
    fn is_forgotten(&self) -> bool {
        true
    }
}

/// Our own stack over a frame port.
pub struct Frames {
    net: Net,
    batch: Batch,
}

impl Frames {
    /// Over a net with a stack in it.
    pub(super) fn new(net: Net) -> Frames {
        Frames { net, batch: Batch::default() }
    }
}

impl Carrier for Frames {
    fn receive(&mut self, now: Now) -> io::Result<()> {
        if let Some(failure) = self.net.failure() {
            return Err(io::Error::other(failure));
        }
        if self.net.recv(&mut self.batch, now) > 0 {
            // No datagram is for us: whatever else there is, the stack has taken when this returns.
            self.net.open(&mut self.batch, &mut Datagrams::new());
            self.net.settle(&mut self.batch, &Verdicts::new());
        }
        Ok(())
    }

    fn streams(&mut self) -> &mut dyn StreamPort {
        self.net.streams().expect("it was made with a stack")
    }

    fn flush(&mut self) {
        self.net.flush();
    }

    fn stats(&self) -> StreamStats {
        self.net.stream_stats()
    }

    /// A kernel behind the port resets whoever still asks; without one, nobody would, and memory shared with the peer goes with us,
    /// whether or not our last acknowledgments have been read from it.
    fn is_forgotten(&self) -> bool {
        self.net.standalone_stats().is_none() || !self.net.has_time_wait()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.net.close();
    }
}

impl Carrier for EpollStreams {
    fn receive(&mut self, _: Now) -> io::Result<()> {
        Ok(())
    }

    fn streams(&mut self) -> &mut dyn StreamPort {
        self
    }

    fn flush(&mut self) {
        StreamPort::flush(self);
    }

    fn stats(&self) -> StreamStats {
        StreamPort::stats(self)
    }
}
