//! Pools of mbufs.

use crate::eal::Eal;
use crate::error::{Errno, Error};
use crate::mbuf::{Burst, Mbuf, pointers};
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use volley_dpdk_sys as sys;

/// Mbufs that a registered thread keeps for itself: as many as EAL allows (512), so that a worker's whole traffic goes round
/// in its own cache. Fewer would go to the shared ring more often; a cache is a stack of pointers and costs nothing else.
pub const CACHE: u32 = sys::VOLLEY_MEMPOOL_CACHE_MAX;

/// Bytes before a received packet.
pub const HEADROOM: u16 = sys::VOLLEY_MBUF_HEADROOM as u16;

/// A pool. Clones are the same pool; it is freed with the last one, if all mbufs are back by then, and else stays for ever
/// rather than vanish under them.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: NonNull<sys::rte_mempool>,
    total: u32,
    name: String,
    _eal: Eal,
}

// SAFETY: DPDK's pools take any thread's calls; each registered thread has its own cache.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// A pool of `count` mbufs with `room` bytes of buffer each (the headroom included) on a NUMA node (-1: anywhere).
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(eal: &Eal, port: &str, count: u32, room: u16, node: i32) -> Result<Mempool, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("volley_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let c_name = CString::new(name.clone()).unwrap_or_default();
        // A cache takes up to half as much again, and a pool too small for it is refused.
        let cache = CACHE.min(count * 2 / 3);
        // SAFETY: a string that is copied.
        let pool = unsafe { sys::volley_pool_create(c_name.as_ptr(), count, cache, room, node) };
        match NonNull::new(pool) {
            Some(pool) => Ok(Mempool(Arc::new(Inner { pool, total: count, name, _eal: eal.clone() }))),
            None => Err(Error::NoMemory {
                port: port.to_owned(),
                mbufs: count,
                bytes: u32::from(room),
                node,
                errno: Errno::last(),
            }),
        }
    }

    /// Mbufs of the pool.
    pub fn total(&self) -> u32 {
        self.0.total
    }

    /// Mbufs that are nobody's, those in the caches of threads included. Looks at every cache: not for each burst.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is there.
        unsafe { sys::rte_mempool_avail_count(self.pool()) }
    }

    /// Adds `want` mbufs to the burst, or none when there are not that many (or not that much room).
    #[inline]
    pub fn take(&self, burst: &mut Burst, want: usize) -> bool {
        if want == 0 || want > burst.remaining_capacity() {
            return want == 0;
        }
        let len = burst.len();
        // SAFETY: `want` pointers fit behind the first `len`; they are set only on success, and owned by nobody else then.
        unsafe {
            let to = pointers(burst.as_mut_ptr().add(len));
            if sys::volley_alloc_bulk(self.pool(), to, want as u32) != 0 {
                return false;
            }
            burst.set_len(len + want);
        }
        true
    }

    /// True when the mbuf belongs to this pool.
    #[inline(always)]
    pub fn owns(&self, mbuf: &Mbuf) -> bool {
        mbuf.pool() == self.pool()
    }

    /// Takes back all mbufs of the burst in one call.
    ///
    /// # Safety
    /// Each belongs to this pool, is a single segment and is referred to once: received as such, or come apart by
    /// [`Mbuf::split`].
    #[inline]
    pub unsafe fn put(&self, burst: &mut Burst) {
        if burst.is_empty() {
            return;
        }
        // SAFETY: the caller's promise; the tokens are forgotten, as the pool is their owner now.
        unsafe {
            sys::volley_put_bulk(self.pool(), pointers(burst.as_mut_ptr()), burst.len() as u32);
            burst.set_len(0);
        }
    }

    pub(crate) fn pool(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: no clone is left, so nobody takes or puts.
        let free = unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) };
        if free == self.total {
            // SAFETY: every mbuf is back.
            unsafe { sys::rte_mempool_free(self.pool.as_ptr()) };
        } else {
            log::debug!(
                "mempool {}: {} of {} mbufs are not back; their memory stays",
                self.name,
                self.total - free,
                self.total
            );
        }
    }
}
