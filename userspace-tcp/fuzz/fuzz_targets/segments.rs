//! Any segments, calls and times against one stack: no panic, no more memory than configured, every segment accounted for,
//! every answer readable by another implementation, and in the end nothing is left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::time::Duration;
use volley_tcp::{
    Config, ConnectionId, IcmpError, IcmpMessage, Instant, ListenOptions, SegmentIn, Shutdown,
    SocketOption, Stack, SynCookies,
};
use volley_tcp_fuzz::{
    Choices, Outbox, address, assert_balanced, assert_clean, assert_readable, mend_checksum,
};

const POOL: usize = 32 << 10;

/// What the peer behind a port has seen of the stack.
#[derive(Clone, Copy, Default)]
struct Seen {
    seq: u32,
    ack: u32,
    stamp: u32,
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let set = choices.byte();
    let config = Config {
        pool_bytes: POOL,
        max_connections: 4,
        syn_table: 2,
        max_time_wait: 2,
        max_segments_in_flight: 64,
        syn_cookies: [SynCookies::WhenFull, SynCookies::Always, SynCookies::Off, SynCookies::WhenFull]
            [usize::from(set & 3)],
        timestamps: set & 4 == 0,
        sack: set & 8 == 0,
        window_scaling: set & 16 == 0,
        ..Config::default()
    };
    let mut now = Instant::from_millis(5_000_000);
    let mut stack = Stack::new(config, &[3; 64], now);
    let local = address("192.0.2.1:80");
    let listener = stack.listen(local, ListenOptions { backlog: 2, ..ListenOptions::default() }).unwrap();
    let mut seen = [Seen { ack: 1000, ..Seen::default() }; 4];
    let mut known: Vec<ConnectionId> = Vec::new();
    let mut named = BTreeSet::new();
    while !choices.is_empty() {
        let what = choices.byte();
        let port = 5000 + u16::from(what & 3);
        let peer = &mut seen[usize::from(what & 3)];
        let connection = known.get(usize::from(choices.byte()) % known.len().max(1)).copied();
        match what >> 2 & 15 {
            // Segments around what was last said, with flags and options of any kind.
            0..8 => {
                let flags = choices.byte();
                let near = i32::from(choices.word() as i16);
                let (near_seq, near_ack) =
                    (near % [1, 4, 1500, 32768][usize::from(what >> 6)], i32::from(choices.byte() as i8));
                let mut options = match choices.byte() % 4 {
                    0 => Vec::new(),
                    1 => {
                        let mut stamps = vec![1, 1, 8, 10];
                        stamps.extend((now.nanos() as u32 / 1_000_000).to_be_bytes());
                        stamps.extend(peer.stamp.to_be_bytes());
                        stamps
                    }
                    2 => vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
                    _ => choices.bytes(usize::from(what & 7) * 4).to_vec(),
                };
                options.resize(options.len().div_ceil(4) * 4, 0);
                let len = usize::from(choices.word() % 1461) * usize::from(flags & 8 != 0);
                let mut bytes = Vec::with_capacity(60 + len);
                bytes.extend(port.to_be_bytes());
                bytes.extend(80u16.to_be_bytes());
                bytes.extend(peer.ack.wrapping_add(near_seq as u32).to_be_bytes());
                bytes.extend(peer.seq.wrapping_add(near_ack as u32).to_be_bytes());
                bytes.extend([(20 + options.len() as u8) / 4 << 4, flags]);
                bytes.extend(choices.word().to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(&options);
                bytes.resize(bytes.len() + len, 0x42);
                let source = address("192.0.2.2:0").ip();
                mend_checksum(source, local.ip(), &mut bytes);
                let segment = SegmentIn {
                    source,
                    destination: local.ip(),
                    ecn: what >> 6,
                    checksum: Default::default(),
                    path: 0,
                    bytes: &bytes,
                };
                let mut burst = stack.receive_burst(now, std::slice::from_ref(&segment));
                // Sometimes the application reads from the frame.
                if let Some(id) = connection.filter(|_| what & 64 != 0) {
                    let n = burst.peek(id).map_or(0, <[u8]>::len);
                    let _ = burst.read(id, n / 2);
                }
            }
            8 => {
                let bytes = vec![7; usize::from(choices.word())];
                let _ = connection.map(|id| stack.write(id, &bytes));
            }
            9 => {
                let n = usize::from(choices.word());
                let _ = connection.map(|id| stack.read(id, n));
            }
            10 => {
                now = now + Duration::from_millis(u64::from(choices.word()));
                stack.timers(now);
            }
            11 => match what >> 6 {
                0 => drop(connection.map(|id| stack.shutdown(id, Shutdown::Write))),
                1 => drop(connection.map(|id| stack.shutdown(id, Shutdown::Both))),
                2 => drop(connection.map(|id| stack.close(id))),
                _ => drop(connection.map(|id| stack.abort(id))),
            },
            12 => known.extend(stack.accept(listener)),
            13 => {
                let remote = address("192.0.2.2:0").ip();
                known.extend(stack.connect(local, (remote, port).into(), 0, &Default::default()));
            }
            14 => {
                let option = match choices.byte() % 8 {
                    0 => SocketOption::Mss(choices.word()),
                    1 => SocketOption::ReceiveBuffer(choices.long() >> 12),
                    2 => SocketOption::SendBuffer(choices.long() >> 12),
                    3 => SocketOption::Cork(choices.bit()),
                    4 => SocketOption::NoDelay(choices.bit()),
                    5 => SocketOption::LowWater(u32::from(choices.word())),
                    6 => SocketOption::KeepAlive(choices.bit().then(Default::default)),
                    _ => SocketOption::Linger(Some(Duration::from_millis(u64::from(choices.word())))),
                };
                let _ = connection.map(|id| stack.set_option(id, option));
            }
            _ => {
                let error = match what >> 6 {
                    0 => IcmpError::TooBig(choices.word()),
                    1 => IcmpError::Unreachable,
                    _ => IcmpError::Transient,
                };
                let sequence = peer.seq.wrapping_sub(u32::from(choices.word()));
                let remote = (address("192.0.2.2:0").ip(), port).into();
                stack.icmp(&IcmpMessage { error, local, remote, sequence });
            }
        }
        while let Some(event) = stack.next_event() {
            named.insert(event.connection);
        }
        let mut out = Outbox::new(usize::from(choices.byte() % 32));
        stack.transmit(now, &mut out);
        for packet in &out.packets {
            assert_readable(packet);
            let word = |at: usize| u32::from_be_bytes(packet.bytes[at..at + 4].try_into().unwrap());
            let port = u16::from_be_bytes([packet.bytes[2], packet.bytes[3]]);
            let head = usize::from(packet.bytes[12] >> 4) * 4;
            let long = (packet.bytes.len() - head) as u32 + u32::from(packet.bytes[13] & 3 != 0);
            let stamp = if head >= 32 { word(24) } else { 0 };
            seen[usize::from(port - 5000)] = Seen { seq: word(4).wrapping_add(long), ack: word(8), stamp };
        }
        let p = stack.population();
        assert!(p.connections <= 4 && p.half_open <= 2 && p.time_wait <= 2, "{p:?}");
        assert!(stack.memory().pool_used <= POOL);
    }
    assert_balanced(&stack);
    // Everything goes in the end, whatever state it was in.
    stack.close_listener(listener).unwrap();
    for id in known.into_iter().chain(named) {
        let _ = stack.abort(id);
    }
    for _ in 0..4 {
        now = now + Duration::from_secs(400);
        stack.timers(now);
        while let Some(event) = stack.next_event() {
            let _ = stack.abort(event.connection);
        }
        stack.transmit(now, &mut Outbox::new(1000));
    }
    assert_clean(&stack);
    assert_eq!(stack.population().half_open + stack.population().time_wait, 0);
});
