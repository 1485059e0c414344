//! Mbufs: a buffer of a pool with a note of the packet in it, as a token.
//!
//! ```text
//!  rte_mbuf │ private area │ headroom │ packet ……… │ tailroom
//!           │ our number   └─ data_off ┘ data_len ┘           ◄── buf_len in all
//! ```

use arrayvec::ArrayVec;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use volley_dpdk_sys as sys;

/// Most mbufs that move in one call.
pub const BURST: usize = 64;

/// Mbufs on their way, at most [`BURST`].
pub type Burst = ArrayVec<Mbuf, BURST>;

/// An mbuf as DPDK knows it, behind a pointer.
pub type Raw = sys::rte_mbuf;

/// Exclusive ownership of one mbuf, and of the segments chained to it. Given back to its pool when dropped; in bulk by
/// [`crate::Mempool::put`].
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: the token is the only owner of its mbuf, wherever it is.
unsafe impl Send for Mbuf {}

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $set:ident, $type:ty, $offset:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $get(&self) -> $type {
            // SAFETY: the shim's compiler put the field of that width there, and the token owns the mbuf.
            unsafe { self.at::<$type>(sys::$offset as usize).read() }
        }

        /// Sets it.
        #[inline(always)]
        pub fn $set(&mut self, value: $type) {
            // SAFETY: as above.
            unsafe { self.at::<$type>(sys::$offset as usize).write(value) };
        }
    };
}

impl Mbuf {
    /// The token of an mbuf.
    ///
    /// # Safety
    /// The mbuf came from [`Mbuf::into_raw`], or from DPDK, and has no other owner.
    #[inline(always)]
    pub unsafe fn from_raw(mbuf: NonNull<sys::rte_mbuf>) -> Mbuf {
        Mbuf(mbuf)
    }

    /// The mbuf; the caller is its owner now.
    #[inline(always)]
    pub fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    fn at<T>(&self, offset: usize) -> *mut T {
        self.0.as_ptr().wrapping_byte_add(offset).cast()
    }

    field!(
        /// Where the packet begins in the buffer, in bytes.
        data_off, set_data_off, u16, VOLLEY_MBUF_DATA_OFF
    );
    field!(
        /// Bytes of the packet in this segment.
        data_len, set_data_len, u16, VOLLEY_MBUF_DATA_LEN
    );
    field!(
        /// Bytes of the packet in all segments.
        packet_len, set_packet_len, u32, VOLLEY_MBUF_PKT_LEN
    );
    field!(
        /// Segments of the packet.
        segments, set_segments, u16, VOLLEY_MBUF_NB_SEGS
    );
    field!(
        /// Offload flags, see [`rx`] and [`tx`].
        flags, set_flags, u64, VOLLEY_MBUF_OL_FLAGS
    );
    field!(
        /// The VLAN tag that was taken off, or is to be put in.
        vlan_tci, set_vlan_tci, u16, VOLLEY_MBUF_VLAN_TCI
    );
    field!(
        /// Lengths of the headers for transmit offloads, see [`tx_lengths`].
        lengths, set_lengths, u64, VOLLEY_MBUF_TX_OFFLOAD
    );

    /// What the driver knows of the packet's headers.
    #[inline(always)]
    pub fn packet_type(&self) -> u32 {
        // SAFETY: as in `field!`.
        unsafe { self.at::<u32>(sys::VOLLEY_MBUF_PACKET_TYPE as usize).read() }
    }

    /// True when the driver has seen an IPv6 header.
    #[inline(always)]
    pub fn is_ipv6(&self) -> bool {
        let l3 = self.packet_type() & sys::VOLLEY_PTYPE_L3_MASK;
        l3 == sys::VOLLEY_PTYPE_L3_IPV6
            || l3 == sys::VOLLEY_PTYPE_L3_IPV6_EXT
            || l3 == sys::VOLLEY_PTYPE_L3_IPV6_EXT_UNKNOWN
    }

    /// First byte of the buffer.
    #[inline(always)]
    pub fn buffer(&self) -> NonNull<u8> {
        // SAFETY: as in `field!`; an mbuf's buffer is never null.
        unsafe { NonNull::new_unchecked(self.at::<*mut u8>(sys::VOLLEY_MBUF_BUF_ADDR as usize).read()) }
    }

    /// Bytes of the buffer.
    #[inline(always)]
    pub fn capacity(&self) -> u16 {
        // SAFETY: as in `field!`.
        unsafe { self.at::<u16>(sys::VOLLEY_MBUF_BUF_LEN as usize).read() }
    }

    /// The pool it belongs to.
    #[inline(always)]
    pub(crate) fn pool(&self) -> *mut sys::rte_mempool {
        // SAFETY: as in `field!`.
        unsafe { self.at::<*mut sys::rte_mempool>(sys::VOLLEY_MBUF_POOL as usize).read() }
    }

