//! Counts what a piece of code allocates and frees, for the tests that say the hot path does neither.
//!
//! A test program that calls [`allocations`] has the counting allocator as its global one: there is nothing else to install, and
//! so nothing that could be forgotten. It passes every call on to the system's allocator. Each thread counts for itself, so that
//! tests which run side by side do not see each other.
//!
//! ```
//! use volley_count_alloc::allocations;
//!
//! let mut numbers = Vec::with_capacity(2);
//! assert_eq!(allocations(|| numbers.extend([1, 2])), 0);
//! assert_eq!(allocations(|| numbers.push(3)), 1);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    COUNT.set(COUNT.get() + 1);
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a thread-local number without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often the calling thread allocates, frees or resizes memory during `work`; each counts as one.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = so_far();
    work();
    so_far() - before
}

/// How often the calling thread has allocated, freed or resized memory since it began: for work that is no one closure.
pub fn so_far() -> u64 {
    COUNT.get()
}

#[cfg(test)]
mod tests {
    use super::allocations;
    use std::hint::black_box;

    #[test]
    fn allocating_freeing_and_resizing_count() {
        let mut memory = Vec::new();
        assert_eq!(allocations(|| memory = black_box(vec![1u8; 100])), 1);
        assert_eq!(allocations(|| memory.reserve_exact(1000)), 1);
        assert_eq!(allocations(|| drop(black_box(memory))), 1);
        assert_eq!(allocations(|| drop(black_box(vec![0u8; 100]))), 2);
        assert_eq!(allocations(|| _ = black_box([0u8; 100])), 0);
    }

    #[test]
    fn each_thread_counts_for_itself() {
        let inner = std::thread::spawn(|| allocations(|| drop(black_box(vec![1u8; 100]))));
        assert_eq!(inner.join().unwrap(), 2);
        let busy = std::thread::spawn(|| (0..1000).for_each(|n| drop(black_box(vec![1u8; n + 1]))));
        // Spawning and joining allocate, so only the waiting is counted.
        let count = allocations(|| {
            while !busy.is_finished() {
                std::thread::yield_now();
            }
        });
        assert_eq!(count, 0);
        busy.join().unwrap();
    }
}
