//! Where every chunk of a port is.

use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Counts of a port's chunks by owner. The five add up to the total, always ([`Ledger::balances`]).
///
/// `kernel_rx` and `kernel_tx` are differences of what was posted and what came back, so they balance by
/// construction; [`Ownership`] is the check that sees a token returned twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ledger {
    /// Chunks of the port.
    pub total: u64,
    /// Ready to be sent from or posted.
    pub free: u64,
    /// Posted for receive and not yet received.
    pub kernel_rx: u64,
    /// Submitted for transmit and not yet completed.
    pub kernel_tx: u64,
    /// With the layers above the port, as tokens.
    pub app: u64,
    /// Kept by the port for later (bounded): a chain still arriving, a transmit back-log.
    pub held: u64,
    /// Given up when the port closed: submitted and never completed by the kernel.
    pub abandoned: u64,
}

impl Ledger {
    /// True when every chunk is in exactly one place.
    pub fn balances(&self) -> bool {
        self.free + self.kernel_rx + self.kernel_tx + self.app + self.held + self.abandoned == self.total
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ledger { total, free, kernel_rx, kernel_tx, app, held, abandoned } = self;
        write!(
            f,
            "{total} frames = {free} free + {kernel_rx} kernel rx + {kernel_tx} kernel tx + {app} app + {held} held + {abandoned} abandoned"
        )
    }
}

/// Who owns a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// The port's free list.
    Free,
    /// The fill ring or the device's receive side.
    KernelRx,
    /// The transmit ring, or sent and not completed.
    KernelTx,
    /// A [`super::Frame`] outside the port.
    App,
    /// The port, for later.
    Held,
}

/// In debug and test builds, the owner of every chunk, checked at each move; in release builds nothing at all.
///
/// Counters cannot see a token handed back twice while another is lost; this does, at the moment it happens.
#[derive(Debug, Default)]
pub struct Ownership {
    #[cfg(debug_assertions)]
    owner: Vec<Owner>,
}

impl Ownership {
    /// All `chunks` free.
    pub fn new(chunks: usize) -> Ownership {
        #[cfg(not(debug_assertions))]
        let _ = chunks;
        Ownership {
            #[cfg(debug_assertions)]
            owner: vec![Owner::Free; chunks],
        }
    }

    /// Moves chunk `index` from one owner to another. Debug builds panic when it was not there.
    #[inline(always)]
    pub fn transfer(&mut self, index: usize, from: Owner, to: Owner) {
        #[cfg(debug_assertions)]
        {
            let was = std::mem::replace(&mut self.owner[index], to);
            assert!(was == from, "chunk {index} moves from {from:?} to {to:?}, but {was:?} owns it");
        }
        #[cfg(not(debug_assertions))]
        let _ = (index, from, to);
    }
}
