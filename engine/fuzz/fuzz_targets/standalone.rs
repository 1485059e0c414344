//! Arbitrary frames at a port without a kernel behind it: ARP, neighbour discovery, ICMP, and the exception path.
//!
//! Input: packets, each: length (two bytes, little endian), options (see below), hundredths of a second that pass first, and that many
//! bytes.
//!
//! | option bit | |
//! | --- | --- |
//! | 0 | checksums are mended before the packet arrives |
//! | 1 | the packet's link header is made one of a neighbour's to us |
//! | 2 | afterwards something is sent to a peer never heard from |
//! | 3 | the kernel behind the port sends the packet instead |
//! | 4 | nobody empties the kernel's ring or the wire afterwards |
//!
//! However the input looks: no panic, every frame of both ports is accounted for, every packet ends in one bucket, no more is
//! answered than the limits allow, what is sent unasked is bounded, and packets to the gateway go to the gateway's MAC, as long as
//! it answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use volley::datagram::{Batch, DatagramPort, Datagrams, Verdicts};
use volley::net::standalone::{Gateway, Limits, LocalAddress, StandaloneConfig};
use volley::net::{Net, NetConfig, Path};
use volley::port::{MemoryConfig, MemoryPort, Port};
use volley::time::Now;
use volley::wire::DropReason;
use volley::wire::checksum::Sum;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// Answers at once, at most, by the limits below: a bucket holds eight at least.
const BURST: u64 = 8;
const PER_SECOND: u32 = 20;

fuzz_target!(|input: &[u8]| {
    let memory = MemoryConfig { ring: 64, frames: 256, mac: Some(OURS), ..MemoryConfig::default() };
    let (port, mut wire) = MemoryPort::new(&memory);
    let (kernel, mut behind) = MemoryPort::new(&MemoryConfig { ring: 16, frames: 64, mac: None, ..memory });
    let local = |address: &str, prefix_len, vlan| LocalAddress { address: address.parse().unwrap(), prefix_len, vlan };
    let config = StandaloneConfig {
        addresses: vec![local("10.1.0.1", 24, None), local("fd00::1", 64, None), local("10.7.0.1", 24, Some(7))],
        gateways: vec![Gateway("10.1.0.254".parse().unwrap())],
        neighbours: 16,
        pending: 8,
        path_mtus: 16,
        limits: Limits { answers: PER_SECOND, echoes: PER_SECOND, errors: PER_SECOND },
        exception: Some(Box::new(kernel)),
        ..StandaloneConfig::default()
    };
    let port: Box<dyn Port> = Box::new(port);
    let mut net: Net = Net::new(port, NetConfig { standalone: Some(config), ..NetConfig::default() });
    let far = Path::to(0, "10.1.0.1:7".parse().unwrap(), "203.0.113.1:7".parse().unwrap()).unwrap();
    let start = 1_000_000_000;
    let mut now = Now { ns: start, unix_secs: 0 };
    let (mut arrived, mut sends) = (0u64, 0u64);
    turn(&mut net, now);

    let mut rest = input;
    while let Some(([low, high, options, pause], after)) = rest.split_first_chunk::<4>() {
        let has = |bit: u8| options >> bit & 1 == 1;
        let len = (u16::from_le_bytes([*low, *high]) as usize).min(after.len()).min(1600);
        let (bytes, after) = after.split_at(len);
        rest = after;
        now.ns += u64::from(*pause) * 10_000_000;
        let mut bytes = bytes.to_vec();
        if has(1) && bytes.len() >= 12 {
            bytes[..6].copy_from_slice(&OURS);
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        }
        if has(0) {
            mend(&mut bytes);
        }
        match has(3) {
            true => _ = behind.inject(0, &bytes),
            false => arrived += u64::from(wire.inject(0, &bytes).is_ok()),
        }
        turn(&mut net, now);
        if has(2) {
            let host = bytes.first().copied().unwrap_or(9);
            let peer = format!("10.1.0.{host}:9").parse().unwrap();
            let path = Path::to(0, "10.1.0.1:7".parse().unwrap(), peer).unwrap();
            sends += 1;
            let _ = net.send(&path, 1, &mut |room| room.fill(1));
        }
        // The gateway is there, and says so when it is asked.
        for _ in 0..3 {
            turn(&mut net, now);
            if has(4) {
                break;
            }
            let mut asked = false;
            wire.collect(|shown| asked |= asks_gateway(shown.bytes));
            behind.collect(|_| {});
            if asked {
                arrived += u64::from(wire.inject(0, &gateway_answer()).is_ok());
            }
        }
        if !has(4) && net.send(&far, 1, &mut |room| room.fill(2)).is_ok() {
            sends += 1;
            turn(&mut net, now);
            wire.collect(|shown| {
                if shown.bytes.len() > 34 && shown.bytes[30..34] == [203, 0, 113, 1] && shown.bytes[23] == 17 {
                    let to = &shown.bytes[..6];
                    assert!(to == ROUTER || claimed_first(input), "a packet for the gateway went to {to:x?}");
                }
            });
        }
    }

    turn(&mut net, now);
    let stats = net.stats();
    let alone = net.standalone_stats().expect("it stands alone");
    let unsent = stats.dropped[DropReason::TxFull as usize];
    let ended = stats.answered + stats.consumed + stats.handled + stats.passed + stats.dropped_total();
    assert!(ended >= arrived && ended - arrived <= unsent, "{arrived} arrived: {stats:?}");
    let limit = BURST + (now.ns - start) * u64::from(PER_SECOND) / 1_000_000_000 + 1;
    assert!(alone.arp_answered + alone.ndp_answered <= limit && alone.echo_answered <= limit, "{alone:?}");
    // Each send begins three questions at most, and a neighbour that is known three and three more in its time.
    let seconds = (now.ns - start) / 1_000_000_000 + 1;
    assert!(alone.solicited <= 6 * (sends + 2) + 6 * 9 * seconds, "{alone:?} in {seconds} s");
    assert!(alone.announced <= 6 + 3 * (seconds / 10 + 1), "{alone:?} in {seconds} s");

    net.stop_rx();
    wire.collect(|_| {});
    behind.collect(|_| {});
    net.flush();
    assert!(net.is_drained(), "{}", net.ledger());
    let ledger = net.close();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
    let ledger = net.exception_port().expect("it was given").ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
});

