//! What lies between the two halves: the rings, the device's counters, a bell, and who frees the memory.

use crate::datagram::RawFd;
use crate::frame::{Frame, FramePool};
use crate::port::QueueCounters;
use rtrb::{Consumer, Producer};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Frames inside a ring. A ring that is dropped must not drop the token (its chunk is accounted for elsewhere).
pub(super) type Slot = ManuallyDrop<Frame>;

/// What both halves see.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) rx_stopped: AtomicBool,
    pub(super) rx_ring_full: AtomicU64,
    pub(super) rx_dropped: AtomicU64,
    pub(super) fill_ring_empty: AtomicU64,
    pub(super) unplugged: OnceLock<String>,
    pub(super) bell: Bell,
    /// The last of the two halves to go brings pool and frames together here, so that the memory is freed.
    estate: Mutex<Estate>,
}

impl Shared {
    pub(super) fn estate(&self) -> MutexGuard<'_, Estate> {
        self.estate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Estate {
    pub(super) pool: Option<FramePool>,
    pub(super) frames: Vec<Frame>,
}

impl Estate {
    pub(super) fn settle(&mut self) {
        if let Some(pool) = &mut self.pool {
            self.frames.drain(..).for_each(|frame| pool.give(frame));
        }
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        // Only when the port is leaked is there no pool: then the frames' memory is leaked with it.
        self.settle();
        self.frames.drain(..).for_each(|frame| _ = frame.into_raw());
    }
}

/// A descriptor that is readable while packets may be waiting, for a worker that sleeps.
pub(super) struct Bell {
    rung: AtomicBool,
    #[cfg(target_os = "linux")]
    event: Option<nix::sys::eventfd::EventFd>,
}

impl Default for Bell {
    fn default() -> Self {
        #[cfg(target_os = "linux")]
        use nix::sys::eventfd::{EfdFlags, EventFd};
        Bell {
            rung: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).ok(),
        }
    }
}

impl Bell {
    /// After the packet is in its ring. Writing comes before the flag: so a flag that is set has its write behind it.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if !self.rung.load(Ordering::SeqCst) {
            #[cfg(target_os = "linux")]
            let _ = self.event.as_ref().map(|event| event.write(1));
            self.rung.store(true, Ordering::SeqCst);
        }
    }

    /// Before the rings are looked at. One load, unless it rang.
    #[inline(always)]
    pub(super) fn answer(&self) {
        if self.rung.load(Ordering::Relaxed) {
            self.rung.store(false, Ordering::SeqCst);
            #[cfg(target_os = "linux")]
            let _ = self.event.as_ref().map(nix::sys::eventfd::EventFd::read);
            fence(Ordering::SeqCst);
        }
    }

    pub(super) fn fds(&self) -> Vec<RawFd> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            self.event.iter().map(AsRawFd::as_raw_fd).collect()
        }
        #[cfg(not(target_os = "linux"))]
        Vec::new()
    }
}

pub(super) struct PortQueue {
    pub(super) fill: Producer<Slot>,
    pub(super) rx: Consumer<Slot>,
    pub(super) tx: Producer<Slot>,
    pub(super) completion: Consumer<Slot>,
    /// Slots of `tx` given to packets of the burst being looked at.
    pub(super) promised: usize,
    pub(super) counters: QueueCounters,
}

pub(super) struct WireQueue {
    pub(super) fill: Consumer<Slot>,
    pub(super) rx: Producer<Slot>,
    pub(super) tx: Consumer<Slot>,
    pub(super) completion: Producer<Slot>,
}
