//! The flood of SYNs at the rate of an in-kernel generator, for tests and benches: `volley-testlab` loads it. An object of its
//! own, so that the engine carries none of it.
//!
//! ```text
//!  BPF_PROG_TEST_RUN, live frames ─► flood_syn: source, port, sequence number drawn, checksums mended ─► XDP_TX ─► wire
//! ```
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// What is the same in every SYN, as ones' complement sums of the 16-bit words as they lie in memory, not complemented, with
/// what is drawn and the checksums taken as zero. `flood/in_kernel.rs` of volley-testlab writes it.
#[repr(C)]
struct Plan {
    /// Of the IPv4 header.
    ip_sum: u32,
    /// Of pseudo-header, TCP header and options.
    tcp_sum: u32,
    /// Source addresses are this, host order, with [`Plan::source_mask`] drawn.
    source: u32,
    source_mask: u32,
}

#[btf_map(name = "flood_plan")]
static PLAN: Array<Plan, 1> = Array::new();

/// SYNs sent by each CPU.
#[btf_map(name = "flood_sent")]
static SENT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Ethernet, IPv4 without options, TCP, as they lie in memory: what changes from packet to packet has a name.
#[repr(C, packed)]
struct Syn {
    ethernet: [u8; 14],
    ip: [u8; 10],
    ip_checksum: u16,
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    tcp: [u8; 8],
    tcp_checksum: u16,
}

/// No source port below it: the well-known ones send no SYNs.
const LEAST_PORT: u16 = 1024;

/// Draws a client that nobody is, and sends its SYN.
#[xdp]
fn flood_syn(ctx: XdpContext) -> u32 {
    let (Some(plan), Some(sent)) = (PLAN.get(0), SENT.get_ptr_mut(0)) else { return XDP_DROP };
    let start = ctx.data();
    if start + size_of::<Syn>() > ctx.data_end() {
        return XDP_DROP;
    }
    let syn = start as *mut Syn;
    // SAFETY: helpers without arguments.
    let (who, sequence) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
    let source = (plan.source | (who & plan.source_mask)).to_be();
    let source_port = ((who >> 16) as u16 | LEAST_PORT).to_be();
    let ip_sum = plan.ip_sum + words(source);
    let tcp_sum = plan.tcp_sum + words(source) + u32::from(source_port) + words(sequence);
    // SAFETY: the comparison above says that all of it lies within the frame, which is the program's own; no field is aligned.
    // The count is this CPU's own.
    unsafe {
        (*syn).source = source;
        (*syn).source_port = source_port;
        (*syn).sequence = sequence;
        (*syn).ip_checksum = checksum(ip_sum);
        (*syn).tcp_checksum = checksum(tcp_sum);
        *sent += 1;
    }
    XDP_TX
}

/// The sum of both 16-bit words.
#[inline(always)]
fn words(both: u32) -> u32 {
    (both & 0xffff) + (both >> 16)
}

/// Folded and complemented (RFC 1071).
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    !(words(words(sum)) as u16)
}

/// The helper needs no licence, but the kernel wants to be told one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached, as in the main object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