    /// Its number among those of its pool, which is one of [`crate::Mempool::new`]'s making.
    pub fn index(&self) -> u32 {
        // SAFETY: the token owns the mbuf; the pool's making wrote the number.
        unsafe { sys::volley_mbuf_index(self.0.as_ptr()) }
    }

    /// A single segment of `len` bytes at `offset`, referred to once, with `flags`: what a driver takes. Four fields that
    /// lie next to each other are written as one word.
    #[inline(always)]
    pub fn prepare(&mut self, offset: u16, len: u16, flags: u64) {
        const { assert!(cfg!(target_endian = "little")) };
        let word = u64::from(offset) | 1 << 16 | 1 << 32;
        // SAFETY: data_off, refcnt, nb_segs and port are 8 aligned bytes in this order (asserted in the shim); `port` is for
        // received packets only.
        unsafe { self.at::<u64>(sys::VOLLEY_MBUF_DATA_OFF as usize).write(word) };
        self.set_flags(flags);
        self.set_packet_len(u32::from(len));
        self.set_data_len(len);
    }

    /// True for a single segment, referred to once, with its own buffer.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        // SAFETY: as in `prepare`.
        let word = unsafe { self.at::<u64>(sys::VOLLEY_MBUF_DATA_OFF as usize).read() };
        (word >> 16) as u32 == 0x0001_0001 && self.flags() & sys::VOLLEY_F_ELSEWHERE == 0
    }

    /// True for a segment that is referred to once and has its own buffer.
    pub fn is_own(&self) -> bool {
        // SAFETY: as in `field!`.
        let references = unsafe { self.at::<u16>(sys::VOLLEY_MBUF_REFCNT as usize).read() };
        references == 1 && self.flags() & sys::VOLLEY_F_ELSEWHERE == 0
    }

    /// Calls for this segment and all behind it.
    pub fn each_segment(&self, mut look: impl FnMut(&Mbuf)) {
        let mut at = Some(self.0);
        while let Some(mbuf) = at {
            let segment = ManuallyDrop::new(Mbuf(mbuf));
            look(&segment);
            // SAFETY: as in `field!`; the segments behind are owned through this token.
            at = NonNull::new(unsafe {
                segment.at::<*mut sys::rte_mbuf>(sys::VOLLEY_MBUF_NEXT as usize).read()
            });
        }
    }

    /// Asks for the packet's first cache line.
    #[inline(always)]
    pub fn prefetch_packet(&self) {
        let first = self.buffer().as_ptr().wrapping_add(self.data_off() as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint that reads nothing and never faults.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(first.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = first;
    }

    /// The packet's bytes in this segment, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (offset, len) = (self.data_off() as usize, self.data_len() as usize);
        // SAFETY: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.buffer().as_ptr().add(offset), len) }
    }

    /// The packet's bytes in this segment.
    pub fn bytes(&self) -> &[u8] {
        let (offset, len) = (self.data_off() as usize, self.data_len() as usize);
        // SAFETY: DPDK keeps the packet inside the buffer; the token owns it.
        unsafe { std::slice::from_raw_parts(self.buffer().as_ptr().add(offset), len) }
    }

    /// Writes a packet after the headroom. False, and nothing written, when it does not fit.
    #[must_use]
    pub fn write(&mut self, packet: &[u8]) -> bool {
        let headroom = sys::VOLLEY_MBUF_HEADROOM as u16;
        let fits = packet.len() <= usize::from(self.capacity().saturating_sub(headroom));
        if fits {
            self.prepare(headroom, packet.len() as u16, 0);
            // SAFETY: the buffer is ours and has been seen to be long enough.
            unsafe {
                let to = self.buffer().as_ptr().add(usize::from(headroom));
                std::ptr::copy_nonoverlapping(packet.as_ptr(), to, packet.len());
            }
        }
        fits
    }

    /// Takes the rest of the chain off, which becomes a token of its own.
    pub fn split(&mut self) -> Option<Mbuf> {
        // SAFETY: as in `field!`; what it points to was owned through this token.
        unsafe {
            let place = self.at::<*mut sys::rte_mbuf>(sys::VOLLEY_MBUF_NEXT as usize);
            let next = NonNull::new(place.read())?;
            place.write(std::ptr::null_mut());
            self.set_segments(1);
            Some(Mbuf(next))
        }
    }

    /// Hangs `next` behind this segment, which is the last of its packet. The first segment's counts are the caller's.
    pub fn link(&mut self, next: Mbuf) {
        // SAFETY: as in `field!`.
        unsafe {
            self.at::<*mut sys::rte_mbuf>(sys::VOLLEY_MBUF_NEXT as usize).write(next.into_raw().as_ptr())
        };
    }
}

