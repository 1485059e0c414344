//! `volley_blast` and `volley_count`: the in-kernel traffic generator.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use volley_steer::blast::{Answers, Blast, Expect, Stamp};
use volley_steer::wire::udp::UdpHeader;
use volley_steer::{Packet, Protocol, headers};

use crate::packet::Linear;

#[btf_map(name = "volley_blasts")]
static BLASTS: PerCpuArray<Blast, 1> = PerCpuArray::new();

#[btf_map(name = "volley_expect")]
static EXPECT: Array<Expect, 1> = Array::new();

#[btf_map(name = "volley_answers")]
static ANSWERS: PerCpuArray<Answers, 1> = PerCpuArray::new();

/// Furthest an IP or UDP header may stand from the start of a template, bytes; keeps the verifier's arithmetic small.
const MAX_UDP_OFFSET: usize = 0xff;

const _: () = assert!(size_of::<Changing>() == 8 + Stamp::OFFSET + Stamp::LEN);

/// UDP header and stamp as they lie in memory, with what changes from packet to packet.
#[repr(C, packed)]
struct Changing {
    source_port: u16,
    destination_port: u16,
    length: u16,
    checksum: u16,
    magic: u16,
    id: u64,
    sent_ns: u64,
}

/// Stamps the frame and sends it.
#[xdp]
fn volley_blast(ctx: XdpContext) -> u32 {
    let Some(blast) = BLASTS.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: the value is this CPU's own, and nothing else runs the generator on this CPU.
    let blast = unsafe { &mut *blast };
    let offset = usize::from(blast.udp_offset) & MAX_UDP_OFFSET;
    let frame = Linear::of(&ctx);
    let ip_length = frame.at::<[u8; 2]>(usize::from(blast.ip_length_offset) & MAX_UDP_OFFSET);
    let ip_sum = frame.at::<[u8; 2]>(usize::from(blast.ip_sum_offset) & MAX_UDP_OFFSET);
    let header = frame.at::<Changing>(offset);
    let (Some(ip_length), Some(ip_sum), Some(header)) = (ip_length, ip_sum, header) else {
        blast.refused += 1;
        return XDP_DROP;
    };
    let flow = u64::from(blast.flow as u16) << Stamp::SEQUENCE_BITS;
    let id = (flow | (blast.sequence & ((1 << Stamp::SEQUENCE_BITS) - 1))).to_le();
    // SAFETY: a helper without arguments.
    let sent_ns = unsafe { bpf_ktime_get_ns() }.to_le();
    let source_port = blast.first_port.wrapping_add(blast.flow as u16).to_be();
    let checksum = checksum(blast.base_sum, source_port, id, sent_ns);
    // SAFETY: `at` checked that each of them lies within the frame, which is the program's own.
    unsafe {
        *ip_length = blast.ip_length.to_ne_bytes();
        *ip_sum = blast.ip_sum.to_ne_bytes();
        (*header).source_port = source_port;
        (*header).length = blast.udp_length;
        (*header).checksum = checksum;
        (*header).id = id;
        (*header).sent_ns = sent_ns;
    }
    blast.sequence = blast.sequence.wrapping_add(blast.stride);
    blast.sent += 1;
    let next = blast.flow + 1;
    blast.flow = if next < blast.flows { next } else { 0 };
    XDP_TX
}

/// The UDP checksum over the constant part and what changed, both as 16-bit words in the order of memory: a
/// ones' complement sum does not mind the order of bytes (RFC 1071), so the result is stored as it is.
#[inline(always)]
fn checksum(base_sum: u32, source_port: u16, id: u64, sent_ns: u64) -> u16 {
    let mut sum = u64::from(base_sum) + u64::from(source_port);
    sum += (id & 0xffff_ffff) + (id >> 32);
    sum += (sent_ns & 0xffff_ffff) + (sent_ns >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    match !(sum as u16) {
        0 => 0xffff, // zero would mean "no checksum" (RFC 768)
        checksum => checksum,
    }
}

/// Counts and drops the answers, passes everything else.
#[xdp(frags)]
fn volley_count(ctx: XdpContext) -> u32 {
    let Some(expect) = EXPECT.get(0) else { return XDP_PASS };
    let Some(answers) = ANSWERS.get_ptr_mut(0) else { return XDP_PASS };
    let packet = Linear::of(&ctx);
    let Ok(datagram) = headers::find(&packet) else { return XDP_PASS };
    if datagram.protocol != Protocol::Udp || datagram.source_port != expect.port || expect.port == 0 {
        return XDP_PASS;
    }
    let Some(header) = packet.load::<UdpHeader>(datagram.offset) else { return XDP_PASS };
    let length = header.length.get();
    // SAFETY: the value is this CPU's own, and a program is not interrupted by another of its kind.
    let answers = unsafe { &mut *answers };
    if length < expect.least_len || length > expect.greatest_len {
        answers.odd_length += 1;
    } else {
        answers.answers += 1;
        answers.udp_bytes += u64::from(length);
    }
    XDP_DROP
}
