//! The XDP programs, as the kernel runs them.
//!
//! What is decided is in `volley-steer`; here is only how: packets read through direct packet access, rules
//! and counters in maps, sockets behind `bpf_redirect_map`.
//!
//! | program | section | what |
//! | --- | --- | --- |
//! | [`steer`] | `xdp.frags` | steers game traffic to AF_XDP sockets; twice: with and without direct packet access |
//! | [`blast`] | `xdp` | generator: run with live frames, stamps and sends each |
//! | [`count`] | `xdp.frags` | generator: counts answers and drops them |
//! | [`filter`] | `xdp.frags` | yardstick: what the barest useful port filter costs |
//!
//! Headers are read from the linear part of a packet only; drivers put at least the headers there.
//! Maps are BTF maps, which both aya and libbpf load.
#![no_std]
#![no_main]

mod blast;
mod filter;
mod packet;
mod steer;

/// Helpers such as `bpf_ktime_get_ns` and `bpf_redirect_map` ask for a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: no program here indexes or divides by what it has not checked. Without `core`'s formatting
/// the verifier would refuse any call that could get here.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
