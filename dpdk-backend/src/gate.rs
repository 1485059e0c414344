//! Keeps the workers out of a device while its driver takes memory away from under it.
//!
//! ```text
//!   worker:     inside = true ─► closed? no  ─► burst ─► inside = false
//!                                    └─ yes ─► inside = false, nothing received or sent
//!   who closes: closed = true ─► waits until nobody is inside ─► … ─► closed = false
//! ```
//!
//! Two sequentially consistent stores and loads (Dekker): either the worker sees that it is closed, or who closes sees it inside. It
//! costs a worker one locked exchange for each burst, and only on devices that need it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One for the queues of a device, or of several.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    passes: Mutex<Vec<Weak<Pass>>>,
}

/// A queue's way through the gate.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Pass {
    inside: AtomicBool,
    gate: Arc<Gate>,
}

impl Gate {
    /// The pass of one queue.
    pub fn pass(self: &Arc<Gate>) -> Arc<Pass> {
        let pass = Arc::new(Pass { inside: AtomicBool::new(false), gate: Arc::clone(self) });
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.retain(|pass| pass.strong_count() > 0);
        passes.push(Arc::downgrade(&pass));
        pass
    }

    /// Closes it; when this returns nobody is inside, and nobody comes in before [`Gate::open`]. A burst takes microseconds.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for pass in passes.iter().filter_map(Weak::upgrade) {
            while pass.inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    /// Opens it.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

impl Pass {
    /// Runs `burst` unless the gate is closed.
    #[inline(always)]
    pub fn through<T: Default>(&self, burst: impl FnOnce() -> T) -> T {
        self.inside.swap(true, Ordering::SeqCst);
        let outcome = match self.gate.closed.load(Ordering::SeqCst) {
            false => burst(),
            true => T::default(),
        };
        self.inside.store(false, Ordering::Release);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn nobody_is_inside_while_it_is_closed() {
        let gate = Arc::new(Gate::default());
        let (there, stop) = (AtomicBool::new(true), AtomicBool::new(false));
        let bursts = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let pass = gate.pass();
                let (there, stop, bursts) = (&there, &stop, &bursts);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        pass.through(|| {
                            assert!(there.load(Ordering::Relaxed), "what was taken away is used");
                            bursts.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
            for _ in 0..200 {
                let seen = bursts.load(Ordering::Relaxed);
                while bursts.load(Ordering::Relaxed) == seen {
                    std::thread::yield_now();
                }
                gate.close();
                there.store(false, Ordering::Relaxed);
                std::hint::spin_loop();
                there.store(true, Ordering::Relaxed);
                gate.open();
            }
            stop.store(true, Ordering::Relaxed);
        });
        gate.close();
        let pass = gate.pass();
        assert_eq!(pass.through(|| 1), 0, "closed");
        gate.open();
        assert_eq!(pass.through(|| 1), 1);
    }
}
