//! The four rings of an AF_XDP socket: single producer, single consumer, in memory shared with the kernel.
//!
//! ```text
//!            consumer            producer          both u32, free running: they wrap at 2^32, the slot is index & mask
//!               ▼                   ▼
//!   ┌────┬────┬────┬────┬────┬────┬────┬────┐
//!   │    │    │ d  │ d  │ d  │ d  │    │    │      filled = producer − consumer (wrapping), free = size − filled
//!   └────┴────┴────┴────┴────┴────┴────┴────┘
//!
//!   ring         producer   consumer   entry
//!   fill         us         kernel     chunk address         chunks to receive into
//!   completion   kernel     us         chunk address         chunks it has sent from
//!   rx           kernel     us         descriptor            packets that arrived
//!   tx           us         kernel     descriptor            packets to send
//! ```
//!
//! Each side keeps a copy of the other's index and reads the shared one only when the copy does not suffice, so the
//! cache line that both cores write moves once per burst. Entries are written before the producer index is
//! stored with release, and read after it was loaded with acquire.
//!
//! The same types work on heap memory (`pair`, for tests), one end playing the kernel: that is how they are tested.
//!
//! Source: Documentation/networking/af_xdp.rst, "Rings"; linux/if_xdp.h.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `struct xdp_desc` of linux/if_xdp.h: a packet, or one part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Descriptor {
    /// UMEM address of the packet's first byte.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// `XDP_PKT_CONTD`, `XDP_TX_METADATA`.
    pub options: u32,
}

/// The packet goes on in the next descriptor.
pub const PKT_CONTD: u32 = libc::XDP_PKT_CONTD;

const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// What a ring lies in. The mapping ends with the last ring that uses it.
#[derive(Debug)]
pub enum RingMemory {
    /// Mapped from a socket.
    Mapped {
        /// Start of the mapping.
        addr: NonNull<u8>,
        /// Bytes.
        len: usize,
    },
    /// Allocated; 16-byte units, so that every entry and index is aligned.
    #[cfg(test)]
    Heap(NonNull<[u128]>),
}

// SAFETY: the memory is reached only through the rings' atomics and entries, whose rules those types keep.
unsafe impl Send for RingMemory {}
// SAFETY: as above; this type itself is never read through.
unsafe impl Sync for RingMemory {}

impl Drop for RingMemory {
    fn drop(&mut self) {
        match *self {
            // SAFETY: the mapping is ours, of this length, and the last ring that pointed into it is gone.
            RingMemory::Mapped { addr, len } => unsafe {
                libc::munmap(addr.as_ptr().cast(), len);
            },
            #[cfg(test)]
            // SAFETY: it came from `Box::into_raw` in `pair`, and the last ring that pointed into it is gone.
            RingMemory::Heap(memory) => drop(unsafe { Box::from_raw(memory.as_ptr()) }),
        }
    }
}

/// Where the parts of a ring are, in bytes from the start of its memory.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Producer index.
    pub producer: usize,
    /// Consumer index.
    pub consumer: usize,
    /// Flags word.
    pub flags: usize,
    /// First entry.
    pub entries: usize,
}

#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    _memory: Arc<RingMemory>,
}

