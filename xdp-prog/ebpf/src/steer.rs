//! `volley_steer`: the steering program.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::btf_maps::{Array, PerCpuArray, XskMap};
use aya_ebpf::helpers::bpf_redirect_map;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use volley_steer::abi::{Control, Counter, Counters, MAX_QUEUES, RuleList, RuleTable, active_half};
use volley_steer::{Env, Protocol, Unbound, Verdict};

use crate::packet::Linear;

#[btf_map(name = "volley_control")]
static CONTROL: Array<Control, 1> = Array::new();

#[btf_map(name = "volley_rules")]
static RULES: Array<RuleTable, 2> = Array::new();

#[btf_map(name = "volley_sockets")]
pub static SOCKETS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

#[btf_map(name = "volley_counters")]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

// The verdict is returned as it is.
const _: () = assert!(
    Verdict::Drop as u32 == XDP_DROP
        && Verdict::Pass as u32 == XDP_PASS
        && Verdict::Redirect as u32 == XDP_REDIRECT
);

/// Maps and the receiving queue.
struct Kernel<'a> {
    ctx: &'a XdpContext,
}

impl Env for Kernel<'_> {
    #[inline(always)]
    fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList> {
        let control = CONTROL.get_ptr(0)?;
        // SAFETY: the pointer comes from the map, whose value outlives the program; the loader changes the word
        // meanwhile, hence volatile.
        let generation = unsafe { (&raw const (*control).generation).read_volatile() };
        RULES.get(active_half(generation))?.rules(protocol, port)
    }

    #[inline(always)]
    fn redirect(&self, unbound: Unbound) -> bool {
        let sockets = (&raw const SOCKETS).cast_mut().cast();
        // SAFETY: a helper, called with a map of the kind it is for. Without a socket it returns the flags, here
        // an XDP action.
        let done = unsafe { bpf_redirect_map(sockets, self.ctx.rx_queue_index().into(), unbound as u64) };
        done as u32 == XDP_REDIRECT
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(counters) = COUNTERS.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own, and a program is not interrupted by another of its kind.
            unsafe { (*counters).values[counter as usize] += 1 };
        }
    }
}

/// Decides where the packet goes.
#[xdp(frags)]
fn volley_steer(ctx: XdpContext) -> u32 {
    volley_steer::steer(&Linear::of(&ctx), &Kernel { ctx: &ctx }) as u32
}
