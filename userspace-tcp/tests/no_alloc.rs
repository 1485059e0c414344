//! The way of a segment does not allocate: a counting allocator over an echo of messages and of reordered bulk.

use std::net::SocketAddr;
use std::time::Duration;
use volley_count_alloc::allocations;
use volley_tcp::{Config, Egress, EventKind, Instant, ListenOptions, SegmentIn, SegmentOut, Stack};

struct Ring {
    buffers: Vec<[u8; 1600]>,
    sent: Vec<SegmentOut>,
}

impl Egress for Ring {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        self.buffers.get_mut(self.sent.len()).map(|b| &mut b[..segment.len])
    }
    fn commit(&mut self, segment: &SegmentOut) {
        self.sent.push(*segment);
    }
}

/// Everything a stack does in a turn with `frames`; what it sends goes into `to`. Returns the bytes read.
fn work(stack: &mut Stack, now: Instant, frames: &[SegmentIn<'_>], to: &mut Ring, echo: bool) -> usize {
    let mut read = 0;
    let mut message = [0u8; 2048];
    let mut burst = stack.receive_burst(now, frames);
    while let Some(event) = burst.next_event() {
        if event.kind == EventKind::Readable {
            loop {
                let bytes = burst.peek(event.connection).unwrap();
                let n = bytes.len();
                if n == 0 {
                    break;
                }
                message[..n].copy_from_slice(bytes);
                burst.read(event.connection, n).unwrap();
                if echo {
                    burst.write(event.connection, &message[..n]).unwrap();
                }
                read += n;
            }
        }
    }
    drop(burst);
    stack.timers(now);
    stack.transmit(now, to);
    read
}

/// One end's turn with the frames of `from`, into `to`. Returns the bytes read; `count` grows by what
/// the stack allocated or freed.
fn turn(
    stack: &mut Stack,
    now: Instant,
    from: &Ring,
    to: &mut Ring,
    echo: bool,
    reverse: bool,
    count: &mut u64,
) -> usize {
    let mut frames: Vec<SegmentIn<'_>> = from
        .sent
        .iter()
        .zip(&from.buffers)
        .map(|(s, bytes)| SegmentIn {
            source: s.source,
            destination: s.destination,
            ecn: 0,
            checksum: Default::default(),
            path: 0,
            bytes: &bytes[..s.len],
        })
        .collect();
    if reverse {
        frames.reverse();
    }
    to.sent.clear();
    let mut read = 0;
    *count += allocations(|| read = work(stack, now, &frames, to, echo));
    read
}

#[test]
fn messages_and_reordered_bulk_do_not_allocate() {
    let mut now = Instant::from_millis(1000);
    let mut server = Stack::new(Config::default(), &[1; 64], now);
    let mut client = Stack::new(Config::default(), &[2; 64], now);
    let address: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let listener = server.listen(address, ListenOptions::default()).unwrap();
    let ring = || Ring { buffers: vec![[0; 1600]; 256], sent: Vec::with_capacity(256) };
    let (mut up, mut down) = (ring(), ring());
    let ids: Vec<_> = (0..40)
        .map(|_| client.connect("10.0.0.2:0".parse().unwrap(), address, 0, &Default::default()).unwrap())
        .collect();
    client.transmit(now, &mut up);
    let mut count = 0;
    for _ in 0..3 {
        turn(&mut server, now, &up, &mut down, true, false, &mut count);
        turn(&mut client, now, &down, &mut up, false, false, &mut count);
    }
    while server.accept(listener).is_some() {}
    assert_eq!(server.population().connections, 40);
    // Once round to warm what grows to its working size, then counted.
    for (rounds, counted) in [(20, false), (400, true)] {
        count = 0;
        let (mut sent, mut got) = (0, 0);
        for round in 0..rounds {
            now = now + Duration::from_millis(3);
            let size = if round % 2 == 0 { 64 } else { 5_000 };
            for id in &ids[..if size == 64 { 40 } else { 8 }] {
                count += allocations(|| sent += client.write(*id, &[7; 5_000][..size]).unwrap());
            }
            up.sent.clear();
            client.transmit(now, &mut up);
            // Reversed every time, so that all but one segment of a message come out of order.
            for _ in 0..4 {
                turn(&mut server, now, &up, &mut down, true, true, &mut count);
                got += turn(&mut client, now, &down, &mut up, false, true, &mut count);
            }
        }
        now = now + Duration::from_millis(500);
        for _ in 0..40 {
            now = now + Duration::from_millis(50);
            turn(&mut server, now, &up, &mut down, true, false, &mut count);
            got += turn(&mut client, now, &down, &mut up, false, false, &mut count);
        }
        assert_eq!((got, sent > 0), (sent, true), "everything came back");
        if counted {
            assert_eq!(count, 0, "allocations or frees on the way of a segment");
        }
    }
}