// SAFETY: one end of a ring is used by one thread at a time (`&mut self` on every access to entries); the other end is
// another process's or object's, synchronised by the two indices.
unsafe impl<T: Copy + Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// # Safety
    /// `base` points at the start of `memory`, which holds a ring of `size` entries laid out as `layout` says.
    unsafe fn new(memory: Arc<RingMemory>, base: NonNull<u8>, layout: Layout, size: u32) -> Shared<T> {
        assert!(size.is_power_of_two(), "ring size {size} is not a power of two");
        // SAFETY: the caller vouches for the layout; the offsets stay inside the memory.
        unsafe {
            Shared {
                producer: base.add(layout.producer).cast(),
                consumer: base.add(layout.consumer).cast(),
                flags: base.add(layout.flags).cast(),
                entries: base.add(layout.entries).cast(),
                mask: size - 1,
                _memory: memory,
            }
        }
    }

    #[inline(always)]
    fn load(&self, index: NonNull<AtomicU32>) -> u32 {
        // SAFETY: the index lies in `_memory`, which lives as long as we do.
        unsafe { index.as_ref() }.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store(&self, index: NonNull<AtomicU32>, value: u32) {
        // SAFETY: as in `load`.
        unsafe { index.as_ref() }.store(value, Ordering::Release);
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        // SAFETY: as in `load`. Relaxed: the flag is a hint that the kernel checks again itself.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below the ring's size.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

/// The producing end of a ring.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Shared<T>,
    /// Next slot to write; published up to somewhere at or before it.
    next: u32,
    /// The consumer's index when last looked at.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// Takes the producing end of the ring in `memory`.
    ///
    /// # Safety
    /// `base` is the start of `memory`, which holds a ring of `size` entries of `T` (a power of two) laid out as `layout`
    /// says; nobody else uses its producing end.
    pub unsafe fn new(
        memory: Arc<RingMemory>,
        base: NonNull<u8>,
        layout: Layout,
        size: u32,
    ) -> Producer<T> {
        // SAFETY: passed on to our caller.
        let shared = unsafe { Shared::new(memory, base, layout, size) };
        let (next, consumed) = (shared.load(shared.producer), shared.load(shared.consumer));
        Producer { shared, next, consumed }
    }

    /// Entries the ring has.
    #[inline(always)]
    pub fn size(&self) -> u32 {
        self.shared.mask + 1
    }

    /// Slots that may be written. Looks at the consumer's index only when fewer than `want` are known to be free.
    #[inline(always)]
    pub fn room(&mut self, want: u32) -> u32 {
        let room = self.size() - self.next.wrapping_sub(self.consumed);
        if room >= want {
            return room;
        }
        self.consumed = self.shared.load(self.shared.consumer);
        self.size() - self.next.wrapping_sub(self.consumed)
    }

    /// Writes the next slot; the consumer sees it after [`Producer::publish`]. The caller has made sure of [`Producer::room`].
    #[inline(always)]
    pub fn push(&mut self, value: T) {
        debug_assert!(self.next.wrapping_sub(self.consumed) < self.size(), "push into a full ring");
        // SAFETY: the slot lies in the ring; the consumer does not read it before it is published.
        unsafe { self.shared.entry(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows everything pushed to the consumer.
    #[inline(always)]
    pub fn publish(&mut self) {
        self.shared.store(self.shared.producer, self.next);
    }

    /// Entries that the consumer has not taken yet, read afresh.
    #[inline(always)]
    pub fn pending(&mut self) -> u32 {
        self.consumed = self.shared.load(self.shared.consumer);
        self.next.wrapping_sub(self.consumed)
    }

    /// The consumer wants a system call before it looks at the ring again.
    #[inline(always)]
    pub fn needs_wakeup(&self) -> bool {
        self.shared.flags() & NEED_WAKEUP != 0
    }
}

/// The consuming end of a ring.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Shared<T>,
    /// Next slot to read; released up to somewhere at or before it.
    next: u32,
    /// The producer's index when last looked at.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// Takes the consuming end of the ring in `memory`.
    ///
    /// # Safety
    /// As [`Producer::new`], for the consuming end; every entry the producer publishes is a valid `T`.
    pub unsafe fn new(
        memory: Arc<RingMemory>,
        base: NonNull<u8>,
        layout: Layout,
        size: u32,
    ) -> Consumer<T> {
        // SAFETY: passed on to our caller.
        let shared = unsafe { Shared::new(memory, base, layout, size) };
        let (next, produced) = (shared.load(shared.consumer), shared.load(shared.producer));
        Consumer { shared, next, produced }
    }

    /// Entries the ring has.
    #[inline(always)]
    pub fn size(&self) -> u32 {
        self.shared.mask + 1
    }

    /// Entries that may be read. Looks at the producer's index only when fewer than `want` are known to be there.
    #[inline(always)]
    pub fn ready(&mut self, want: u32) -> u32 {
        let ready = self.produced.wrapping_sub(self.next);
        if ready >= want {
            return ready;
        }
        self.produced = self.shared.load(self.shared.producer);
        self.produced.wrapping_sub(self.next)
    }

    /// The entry `ahead` places after the next one. The caller has made sure of [`Consumer::ready`].
    #[inline(always)]
    pub fn peek(&self, ahead: u32) -> T {
        debug_assert!(ahead < self.produced.wrapping_sub(self.next), "peek into an empty slot");
        // SAFETY: the slot lies in the ring and was published; the producer does not write it before it is released.
        unsafe { self.shared.entry(self.next.wrapping_add(ahead)).read() }
    }

    /// Takes `count` entries and gives their slots back to the producer.
    #[inline(always)]
    pub fn release(&mut self, count: u32) {
        debug_assert!(count <= self.produced.wrapping_sub(self.next), "more released than was there");
        self.next = self.next.wrapping_add(count);
        self.shared.store(self.shared.consumer, self.next);
    }
}

/// Both ends of a ring on the heap, its indices starting at `start`.
#[cfg(test)]
pub fn pair<T: Copy>(size: u32, start: u32) -> (Producer<T>, Consumer<T>) {
    // One 64-byte line for each index, as the kernel lays them out.
    let layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };
    let bytes = layout.entries + size as usize * size_of::<T>();
    let memory = Box::into_raw(vec![0u128; bytes.div_ceil(16)].into_boxed_slice());
    let memory = NonNull::new(memory).expect("a box is never null");
    let base = memory.cast::<u8>();
    let shared = Arc::new(RingMemory::Heap(memory));
    // SAFETY: both index words lie in the allocation, which nobody else knows yet.
    unsafe {
        base.add(layout.producer).cast::<u32>().write(start);
        base.add(layout.consumer).cast::<u32>().write(start);
    }
    // SAFETY: the allocation holds the layout and `size` entries; each end is taken once.
    unsafe {
        (Producer::new(Arc::clone(&shared), base, layout, size), Consumer::new(shared, base, layout, size))
    }
}

#[cfg(test)]
impl<T: Copy> Consumer<T> {
    /// Plays the kernel: asks for wakeups, or stops asking.
    pub fn ask_for_wakeup(&self, ask: bool) {
        let value = if ask { NEED_WAKEUP } else { 0 };
        self.shared.store(self.shared.flags, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts that put the wrap of the index inside, at and far from the test.
    const STARTS: [u32; 5] = [0, 5, u32::MAX - 11, u32::MAX - 7, u32::MAX];

    #[test]
    fn a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() {
        for start in STARTS {
            let (mut tx, mut rx) = pair::<u64>(8, start);
            assert_eq!((tx.room(1), rx.ready(1)), (8, 0));
            (0..8).for_each(|n| tx.push(n));
            assert_eq!((tx.room(1), rx.ready(1)), (0, 0), "nothing is seen before it is published");
            tx.publish();
            assert_eq!((tx.room(1), rx.ready(1), tx.pending()), (0, 8, 8));
            assert_eq!((0..8).map(|n| rx.peek(n)).collect::<Vec<_>>(), (0..8).collect::<Vec<u64>>());
            rx.release(3);
            assert_eq!((tx.room(1), rx.ready(8), tx.pending()), (3, 5, 5));
            rx.release(5);
            assert_eq!((tx.room(8), rx.ready(1), tx.pending()), (8, 0, 0));
        }
    }

    #[test]
    fn indices_wrap_at_u32_max_in_order_and_without_loss() {
        for start in STARTS {
            let (mut tx, mut rx) = pair::<Descriptor>(8, start);
            let (mut sent, mut seen) = (0u64, 0u64);
            for round in 0..200u64 {
                let push = (round % 5 + 1).min(u64::from(tx.room(8)));
                for _ in 0..push {
                    tx.push(Descriptor { addr: sent, len: sent as u32, options: 0 });
                    sent += 1;
                }
                tx.publish();
                let take = rx.ready(8).min(round as u32 % 7);
                for n in 0..take {
                    assert_eq!(rx.peek(n).addr, seen, "start {start:#x}");
                    seen += 1;
                }
                rx.release(take);
                assert_eq!(u64::from(tx.pending()), sent - seen);
            }
            assert!(seen > 300, "the test moved something");
        }
    }

    #[test]
    fn the_other_side_is_looked_at_only_when_the_copy_does_not_suffice() {
        let (mut tx, mut rx) = pair::<u64>(8, u32::MAX - 2);
        (0..4).for_each(|n| tx.push(n));
        tx.publish();
        assert_eq!(rx.ready(1), 4);
        (4..8).for_each(|n| tx.push(n));
        tx.publish();
        assert_eq!(rx.ready(4), 4, "four are known, the shared index is not read");
        assert_eq!(rx.ready(5), 8);
    }

    #[test]
    fn two_threads_pass_a_million_entries() {
        let (mut tx, mut rx) = pair::<u64>(64, u32::MAX - 500_000);
        let producer = std::thread::spawn(move || {
            let mut next = 0u64;
            while next < 1_000_000 {
                let room = u64::from(tx.room(64).min(17));
                (next..next + room).for_each(|n| tx.push(n));
                next += room;
                tx.publish();
            }
        });
        let mut expect = 0u64;
        while expect < 1_000_000 {
            let ready = rx.ready(1);
            for n in 0..ready {
                assert_eq!(rx.peek(n), expect);
                expect += 1;
            }
            rx.release(ready);
        }
        producer.join().unwrap();
    }

    #[test]
    fn the_wakeup_flag_is_read() {
        let (tx, rx) = pair::<u64>(8, 0);
        assert!(!tx.needs_wakeup());
        rx.ask_for_wakeup(true);
        assert!(tx.needs_wakeup());
    }
}