/// What a look at a burst has found, see [`glance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Each is a single segment, referred to once, with its own buffer, and of the pool.
    pub plain: bool,
    /// The offload flags that any of them has.
    pub flags: u64,
}

/// Looks at a whole burst at once: [`Mbuf::is_plain`] and [`crate::Mempool::owns`] of each, without a branch for each.
#[inline(always)]
pub fn glance(mbufs: &[Mbuf], pool: &crate::Mempool) -> Glance {
    let (mut odd, mut flags) = (0, 0);
    for mbuf in mbufs {
        // SAFETY: as in `prepare`.
        let word = unsafe { mbuf.at::<u64>(sys::VOLLEY_MBUF_DATA_OFF as usize).read() };
        odd |= (word >> 16) as u32 ^ 0x0001_0001;
        odd |= u32::from(!pool.owns(mbuf));
        flags |= mbuf.flags();
    }
    Glance { plain: odd == 0 && flags & sys::VOLLEY_F_ELSEWHERE == 0, flags }
}

impl Drop for Mbuf {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: the token owns the mbuf and its chain.
        unsafe { sys::volley_free_chain(self.0.as_ptr()) };
    }
}

/// Where drivers note when a packet came.
#[derive(Clone, Copy, Debug)]
pub struct Timestamps {
    offset: usize,
    flag: u64,
}

impl Timestamps {
    /// Reserves the place in every mbuf; the same one each time.
    ///
    /// # Errors
    /// When other users of mbufs have left no room.
    pub fn reserve(_: &crate::Eal) -> Result<Timestamps, crate::Error> {
        let (mut offset, mut flag) = (0, 0);
        // SAFETY: two places to write, and EAL runs.
        match unsafe { sys::volley_timestamp_register(&mut offset, &mut flag) } {
            0 => Ok(Timestamps { offset: offset as usize, flag }),
            code => Err(crate::Error::of("mbufs", "reserving a place for timestamps", code)),
        }
    }

    /// When the packet came, in the device's own units; `None` when the device did not say.
    #[inline]
    pub fn of(&self, mbuf: &Mbuf) -> Option<u64> {
        // SAFETY: EAL has given that place in every mbuf to timestamps of this width.
        (mbuf.flags() & self.flag != 0).then(|| unsafe { mbuf.at::<u64>(self.offset).read_unaligned() })
    }
}

/// The pointers of a burst, as DPDK wants them.
#[inline(always)]
pub(crate) fn pointers(mbufs: *mut Mbuf) -> *mut *mut sys::rte_mbuf {
    // `Mbuf` is a transparent non-null pointer.
    mbufs.cast()
}

/// `l2` and `l3` header bytes for [`Mbuf::set_lengths`].
#[inline(always)]
pub fn tx_lengths(l2: u64, l3: u64) -> u64 {
    l2 | l3 << sys::VOLLEY_L2_LEN_BITS
}

/// Flags of received packets.
pub mod rx {
    use volley_dpdk_sys as sys;
    /// The tag is in [`super::Mbuf::vlan_tci`] and no longer in the packet.
    pub const VLAN_STRIPPED: u64 = sys::VOLLEY_F_RX_VLAN_STRIPPED;
    /// Which bits say how the IPv4 header checksum is.
    pub const IP_MASK: u64 = sys::VOLLEY_F_RX_IP_MASK;
    /// It is right.
    pub const IP_GOOD: u64 = sys::VOLLEY_F_RX_IP_GOOD;
    /// Which bits say how the UDP or TCP checksum is.
    pub const L4_MASK: u64 = sys::VOLLEY_F_RX_L4_MASK;
    /// It is right.
    pub const L4_GOOD: u64 = sys::VOLLEY_F_RX_L4_GOOD;
    /// It is not in the packet, but the data are known to be whole (a virtual machine's neighbour sent them).
    pub const L4_NONE: u64 = sys::VOLLEY_F_RX_L4_NONE;
}

/// Flags of packets to send.
pub mod tx {
    use volley_dpdk_sys as sys;
    /// Put [`super::Mbuf::vlan_tci`] in.
    pub const VLAN: u64 = sys::VOLLEY_F_TX_VLAN;
    /// Compute the UDP checksum.
    pub const UDP: u64 = sys::VOLLEY_F_TX_UDP;
    /// Compute the TCP checksum.
    pub const TCP: u64 = sys::VOLLEY_F_TX_TCP;
    /// Compute the IPv4 header checksum.
    pub const IP: u64 = sys::VOLLEY_F_TX_IP;
    /// The packet is IPv4.
    pub const IPV4: u64 = sys::VOLLEY_F_TX_IPV4;
    /// The packet is IPv6.
    pub const IPV6: u64 = sys::VOLLEY_F_TX_IPV6;
}
