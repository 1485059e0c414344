//! The rungs an engine stands on, from the fastest to the surest, and its way down: one way until it is restarted.
//!
//! ```text
//!   zero-copy ──► copy ──► generic ──► socket
//!      AF_XDP     AF_XDP    AF_XDP, program      kernel sockets
//!                           behind the driver
//! ```

use super::config::{Attach, Config, Io, ZeroCopy};
use crate::frame::Ledger;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Rung {
    /// AF_XDP, the device's DMA goes to our memory.
    ZeroCopy,
    /// AF_XDP, the kernel copies; the program runs in the driver.
    Copy,
    /// AF_XDP, the kernel copies; the program runs behind the driver.
    Generic,
    /// Kernel sockets.
    Socket,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rung::ZeroCopy => "zero-copy",
            Rung::Copy => "copy",
            Rung::Generic => "generic",
            Rung::Socket => "socket",
        })
    }
}

/// The rung the engine stands on, for whoever opens a port of it. At first the top.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<AtomicU8>);

impl Standing {
    /// Now.
    pub fn rung(&self) -> Rung {
        let rungs = [Rung::ZeroCopy, Rung::Copy, Rung::Generic, Rung::Socket];
        rungs.get(usize::from(self.0.load(Ordering::Acquire))).copied().unwrap_or(Rung::Socket)
    }

    /// From now on.
    pub fn set(&self, rung: Rung) {
        self.0.store(rung as u8, Ordering::Release);
    }
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demotion {
    /// From where.
    pub from: Rung,
    /// To where.
    pub to: Rung,
    /// What made it necessary.
    pub why: String,
    /// Frames of the ports that were given up, as those ports closed.
    pub ledger: Ledger,
}

impl fmt::Display for Demotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}: {}", self.from, self.to, self.why)
    }
}

/// Where an engine stands, how far down it may go, and how it came there.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// Now.
    pub rung: Rung,
    /// The steps so far.
    pub steps: Vec<Demotion>,
    zero_copy_required: bool,
    attach: Attach,
    xdp_required: bool,
    /// The program was there before us and stays in its mode.
    pub pinned: bool,
}

impl Ladder {
    /// For an engine with this configuration, at the top of what that allows; `steps` were taken before.
    pub fn new(config: &Config, steps: Vec<Demotion>) -> Ladder {
        Ladder {
            rung: if config.io == Io::AfXdp { Rung::ZeroCopy } else { Rung::Socket },
            steps,
            zero_copy_required: config.zero_copy == ZeroCopy::Require,
            attach: config.attach,
            xdp_required: config.require_xdp,
            pinned: false,
        }
    }

    /// The next rung down that the configuration allows; `None` when there is none.
    pub fn below(&self) -> Option<Rung> {
        let generic = self.attach == Attach::Auto && !self.pinned;
        let socket = (!self.xdp_required).then_some(Rung::Socket);
        match self.rung {
            Rung::ZeroCopy | Rung::Copy if self.zero_copy_required => None,
            Rung::ZeroCopy => Some(Rung::Copy),
            Rung::Copy if generic => Some(Rung::Generic),
            Rung::Copy | Rung::Generic => socket,
            Rung::Socket => None,
        }
    }

    /// Goes there, for a reason.
    pub fn step(&mut self, to: Rung, why: String, ledger: Ledger) -> Demotion {
        let step = Demotion { from: self.rung, to, why, ledger };
        self.rung = to;
        self.steps.push(step.clone());
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rungs an engine comes through, all the way down.
    fn way(change: impl FnOnce(&mut Config), pinned: bool) -> Vec<Rung> {
        let mut config = Config::default();
        change(&mut config);
        let mut ladder = Ladder { pinned, ..Ladder::new(&config, Vec::new()) };
        while let Some(to) = ladder.below() {
            ladder.step(to, "test".into(), Ledger::default());
        }
        ladder.steps.iter().map(|step| step.to).collect()
    }

    #[test]
    fn the_way_down_keeps_to_what_is_asked_for() {
        use Rung::{Copy, Generic, Socket};
        assert_eq!(way(|_| {}, false), [Copy, Generic, Socket]);
        assert_eq!(way(|c| c.require_xdp = true, false), [Copy, Generic]);
        assert_eq!(way(|_| {}, true), [Copy, Socket], "a pinned program stays in its mode");
        assert_eq!(way(|c| c.attach = Attach::Native, false), [Copy, Socket]);
        assert_eq!(way(|c| c.zero_copy = ZeroCopy::Require, false), []);
    }

    #[test]
    fn a_step_says_whence_whither_and_why() {
        let mut ladder = Ladder::new(&Config::default(), Vec::new());
        let step = ladder.step(Rung::Copy, "queue 3 stalled".into(), Ledger::default());
        assert_eq!(step.to_string(), "zero-copy → copy: queue 3 stalled");
        assert_eq!((ladder.rung, ladder.steps.len()), (Rung::Copy, 1));
        let standing = Standing::default();
        for rung in [Rung::ZeroCopy, Rung::Copy, Rung::Generic, Rung::Socket] {
            standing.set(rung);
            assert_eq!(standing.rung(), rung);
        }
    }
}