/// Before the gateway has first answered, whoever answers is believed; an input that speaks for it has its way.
fn claimed_first(input: &[u8]) -> bool {
    input.windows(4).any(|bytes| bytes == [10, 1, 0, 254])
}

fn turn(net: &mut Net, now: Now) {
    let mut batch = Batch::default();
    let mut verdicts = Verdicts::new();
    while net.recv(&mut batch, now) > 0 {
        let mut views = Datagrams::new();
        net.open(&mut batch, &mut views);
        verdicts.clear();
        for mut view in views {
            let len = view.payload().len();
            view.reply(len);
            verdicts.push(view.verdict());
        }
        net.settle(&mut batch, &verdicts);
        assert!(batch.frames.is_empty());
    }
    net.flush();
    let ledger = net.ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
}

fn asks_gateway(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[8, 6]) && bytes.get(20..22) == Some(&[0, 1]) && bytes.get(38..42) == Some(&[10, 1, 0, 254])
}

fn gateway_answer() -> Vec<u8> {
    let mut bytes = [&OURS[..], &ROUTER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &ROUTER, &[10, 1, 0, 254]].concat();
    bytes.extend(OURS);
    bytes.extend([10, 1, 0, 1]);
    bytes.resize(60, 0);
    bytes
}

/// Right checksums for untagged ICMP and ICMPv6 without options.
fn mend(bytes: &mut [u8]) {
    match bytes.get(12..14) {
        Some([8, 0]) if bytes.len() >= 42 => {
            bytes[24..26].fill(0);
            let sum = Sum::ZERO.bytes(&bytes[14..34]).complement();
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            let end = (14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))).clamp(38, bytes.len());
            bytes[36..38].fill(0);
            let sum = Sum::ZERO.bytes(&bytes[34..end]).complement();
            bytes[36..38].copy_from_slice(&sum.to_be_bytes());
        }
        Some([0x86, 0xdd]) if bytes.len() >= 62 => {
            let len = u16::from_be_bytes([bytes[18], bytes[19]]);
            let end = (54 + usize::from(len)).clamp(58, bytes.len());
            bytes[56..58].fill(0);
            let pseudo = Sum::ZERO.pseudo_header(&bytes[22..38], &bytes[38..54], 58, u32::from(len));
            let sum = pseudo.bytes(&bytes[54..end]).complement();
            bytes[56..58].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}
