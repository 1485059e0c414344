//! `volley_filter`: the yardstick for the cost of steering.
//!
//! The barest program that could stand in for `volley_steer`: IPv4 without options, one UDP port, no rules, no
//! counters. It is not used for anything but comparison.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

use crate::packet::Linear;
use crate::steer::SOCKETS;

/// Bytes 12 and 13 of an IPv4 frame, as they lie in memory.
const IPV4: u16 = 0x0800_u16.to_be();
/// Version 4, five words of header.
const NO_OPTIONS: u8 = 0x45;
const UDP: u8 = 17;
/// Port 7777.
const PORT: u16 = 7777_u16.to_be();

/// Redirects IPv4 UDP to port 7777, passes everything else.
#[xdp(frags)]
fn volley_filter(ctx: XdpContext) -> u32 {
    let packet = Linear::of(&ctx);
    let Some(header) = packet.at::<[u8; 42]>(0) else { return XDP_PASS };
    // SAFETY: 42 bytes from `header` were checked to lie within the packet; 12 and 36 are even and XDP data is
    // at least 2-byte aligned where that matters.
    let (kind, version, protocol, port) = unsafe {
        let header = header.cast::<u8>();
        (*header.add(12).cast::<u16>(), *header.add(14), *header.add(23), *header.add(36).cast::<u16>())
    };
    if kind == IPV4 && version == NO_OPTIONS && protocol == UDP && port == PORT {
        return SOCKETS
            .redirect(ctx.rx_queue_index(), u64::from(XDP_PASS))
            .unwrap_or_else(|otherwise| otherwise);
    }
    XDP_PASS
}
