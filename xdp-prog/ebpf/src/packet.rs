//! Reading packets: by direct access, or by helper where the verifier forbids that.

use aya_ebpf::EbpfContext;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::bpf_xdp_load_bytes;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use volley_steer::packet::Packet;
use volley_steer::zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The linear part of a packet.
pub struct Linear {
    data: usize,
    data_end: usize,
}

impl Linear {
    /// The packet a program was called with.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Linear {
        Linear { data: ctx.data(), data_end: ctx.data_end() }
    }

    /// A pointer to a `T` that starts `offset` bytes into the packet, if it ends within.
    ///
    /// Written so that the verifier sees what it asks for: the same pointer, compared once, then used.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.data_end { None } else { Some(start as *mut T) }
    }
}

impl Packet for Linear {
    #[inline(always)]
    fn load<T: FromBytes + Unaligned + KnownLayout + Immutable + Copy>(&self, offset: usize) -> Option<T> {
        let header = self.at::<T>(offset)?;
        // SAFETY: `at` checked that `size_of::<T>()` bytes lie within the packet, which is the program's own
        // while it runs; `T` has no alignment and is valid for all bytes (`Unaligned`, `FromBytes`).
        Some(unsafe { *header })
    }
}

/// Where [`Copied`] headers are put, one per CPU. The stack will not do: the verifier wants it read aligned.
#[btf_map(name = "volley_header")]
static HEADER: PerCpuArray<[u8; MAX_HEADER], 1> = PerCpuArray::new();

/// Bytes of the longest header that is loaded at once; a longer one does not compile.
const MAX_HEADER: usize = 64;

/// A packet read piece by piece through `bpf_xdp_load_bytes` (Linux 5.18).
///
/// For a loader without CAP_PERFMON the verifier refuses to add anything but a constant to a packet pointer, and
/// where the ports are depends on VLAN tags and IP options. Each header costs a helper call instead.
pub struct Copied<'a>(pub &'a XdpContext);

impl Packet for Copied<'_> {
    #[inline(always)]
    fn load<T: FromBytes + Unaligned + KnownLayout + Immutable + Copy>(&self, offset: usize) -> Option<T> {
        const { assert!(size_of::<T>() <= MAX_HEADER) };
        let header = HEADER.get_ptr_mut(0)?;
        let size = size_of::<T>() as u32;
        // SAFETY: the helper writes `size` bytes, for which there is room, or fails. The value is this CPU's own.
        let outcome =
            unsafe { bpf_xdp_load_bytes(self.0.as_ptr().cast(), offset as u32, header.cast(), size) };
        // SAFETY: zero says that all bytes were written; `T` has no alignment and is valid for any bytes.
        if outcome == 0 { Some(unsafe { *header.cast::<T>() }) } else { None }
    }
}
