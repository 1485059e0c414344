//! Arbitrary frames, single and in chains, through Net over the memory port, with an app that gives arbitrary verdicts.
//!
//! Input: one byte of options (see below), then packets: length (two bytes, little endian), verdict, cut, and that many bytes.
//!
//! | option bit | |
//! | --- | --- |
//! | 0 | checksums are mended before the packet arrives, so that changed packets get further than the checksum |
//! | 1 | the port finishes transport checksums |
//! | 2 | the port's MAC is that of the packets, and others are not ours |
//! | 3 | the transmit ring is short and nobody collects until the end |
//!
//! However the input looks: no panic, every frame is accounted for, every packet ends in one bucket, and whatever is sent
//! parses again with right checksums.

#![no_main]

use libfuzzer_sys::fuzz_target;
use volley::datagram::{Batch, Datagram, DatagramPort, Datagrams, Verdicts};
use volley::frame::flag;
use volley::net::parse::{Arrival, headers};
use volley::net::{Net, NetConfig, Path};
use volley::port::{MemoryConfig, MemoryPort, MemoryWire, Port};
use volley::time::Now;
use volley::wire::DropReason;
use volley::wire::checksum::{Sum, udp_nonzero};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ANYBODY: Arrival = Arrival { mac: None, port: 0, queue: 0, verify: false };

fuzz_target!(|input: &[u8]| {
    let Some((options, packets)) = input.split_first() else { return };
    let has = |bit: u8| options >> bit & 1 == 1;
    let (port, mut wire) = MemoryPort::new(&MemoryConfig {
        ring: if has(3) { 8 } else { 128 },
        frames: 512,
        chunk: 512,
        headroom: 64,
        mtu: 1400,
        mac: has(2).then_some(MAC),
        tx_checksum: has(1),
        max_segments: 4,
        ..MemoryConfig::default()
    });
    let port: Box<dyn Port> = Box::new(port);
    let mut net: Net = Net::new(port, NetConfig::default());
    let mut app = App { verdicts: Vec::new(), next: 0, heard: None };
    let mut arrived = 0;
    let mut rest = packets;
    while let Some(([low, high, verdict, cut], after)) = rest.split_first_chunk::<4>() {
        let len = (u16::from_le_bytes([*low, *high]) as usize).min(after.len());
        let (bytes, after) = after.split_at(len);
        rest = after;
        app.verdicts.push(*verdict);
        let bytes = if has(0) { mended(bytes.to_vec()) } else { bytes.to_vec() };
        arrived += u64::from(inject(&mut wire, &bytes, *cut));
        if verdict & 0x80 != 0 {
            drive(&mut net, &mut app);
            if !has(3) {
                collect(&mut wire);
            }
        }
    }
    drive(&mut net, &mut app);
    collect(&mut wire);
    drive(&mut net, &mut app);

    let stats = net.stats();
    let unsent = stats.dropped[DropReason::TxFull as usize];
    let ended = stats.answered + stats.consumed + stats.dropped_total();
    // An unasked datagram that found no room is a drop without an arrival.
    assert!(ended >= arrived && ended - arrived <= unsent, "{arrived} arrived: {stats:?}");
    net.stop_rx();
    collect(&mut wire);
    net.flush();
    assert!(net.is_drained(), "{}", net.ledger());
});

/// Puts a packet on the wire, in one frame or in pieces; false when the port had no room.
fn inject(wire: &mut MemoryWire, bytes: &[u8], cut: u8) -> bool {
    match cut {
        0 => wire.inject(0, bytes).is_ok(),
        _ => {
            let pieces: Vec<&[u8]> = bytes.chunks(usize::from(cut) * 2).collect();
            !pieces.is_empty() && pieces.len() <= 6 && wire.inject_chain(0, &pieces).is_ok()
        }
    }
}

struct App {
    verdicts: Vec<u8>,
    next: usize,
    heard: Option<Path>,
}

impl App {
    fn decide(&mut self, view: &mut Datagram<'_>) {
        let verdict = self.verdicts[self.next % self.verdicts.len()];
        self.next += 1;
        self.heard = Some(view.path());
        let len = view.payload().len();
        match verdict & 7 {
            0 => view.consume(),
            1 => view.drop(DropReason::AppMalformed),
            2 | 3 => view.reply(len),
            4 => {
                view.room_mut().fill(verdict);
                view.reply(len);
            }
            5 => {
                let room = view.room_mut().len();
                view.reply(room);
            }
            6 => view.reply(len / 2),
            _ => view.reply_with(&[verdict; 700]),
        }
    }
}

fn drive(net: &mut Net, app: &mut App) {
    let mut batch = Batch::default();
    let mut verdicts = Verdicts::new();
    while net.recv(&mut batch, Now::default()) > 0 {
        loop {
            let mut views = Datagrams::new();
            if net.open(&mut batch, &mut views) == 0 {
                break;
            }
            verdicts.clear();
            for view in &mut views {
                app.decide(view);
                verdicts.push(view.verdict());
            }
            drop(views);
            net.settle(&mut batch, &verdicts);
        }
        assert!(batch.frames.is_empty());
        if let Some(path) = app.heard.take() {
            let len = app.next % 1500;
            let _ = net.send(&path, len, &mut |room| room.fill(9));
        }
        net.flush();
    }
    let ledger = net.ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
}

/// Everything sent is a valid packet.
fn collect(wire: &mut MemoryWire) {
    wire.collect(|shown| {
        let mut bytes = shown.bytes.to_vec();
        let arrival = Arrival { verify: true, ..ANYBODY };
        let parsed = headers(&bytes, bytes.len(), &arrival).unwrap_or_else(|reason| panic!("sent a packet with {reason}"));
        let (udp, payload) = (parsed.udp as usize, parsed.payload());
        assert_eq!(payload + parsed.len as usize, bytes.len(), "sent with something behind it");
        assert_ne!(parsed.checksum, 0, "sent without a checksum");
        if shown.flags & flag::CHECKSUM_PARTIAL != 0 {
            let checksum = udp_nonzero(Sum::ZERO.bytes(&bytes[udp..]).complement());
            bytes[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
        }
        let parsed = headers(&bytes, bytes.len(), &arrival).expect("as before");
        parsed.verify(&bytes[payload..]).expect("sent with a wrong checksum");
    });
}

/// The packet with right checksums, as far as it has any.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let Ok(parsed) = headers(&bytes, bytes.len(), &ANYBODY) else { return bytes };
    let (ip, udp, payload) = (parsed.ip as usize, parsed.udp as usize, parsed.payload());
    if parsed.path.is_ipv4() {
        bytes[ip + 10..ip + 12].fill(0);
        let checksum = Sum::ZERO.bytes(&bytes[ip..udp]).complement();
        bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes[udp + 6..udp + 8].fill(0);
    if let Ok(parsed) = headers(&bytes, bytes.len(), &ANYBODY) {
        let sum = parsed.sum.bytes(&bytes[payload..payload + parsed.len as usize]);
        bytes[udp + 6..udp + 8].copy_from_slice(&udp_nonzero(sum.complement()).to_be_bytes());
    } else {
        // Over IPv6 the zero just written is refused: any other value does for the sum, which leaves it out again.
        bytes[udp + 6..udp + 8].copy_from_slice(&[0, 1]);
        if let Ok(parsed) = headers(&bytes, bytes.len(), &ANYBODY) {
            let sum = parsed.sum.bytes(&bytes[payload..payload + parsed.len as usize]).word(!1);
            bytes[udp + 6..udp + 8].copy_from_slice(&udp_nonzero(sum.complement()).to_be_bytes());
        }
    }
    bytes
}
