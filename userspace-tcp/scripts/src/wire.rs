//! The peer's half of the wire: segments to bytes and bytes to segments. It shares no code with the stack.

use crate::flow::Flow;
use crate::segment::{Data, Opt, Segment};
use std::net::IpAddr;
use volley_tcp::SegmentOut;
use volley_wire::checksum::Sum;

const SYN: u8 = 2;

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn checksum(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> u16 {
    Sum::ZERO
        .pseudo_header(&octets(source), &octets(destination), 6, bytes.len() as u32)
        .bytes(bytes)
        .complement()
}

/// The peer's segment as it goes over the wire.
pub(crate) fn encode(segment: &Segment, flow: &Flow) -> Vec<u8> {
    let mut options = Vec::new();
    for option in segment.options.iter().flatten() {
        put(option, flow, &mut options);
    }
    while options.len() % 4 != 0 {
        options.push(0);
    }
    let (flags, seq) = (segment.flags.unwrap_or(0), segment.seq.unwrap_or(0));
    let data = segment.data.clone().unwrap_or(Data::Pattern(0));
    let mut bytes = Vec::with_capacity(60 + data.len() as usize);
    bytes.extend(flow.remote.port().to_be_bytes());
    bytes.extend(flow.local.port().to_be_bytes());
    bytes.extend(flow.peer(seq).to_be_bytes());
    bytes.extend(segment.ack.map_or(0, |ack| flow.stack(ack)).to_be_bytes());
    let words = segment.offset.unwrap_or((20 + options.len()) as u8 / 4);
    bytes.push(words << 4 | segment.reserved & 15);
    bytes.push(flags);
    bytes.extend(segment.window.unwrap_or(60_000).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(segment.urgent.to_be_bytes());
    bytes.extend(&options);
    // SYN stands before the first byte.
    bytes.extend(flow.peer_bytes(seq + i64::from(flags & SYN != 0), &data));
    if let Some(len) = segment.truncate {
        bytes.truncate(len);
    }
    if bytes.len() >= 18 {
        let sum = checksum(flow.remote.ip(), flow.local.ip(), &bytes);
        let sum = if segment.bad_checksum { sum ^ 0x0101 } else { sum };
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn put(option: &Opt, flow: &Flow, out: &mut Vec<u8>) {
    match option {
        Opt::Mss(mss) => {
            out.extend([2, 4]);
            out.extend(mss.unwrap_or(0).to_be_bytes());
        }
        Opt::Scale(shift) => out.extend([3, 3, shift.unwrap_or(0)]),
        Opt::SackOk => out.extend([4, 2]),
        Opt::Stamps(value, echo) => {
            out.extend([8, 10]);
            out.extend((value.unwrap_or(0) as u32).to_be_bytes());
            // An echo is of what the stack's clock said at that millisecond; of nothing at all while that is unknown.
            let echo = echo.unwrap_or(0) as u32;
            out.extend(flow.stamp.map_or(echo, |stamp| stamp.wrapping_add(echo)).to_be_bytes());
        }
        Opt::Sack(blocks) => {
            out.extend([5, 2 + 8 * blocks.len() as u8]);
            for &(start, end) in blocks {
                out.extend(flow.stack(start).to_be_bytes());
                out.extend(flow.stack(end).to_be_bytes());
            }
        }
        Opt::Nop => out.push(1),
        Opt::Eol => out.push(0),
        Opt::Raw(bytes) => out.extend(bytes),
    }
}

/// Reads a segment of the stack's; notes in `flow` what is seen for the first time. `ms` is the script's time. An error says
/// what no stack should send.
pub(crate) fn decode(meta: &SegmentOut, bytes: &[u8], flow: &mut Flow, ms: i64) -> Result<Segment, String> {
    if bytes.len() < 20 {
        return Err(format!("a segment of {} bytes", bytes.len()));
    }
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let head = usize::from(bytes[12] >> 4) * 4;
    if head < 20 || head > bytes.len() {
        return Err(format!("a data offset of {head} bytes in {}", bytes.len()));
    }
    if checksum(meta.source, meta.destination, bytes) != 0 {
        return Err("a wrong checksum".into());
    }
    if bytes[12] & 15 != 0 {
        return Err("reserved bits that are not zero".into());
    }
    let flags = bytes[13];
    if flags & SYN != 0 && flow.stack_isn.is_none() {
        flow.stack_isn = Some(word(4));
    }
    let options = read(&bytes[20..head], flow, ms)?;
    let seq = flow.stack_place(word(4));
    let payload = &bytes[head..];
    if !payload.is_empty() && !flow.was_written(seq, payload) {
        return Err(format!("{} bytes at {seq} that were never written there", payload.len()));
    }
    Ok(Segment {
        flags: Some(flags),
        seq: Some(seq),
        data: Some(Data::Pattern(payload.len() as u32)),
        ack: Some(if flags & 16 != 0 { flow.peer_place(word(8)) } else { i64::from(word(8)) }),
        window: Some(u16::from_be_bytes([bytes[14], bytes[15]])),
        options: Some(options),
        ecn: Some(meta.tos & 3),
        ttl: Some(meta.ttl),
        tos: Some(meta.tos),
        urgent: u16::from_be_bytes([bytes[18], bytes[19]]),
        path: Some(meta.path),
        ..Segment::default()
    })
}

fn read(mut rest: &[u8], flow: &mut Flow, ms: i64) -> Result<Vec<Opt>, String> {
    let mut options = Vec::new();
    while let Some(&kind) = rest.first() {
        match kind {
            0 => break,
            1 => {
                rest = &rest[1..];
                continue;
            }
            _ => {}
        }
        let len = rest.get(1).map_or(0, |&len| usize::from(len));
        if len < 2 || len > rest.len() {
            return Err(format!("option {kind} with the length {len}"));
        }
        let (body, after) = (&rest[2..len], &rest[len..]);
        let word = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        options.push(match (kind, body.len()) {
            (2, 2) => Opt::Mss(Some(u16::from_be_bytes([body[0], body[1]]))),
            (3, 1) => Opt::Scale(Some(body[0])),
            (4, 0) => Opt::SackOk,
            (5, n) if n > 0 && n % 8 == 0 => Opt::Sack(
                (0..n)
                    .step_by(8)
                    .map(|at| (flow.peer_place(word(at)), flow.peer_place(word(at + 4))))
                    .collect(),
            ),
            (8, 8) => {
                let stamp = *flow.stamp.get_or_insert(word(0).wrapping_sub(ms as u32));
                let value = i64::from(word(0).wrapping_sub(stamp) as i32);
                Opt::Stamps(Some(value), Some(i64::from(word(4))))
            }
            _ => Opt::Raw(rest[..len].to_vec()),
        });
        rest = after;
    }
    Ok(options)
}

/// Whether a segment that was sent is one that was expected; else what differs.
pub(crate) fn differs(expected: &Segment, sent: &Segment, text: &[u8]) -> Option<String> {
    fn field<T: PartialEq>(name: &str, expected: &Option<T>, sent: &Option<T>) -> Option<String> {
        (expected.is_some() && expected != sent).then(|| name.to_owned())
    }
    if expected.any {
        return None;
    }
    let data = match &expected.data {
        Some(Data::Text(wanted)) => wanted.as_slice() != text,
        Some(Data::Pattern(n)) => *n as usize != text.len(),
        None => false,
    };
    let options = match (&expected.options, &sent.options) {
        (Some(expected), Some(sent)) => !same_options(expected, sent),
        _ => false,
    };
    field("flags", &expected.flags, &sent.flags)
        .or_else(|| field("the sequence number", &expected.seq, &sent.seq))
        .or_else(|| data.then(|| "the payload".to_owned()))
        .or_else(|| field("the acknowledgment", &expected.ack, &sent.ack))
        .or_else(|| field("the window", &expected.window, &sent.window))
        .or_else(|| options.then(|| "the options".to_owned()))
        .or_else(|| field("the ECN bits", &expected.ecn, &sent.ecn))
        .or_else(|| field("the time to live", &expected.ttl, &sent.ttl))
        .or_else(|| field("the type of service", &expected.tos, &sent.tos))
        .or_else(|| field("the path", &expected.path, &sent.path))
}

/// Whether two lists have the same options, whatever their order and padding.
fn same_options(expected: &[Opt], sent: &[Opt]) -> bool {
    let real = |option: &&Opt| !matches!(option, Opt::Nop | Opt::Eol);
    let mut left: Vec<&Opt> = sent.iter().filter(real).collect();
    for option in expected.iter().filter(real) {
        let same = |other: &&Opt| match (option, other) {
            (Opt::Mss(None), Opt::Mss(_)) | (Opt::Scale(None), Opt::Scale(_)) => true,
            (Opt::Stamps(a, b), Opt::Stamps(c, d)) => (a.is_none() || a == c) && (b.is_none() || b == d),
            (a, b) => a == *b,
        };
        let Some(at) = left.iter().position(same) else { return false };
        left.remove(at);
    }
    left.is_empty()
}
