//! Our own TCP over memory ports: two ends, a wire that loses packets, time in the test's hands.

use super::*;
use crate::net::neighbours::{Link, Neighbour, Publisher, Reached, Route, Update, address, subscription};
use crate::stream::own::{OwnConfig, OwnStreams};
use crate::stream::{CloseReason, StreamError, StreamEvent, StreamId};
use crate::worker::Waker;
use std::net::SocketAddr;
use std::sync::Arc;

const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const ADDRESSES: [&str; 2] = ["10.1.0.1", "10.1.0.2"];
const PORT: u16 = 7777;

struct End {
    net: Net<MemoryPort>,
    wire: MemoryWire,
    _control: Publisher,
}

/// One end of the wire, which knows the other; the first listens.
fn end(at: usize) -> End {
    end_of(at, 1500, 1)
}

/// The same, for packets of `mtu` bytes in up to `max_segments` frames.
fn end_of(at: usize, mtu: u16, max_segments: usize) -> End {
    let memory = MemoryConfig {
        mac: Some(MACS[at]),
        frames: 512,
        ring: 128,
        mtu: mtu.into(),
        max_segments,
        ..MemoryConfig::default()
    };
    let (port, wire) = MemoryPort::new(&memory);
    let (links, mut control) = subscription(Arc::new(Waker::new(|| {})));
    let ip = |text: &str| address(text.parse().unwrap());
    let other = Neighbour { tag: Tag::default(), address: ip(ADDRESSES[1 - at]) };
    let route = Route {
        prefix: ip("10.1.0.0"),
        prefix_len: 120,
        metric: 0,
        gateway: None,
        source: None,
        tag: Tag::default(),
    };
    for update in [
        Update::Link(Link::Present { up: true, mac: MACS[at], mtu: mtu.into() }),
        Update::Route(route, true),
        Update::Address(ip(ADDRESSES[at]), true),
        Update::Neighbour(other, Some(Reached { mac: MACS[1 - at], stale: false })),
        Update::Complete,
    ] {
        control.updates.push(update).unwrap();
    }
    let streams = OwnStreams::new(&OwnConfig {
        listen: vec![SocketAddr::new(ADDRESSES[at].parse().unwrap(), PORT)],
        stack: volley_tcp::Config { max_connections: 16, mtu, ..volley_tcp::Config::default() },
        buffer: 64 << 10,
        slow_reader_ns: 5_000_000_000,
        keep_alive_secs: 60,
        entropy: [at as u8 + 1; 64],
    });
    let net = Net::new(Box::new(port), NetConfig { links: Some(links), ..NetConfig::default() });
    End { net: net.with_streams(streams, None), wire, _control: control }
}

impl End {
    /// One turn with one burst, as a worker's, in which `app` gets each event; returns what left.
    fn turn(
        &mut self,
        now: Now,
        mut app: impl FnMut(&mut dyn StreamPort, StreamId, StreamEvent),
    ) -> Vec<Vec<u8>> {
        let mut batch = Batch::default();
        if self.net.recv(&mut batch, now) > 0 {
            let mut views = Datagrams::new();
            assert_eq!(self.net.open(&mut batch, &mut views), 0, "no datagrams here");
            drop(views);
            self.net.settle(&mut batch, &Verdicts::new());
        }
        let port = self.net.streams().unwrap();
        port.poll(now);
        while let Some((id, event)) = port.next_event() {
            app(port, id, event);
        }
        self.net.flush();
        assert!(self.net.ledger().balances(), "{}", self.net.ledger());
        self.wire.collect_all().into_iter().map(|(_, packet)| packet).collect()
    }
}

fn echo(port: &mut dyn StreamPort, id: StreamId, event: StreamEvent) {
    while let Ok(bytes) = port.peek(id).map(<[u8]>::to_vec) {
        if bytes.is_empty() {
            break;
        }
        let written = port.write(id, &bytes).unwrap_or(0);
        port.consume(id, written).unwrap();
        if written < bytes.len() {
            return;
        }
    }
    if event == StreamEvent::PeerClosed {
        port.close(id).unwrap();
    }
}

/// Sends `total` bytes and reads them back, over a wire that loses each `lose`-th packet (0: none).
fn echoed(total: usize, lose: usize) -> (Vec<u8>, Vec<StreamEvent>, [StreamStats; 2]) {
    echoed_between([end(0), end(1)], total, lose)
}

