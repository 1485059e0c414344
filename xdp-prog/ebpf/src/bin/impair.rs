//! The classifier that makes a link bad, for tests and benches: `volley-testlab` loads it. An object of its own, so that the
//! engine carries none of it.
//!
//! ```text
//!                       ┌─ lost: dropped
//!  egress or ingress ───┼─ duplicated: a clone goes on at once, marked
//!  of the interface     ├─ held: redirected to the helper, whose user sends it back later ─► impair_return ─► on, marked
//!                       └─ on
//! ```
//!
//! It touches IPv4 and IPv6 packets only: without ARP there would be no link. A packet that carries [`MARK`] has been here.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_clone_redirect, bpf_get_prandom_u32, bpf_redirect, bpf_skb_load_bytes};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;

/// "Has been here": no mark anybody sets by chance.
const MARK: u32 = 0x1055_1e55;
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// `skb->pkt_type` of a frame that is addressed to its interface.
const PACKET_HOST: u32 = 0;
/// Index of what leaves the interface, and of what comes in, in both maps.
const EGRESS: u32 = 0;
const INGRESS: u32 = 1;

/// What happens to packets of one direction: each a probability times 2³², [`u32::MAX`] means always. `impair.rs` of
/// volley-testlab writes it.
#[repr(C)]
struct Plan {
    loss: u32,
    duplicate: u32,
    hold: u32,
    /// The interface, and the helper that holds packets back.
    interface: u32,
    helper: u32,
}

/// What has happened.
#[repr(C)]
struct Counts {
    seen: u64,
    lost: u64,
    duplicated: u64,
    held: u64,
}

#[btf_map(name = "impair_plans")]
static PLANS: Array<Plan, 2> = Array::new();

#[btf_map(name = "impair_counts")]
static COUNTS: PerCpuArray<Counts, 2> = PerCpuArray::new();

#[classifier]
fn impair_egress(ctx: TcContext) -> i32 {
    impair(&ctx, EGRESS)
}

#[classifier]
fn impair_ingress(ctx: TcContext) -> i32 {
    impair(&ctx, INGRESS)
}

/// A packet comes back from the helper.
#[classifier]
fn impair_return(ctx: TcContext) -> i32 {
    let Some(plan) = PLANS.get(EGRESS) else { return TC_ACT_SHOT };
    ctx.set_mark(MARK);
    // The helper has the interface's MAC, so that packets for it are known by what the kernel made of their destination.
    let flags = if skb(&ctx).pkt_type == PACKET_HOST { u64::from(BPF_F_INGRESS) } else { 0 };
    // SAFETY: a helper that takes numbers.
    unsafe { bpf_redirect(plan.interface, flags) as i32 }
}

#[inline(always)]
fn impair(ctx: &TcContext, direction: u32) -> i32 {
    let (mark, protocol) = (skb(ctx).mark, skb(ctx).protocol);
    if mark == MARK || (protocol != ETH_P_IP && protocol != ETH_P_IPV6) {
        return TC_ACT_OK;
    }
    let (Some(plan), Some(counts)) = (PLANS.get(direction), COUNTS.get_ptr_mut(direction)) else {
        return TC_ACT_OK;
    };
    // SAFETY: the value is this CPU's own. A clone's run inside `bpf_clone_redirect` ends at its mark, before this.
    let counts = unsafe { &mut *counts };
    counts.seen += 1;
    if happens(plan.loss) {
        counts.lost += 1;
        return lose();
    }
    if happens(plan.duplicate) {
        counts.duplicated += 1;
        ctx.set_mark(MARK);
        let flags = if direction == INGRESS { u64::from(BPF_F_INGRESS) } else { 0 };
        // SAFETY: the context is the program's own; nothing read from the packet is used after the call.
        unsafe { bpf_clone_redirect(ctx.skb.skb, plan.interface, flags) };
        ctx.set_mark(mark);
    }
    if happens(plan.hold) && is_unicast(ctx) {
        counts.held += 1;
        // SAFETY: a helper that takes numbers.
        return unsafe { bpf_redirect(plan.helper, 0) as i32 };
    }
    TC_ACT_OK
}

/// Loses a packet so that its sender believes it sent. Of a `TC_ACT_SHOT` on egress the kernel's TCP is told: it keeps the
/// segment as unsent, and what there is to test, loss, does not happen. A redirect to no interface (index 0) is a send that
/// worked (`sch_handle_egress`), and frees the packet (`skb_do_redirect`).
#[inline(always)]
fn lose() -> i32 {
    // SAFETY: a helper that takes numbers.
    unsafe { bpf_redirect(0, 0) as i32 }
}

#[inline(always)]
fn skb(ctx: &TcContext) -> &__sk_buff {
    // SAFETY: the kernel hands every classifier a context, which lives as long as the call.
    unsafe { &*ctx.skb.skb }
}

/// True with a probability of `chance` in 2³².
#[inline(always)]
fn happens(chance: u32) -> bool {
    // SAFETY: a helper without arguments.
    chance != 0 && (chance == u32::MAX || unsafe { bpf_get_prandom_u32() } < chance)
}

/// Whether the frame goes to one station; the way back of others could not be told.
#[inline(always)]
fn is_unicast(ctx: &TcContext) -> bool {
    let mut first = 0u8;
    // SAFETY: one byte is written to one byte on the stack.
    let read = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, (&raw mut first).cast(), 1) };
    read == 0 && first & 1 == 0
}

/// `bpf_clone_redirect` and the others need no licence, but the kernel wants to be told one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached, as in the main object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
