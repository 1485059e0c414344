//! The stack against itself over a wire that does whatever the input says: it loses, repeats, delays and marks segments, lets time
//! pass, and the applications write, read, and close when they please. Then the wire becomes good. Both streams must arrive byte
//! for byte, both connections must end, and nothing may be left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::time::Duration;
use volley_tcp::{
    CloseReason, Config, CongestionControl, ConnectionId, ConnectionOptions, Ecn, EventKind, Instant,
    ListenOptions, SegmentIn, Shutdown, SocketOption, Stack,
};
use volley_tcp_fuzz::{
    Choices, Outbox, Packet, address, assert_balanced, assert_clean, assert_readable, trace,
};

/// Bytes each side sends at most.
const MOST: usize = 40_000;

struct End {
    stack: Stack,
    id: Option<ConnectionId>,
    sent: usize,
    received: usize,
    shut: bool,
    closed: Option<CloseReason>,
    key: u8,
}

fn byte(key: u8, at: usize) -> u8 {
    (at as u8).wrapping_mul(37) ^ (at >> 8) as u8 ^ key
}

impl End {
    fn new(config: Config, key: u8, now: Instant) -> End {
        let stack = Stack::new(config, &[key; 64], now);
        End { stack, id: None, sent: 0, received: 0, shut: false, closed: None, key }
    }

    fn write(&mut self, n: usize) {
        let (Some(id), false) = (self.id, self.shut) else { return };
        let n = n.min(MOST - self.sent);
        let bytes: Vec<u8> = (self.sent..self.sent + n).map(|at| byte(self.key, at)).collect();
        self.sent += self.stack.write(id, &bytes).unwrap_or(0);
    }

    fn read(&mut self, n: usize, peer: u8) {
        let Some(id) = self.id else { return };
        let mut left = n;
        while left > 0 {
            let Ok(bytes) = self.stack.peek(id) else { return };
            let n = bytes.len().min(left);
            if n == 0 {
                return;
            }
            for (i, &got) in bytes[..n].iter().enumerate() {
                assert_eq!(got, byte(peer, self.received + i), "byte {}", self.received + i);
            }
            self.stack.read(id, n).unwrap();
            self.received += n;
            left -= n;
        }
    }