fn echoed_between(
    [mut server, mut client]: [End; 2],
    total: usize,
    lose: usize,
) -> (Vec<u8>, Vec<StreamEvent>, [StreamStats; 2]) {
    let mut now = Now { ns: 1_000_000_000, unix_secs: 0 };
    client.turn(now, |_, _, _| ());
    let local = SocketAddr::new(ADDRESSES[1].parse().unwrap(), 0);
    let remote = SocketAddr::new(ADDRESSES[0].parse().unwrap(), PORT);
    let stream = client.net.streams().unwrap().connect(Some(local), remote).unwrap();
    let sent: Vec<u8> = (0..total).map(|n| (n * 31 + n / 255) as u8).collect();
    let (mut at, mut got, mut events, mut packets) = (0, Vec::new(), Vec::new(), 0);
    let mut deliver = |from: Vec<Vec<u8>>, to: &mut End| {
        for packet in from {
            packets += 1;
            if lose == 0 || packets % lose != 0 {
                // A full ring loses it, as a device would.
                let parts: Vec<&[u8]> = packet.chunks(1600).collect();
                let _ = to.wire.inject_chain(0, &parts);
            }
        }
    };
    for _ in 0..200_000 {
        let out = client.turn(now, |port, id, event| {
            assert_eq!(id, stream);
            events.push(event);
            if !matches!(event, StreamEvent::Closed(_)) && at < total {
                at += port.write(id, &sent[at..]).unwrap();
                if at == total {
                    port.shutdown(id, crate::stream::Shutdown::Write).unwrap();
                }
            }
            while let Ok(bytes) = port.peek(id).map(<[u8]>::to_vec) {
                got.extend_from_slice(&bytes);
                port.consume(id, bytes.len()).unwrap();
                if bytes.is_empty() {
                    break;
                }
            }
            if event == StreamEvent::PeerClosed {
                port.close(id).unwrap();
            }
        });
        deliver(out, &mut server);
        deliver(server.turn(now, echo), &mut client);
        now.ns += 200_000;
        if matches!(events.last(), Some(StreamEvent::Closed(_))) {
            break;
        }
    }
    assert!(got == sent, "{} of {total} bytes, {events:?}", got.len());
    let stats = [server.net.stream_stats(), client.net.stream_stats()];
    for mut end in [server, client] {
        end.net.stop_rx();
        end.net.flush();
        end.wire.collect_all();
        end.net.flush();
        let ledger = end.net.close();
        assert!(ledger.balances() && ledger.app == 0, "{ledger}");
    }
    (got, events, stats)
}

#[test]
fn an_echo_over_memory_ports_comes_back_byte_for_byte() {
    let (_, events, [server, client]) = echoed(300_000, 0);
    assert_eq!(events.first(), Some(&StreamEvent::Opened));
    assert_eq!(events.last(), Some(&StreamEvent::Closed(CloseReason::Finished)));
    assert_eq!((server.accepted, client.connected, server.bad_checksum), (1, 1, 0));
    assert_eq!((server.received_bytes, server.sent_bytes), (300_000, 300_000));
}

#[test]
fn what_the_app_reads_at_once_is_read_in_its_frames() {
    let (_, _, [_, client]) = echoed(300_000, 0);
    // The client reads whatever comes; only the peer's window can leave the server some unread.
    assert_eq!((client.in_place_bytes, client.copied_bytes), (300_000, 0), "{client:?}");
    // What comes out of order is neither.
    let (_, _, [server, client]) = echoed(200_000, 23);
    for stats in [server, client] {
        assert!(
            stats.in_place_bytes > 0 && stats.in_place_bytes + stats.copied_bytes <= 200_000,
            "{stats:?}"
        );
    }
}

#[test]
fn what_the_app_leaves_unread_is_copied_and_its_frames_go_back() {
    let (mut server, mut client) = (end(0), end(1));
    let mut now = Now { ns: 1_000_000_000, unix_secs: 0 };
    client.turn(now, |_, _, _| ());
    let local = SocketAddr::new(ADDRESSES[1].parse().unwrap(), 0);
    let remote = SocketAddr::new(ADDRESSES[0].parse().unwrap(), PORT);
    client.net.streams().unwrap().connect(Some(local), remote).unwrap();
    let mut there = None;
    for _ in 0..10 {
        let out = client.turn(now, |port, id, event| {
            if event == StreamEvent::Opened {
                assert_eq!(port.write(id, &[7; 5000]), Ok(5000));
            }
        });
        out.iter().for_each(|packet| server.wire.inject(0, packet).unwrap());
        let back = server.turn(now, |_, id, _| there = Some(id));
        assert_eq!(
            server.net.ledger().held,
            server.net.spare.len() as u64,
            "no frame waits for its reader"
        );
        back.iter().for_each(|packet| client.wire.inject(0, packet).unwrap());
        now.ns += 50_000_000;
    }
    let stats = server.net.stream_stats();
    assert_eq!((stats.in_place_bytes, stats.copied_bytes), (0, 5000), "{stats:?}");
    let port = server.net.streams().unwrap();
    let (id, mut read) = (there.unwrap(), 0);
    while let Ok(bytes) = port.peek(id).map(<[u8]>::to_vec) {
        if bytes.is_empty() {
            break;
        }
        assert!(bytes.iter().all(|byte| *byte == 7));
        read += bytes.len();
        port.consume(id, bytes.len()).unwrap();
    }
    assert_eq!(read, 5000);
}

#[test]
fn segments_longer_than_a_frame_go_in_chains_both_ways() {
    let (_, events, [server, client]) = echoed_between([0, 1].map(|at| end_of(at, 9000, 8)), 600_000, 0);
    assert_eq!(events.last(), Some(&StreamEvent::Closed(CloseReason::Finished)));
    // 600,000 bytes in segments of 8,948 are 68; in segments of 1,448 they would be 415.
    for stats in [server, client] {
        assert!(stats.segments_sent < 300 && stats.bad_checksum == 0 && stats.unsent == 0, "{stats:?}");
    }
    echoed_between([0, 1].map(|at| end_of(at, 9000, 8)), 600_000, 17);
}

#[test]
fn a_wire_that_loses_packets_loses_no_byte() {
    let (_, _, [server, client]) = echoed(200_000, 23);
    assert!(server.retransmitted > 0 && client.retransmitted > 0, "{server:?} {client:?}");
}

#[test]
fn a_stream_of_another_generation_is_stale() {
    let mut server = end(0);
    let port = server.net.streams().unwrap();
    let id = StreamId { slot: 3, generation: 9 };
    assert_eq!(port.write(id, b"x"), Err(StreamError::Stale));
    assert_eq!(port.peek(id).err(), Some(StreamError::Stale));
    assert_eq!(port.close(id), Err(StreamError::Stale));
}
