//! `volley_steer`: the steering program; and `volley_guarded`, the same for a loader without CAP_PERFMON.

use core::cell::Cell;
use core::mem::offset_of;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::btf_maps::{Array, PerCpuArray, XskMap};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect_map};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use volley_steer::abi::{
    COUNTER_SLOTS, Counter, Counters, MAX_BUCKETS, MAX_LISTS, MAX_QUEUES, RuleList, RuleTable, Rules, active_half,
};
use volley_steer::{Env, Protocol, Unbound, Verdict};

use crate::packet::{Copied, Linear};

// One entry at a constant key. A global variable would need no lookup at all, but loaders write its initial value
// into it, also when they go on with a pinned map: an upgrade would lose the rules.
#[btf_map(name = "volley_control")]
static RULES: Array<Rules, 1, MMAPABLE> = Array::new();

#[btf_map(name = "volley_sockets")]
pub static SOCKETS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

#[btf_map(name = "volley_counters")]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[btf_map(name = "volley_buckets")]
static BUCKETS: PerCpuArray<u64, { MAX_BUCKETS as usize }> = PerCpuArray::new();

/// `BPF_F_MMAPABLE`: the loader writes rules in place.
const MMAPABLE: usize = 1 << 10;

// The verdict is returned as it is.
const _: () = assert!(
    Verdict::Drop as u32 == XDP_DROP
        && Verdict::Pass as u32 == XDP_PASS
        && Verdict::Redirect as u32 == XDP_REDIRECT
);

/// Maps and the receiving queue.
///
/// A loader without CAP_PERFMON gets its programs guarded against Spectre, and the guard of a pointer addition
/// is one for all ways that lead to it: a constant that differs from way to way is refused ("tried to add from
/// different maps, paths or scalars"). `GUARDED` hides such constants from the verifier.
struct Kernel<'a, const GUARDED: bool> {
    ctx: &'a XdpContext,
}

impl<const GUARDED: bool> Env for Kernel<'_, GUARDED> {
    #[inline(always)]
    fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList> {
        let rules = RULES.get_ptr(0)?;
        // SAFETY: the pointer comes from the map, whose value outlives the program; the loader changes the word
        // meanwhile, hence volatile.
        let generation = unsafe { (&raw const (*rules).control.generation).read_volatile() };
        // SAFETY: likewise.
        let table = unsafe { &(&(*rules).halves)[active_half(generation) as usize] };
        if !GUARDED {
            return table.rules(protocol, port);
        }
        let index = (forgotten(protocol as u8) & 1) << 16 | usize::from(port);
        // SAFETY: the index is below 2 * 65536, and `tcp` lies directly behind `udp`, as is asserted below.
        let list = unsafe { (&raw const *table).cast::<u16>().add(index).read() };
        if list == 0 { None } else { Some(&table.lists[usize::from(list) & (MAX_LISTS - 1)]) }
    }

    #[inline(always)]
    fn redirect(&self, unbound: Unbound) -> Verdict {
        let sockets = (&raw const SOCKETS).cast_mut().cast();
        // SAFETY: a helper, called with a map of the kind it is for. Without a socket it returns the flags, here
        // an XDP action.
        let done = unsafe { bpf_redirect_map(sockets, self.ctx.rx_queue_index().into(), unbound as u64) };
        if done == i64::from(XDP_REDIRECT) {
            return Verdict::Redirect;
        }
        // Else the compiler prepares all three outcomes before it looks at this one.
        core::hint::cold_path();
        if unbound == Unbound::Pass { Verdict::Pass } else { Verdict::Drop }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn bucket(&self, number: u32) -> Option<&Cell<u64>> {
        let word = BUCKETS.get_ptr_mut(number)?;
        // SAFETY: the value is this CPU's own, and a program is not interrupted by another of its kind; a `Cell` is what it holds.
        Some(unsafe { &*word.cast::<Cell<u64>>() })
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        let slot = match GUARDED {
            true => forgotten(counter as u8) & (COUNTER_SLOTS - 1),
            false => counter as usize,
        };
        if let Some(counters) = COUNTERS.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own, and a program is not interrupted by another of its kind.
            unsafe { (*counters).values[slot] += 1 };
        }
    }
}

/// The same number, of which the verifier no longer knows what it is.
#[inline(always)]
fn forgotten(number: u8) -> usize {
    #[repr(align(8))]
    struct Cell([u8; 8]);
    let mut cell = Cell([0; 8]);
    let byte = &raw mut cell.0[1];
    // The verifier remembers what is stored at the start of a stack slot, and zeroes anywhere; hence the second
    // byte, and one more than the number.
    // SAFETY: the pointer is to a live local; volatile, so that the bytes do go to the stack and back.
    unsafe {
        byte.write_volatile(number + 1);
        usize::from(byte.read_volatile()) - 1
    }
}

const _: () = assert!(COUNTER_SLOTS.is_power_of_two());
const _: () = assert!(Protocol::Udp as u8 == 0 && Protocol::Tcp as u8 == 1);
const _: () =
    assert!(offset_of!(RuleTable, udp) == 0 && offset_of!(RuleTable, tcp) == 65536 * size_of::<u16>());

/// Decides where the packet goes.
#[xdp(frags)]
fn volley_steer(ctx: XdpContext) -> u32 {
    volley_steer::steer(&Linear::of(&ctx), &Kernel::<false> { ctx: &ctx }) as u32
}

/// The same decision where packets may only be read by helper, which is slower.
#[xdp(frags)]
fn volley_guarded(ctx: XdpContext) -> u32 {
    volley_steer::steer(&Copied(&ctx), &Kernel::<true> { ctx: &ctx }) as u32
}