    fn shut(&mut self) {
        if let Some(id) = self.id {
            self.shut |= self.stack.shutdown(id, Shutdown::Write).is_ok();
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.stack.next_event() {
            match event.kind {
                EventKind::Established => self.id = Some(event.connection),
                EventKind::Closed(reason) => self.closed = Some(reason),
                _ => {}
            }
        }
    }
}

/// What is under way, by arrival and number: to whom, and what.
type Flying = BTreeMap<(u64, u64), (usize, Packet)>;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (set, sizes) = (choices.byte(), choices.byte());
    let config = Config {
        sack: set & 1 == 0,
        timestamps: set & 2 == 0,
        window_scaling: set & 4 == 0,
        ecn: if set & 8 == 0 { Ecn::Accept } else { Ecn::Request },
        max_connections: 2,
        syn_table: 2,
        max_time_wait: 2,
        // Longer than the longest retransmission timeouts: on a wire this bad the last acknowledgment may be lost some times over.
        time_wait: Duration::from_secs(900),
        // From comfortable to far too small.
        pool_bytes: [256 << 10, 64 << 10, 24 << 10, 16 << 10][usize::from(sizes & 3)],
        max_segments_in_flight: if sizes & 4 == 0 { 1024 } else { 8 },
        ..Config::default()
    };
    let options = ConnectionOptions {
        no_delay: set & 16 == 0,
        congestion_control: if set & 32 == 0 {
            CongestionControl::Cubic
        } else {
            CongestionControl::NewReno
        },
        receive_buffer: [1 << 20, 10_000, 1_000, 256][usize::from(sizes >> 3 & 3)],
        send_buffer: [1 << 20, 3_000][usize::from(sizes >> 5 & 1)],
        mss: (set & 64 != 0).then_some(100),
        user_timeout: None,
        ..ConnectionOptions::default()
    };
    let mut now = Instant::from_millis(4_294_960_000); // near the wrap of everything that counts milliseconds
    let mut ends = [End::new(config, 1, now), End::new(config, 2, now)];
    let server = address("10.0.0.1:7");
    let listener = ends[1].stack.listen(server, ListenOptions { backlog: 2, connection: options }).unwrap();
    let client = address("10.0.0.2:0");
    ends[0].id = Some(ends[0].stack.connect(client, server, 0, &options).unwrap());
    let mut flying = Flying::new();
    let mut count = 0u64;
    let mut good = false;
    let mut steps = 0u32;
    let mut deadline = None;
    loop {
        steps += 1;
        if choices.is_empty() && !good {
            good = true;
            // Generous: timeouts of a minute may have to pass some times.
            deadline = Some(now + Duration::from_secs(3600));
        }
        // The applications.
        for (at, peer) in [(0usize, 2u8), (1, 1)] {
            if good {
                // What the input made it write is enough; now the end of the stream.
                if !ends[at].shut {
                    ends[at].shut();
                }
                ends[at].read(usize::MAX, peer);
                continue;
            }
            match choices.byte() {
                0..64 => {}
                n @ 64..160 => ends[at].write(usize::from(n - 63) * 97),
                n @ 160..224 => ends[at].read(usize::from(n - 159) * 113, peer),
                224..230 => ends[at].shut(),
                n => {
                    let option = match n % 5 {
                        0 => SocketOption::Cork(n & 1 == 0),
                        1 => SocketOption::NoDelay(n & 1 == 0),
                        2 => SocketOption::DelayedAck(Duration::from_millis(u64::from(n) - 230)),
                        3 => SocketOption::ReceiveBuffer(u32::from(n) * 50),
                        _ => SocketOption::Mss(u16::from(n) * 5),
                    };
                    if let Some(id) = ends[at].id {
                        let _ = ends[at].stack.set_option(id, option);
                    }
                }
            }
        }
        // What they send, and what the wire does with it.
        for at in 0..2 {
            let mut out = Outbox::new(if good { 1000 } else { usize::from(choices.byte() % 16) + 1 });
            ends[at].stack.transmit(now, &mut out);
            for mut packet in out.packets {
                assert_readable(&packet);
                trace(now, at, &packet);
                let (fate, delay) =
                    if good { (255, 10) } else { (choices.byte(), u64::from(choices.byte()) * 2) };
                let copies = match fate {
                    0..50 => 0,
                    50..80 => 2,
                    80..100 if packet.meta.tos & 3 != 0 => {
                        packet.meta.tos |= 3;
                        1
                    }
                    _ => 1,
                };
                for copy in 0..copies {
                    count += 1;
                    let arrival = (now + Duration::from_millis(1 + delay * (1 + copy))).nanos();
                    flying.insert((arrival, count), (1 - at, packet.clone()));
                }
            }
        }
        // The next thing that happens.
        let arrival = flying.keys().next().map(|key| Instant::from_nanos(key.0));
        let timers = ends.iter().filter_map(|end| end.stack.next_deadline()).min();
        let next = [arrival, timers].into_iter().flatten().min();
        match next {
            Some(next) => now = now.max(next),
            None if good => break,
            None => now = now + Duration::from_millis(1 + u64::from(choices.byte())),
        }
        let mut bursts: [Vec<Packet>; 2] = Default::default();
        while let Some((&key, _)) = flying.first_key_value() {
            if key.0 > now.nanos() {
                break;
            }
            let (to, packet) = flying.remove(&key).unwrap();
            bursts[to].push(packet);
        }
        for (at, burst) in bursts.iter().enumerate() {
            let frames: Vec<SegmentIn<'_>> = burst.iter().map(Packet::segment).collect();
            drop(ends[at].stack.receive_burst(now, &frames));
            ends[at].stack.timers(now);
            ends[at].events();
        }
        if let Some(id) = ends[1].stack.accept(listener) {
            assert_eq!(ends[1].id, Some(id));
        }
        let over = |end: &End| end.closed.is_some();
        if good && ends.iter().all(over) {
            break;
        }
        // A wire this bad may let no SYN through for three minutes.
        if ends[0].closed == Some(CloseReason::TimedOut) && ends[1].id.is_none() {
            break;
        }
        let stuck = deadline.is_some_and(|deadline| now > deadline) || steps > 200_000;
        assert!(
            !stuck,
            "stuck at {now:?}: {:?}",
            ends.each_ref().map(|end| (
                end.sent,
                end.received,
                end.closed,
                end.id.map(|id| end.stack.info(id))
            ))
        );
    }
    let finished = ends.each_ref().map(|end| end.closed == Some(CloseReason::Finished));
    for (at, peer) in [(0usize, 2u8), (1, 1)] {
        ends[at].read(usize::MAX, peer);
    }
    if finished == [true, true] {
        assert_eq!((ends[0].sent, ends[1].sent), (ends[1].received, ends[0].received), "bytes were lost");
    } else {
        // Only a handshake that never came about ends otherwise: nobody resets, nobody gives up.
        let reasons = ends.each_ref().map(|end| end.closed);
        assert!(ends[1].id.is_none() && ends[0].received == 0, "{reasons:?}");
    }
    for end in &mut ends {
        if let Some(id) = end.id {
            let _ = end.stack.abort(id);
        }
        end.events();
        end.stack.transmit(now, &mut Outbox::new(1000));
        end.events();
        assert_balanced(&end.stack);
        assert_clean(&end.stack);
    }
});
