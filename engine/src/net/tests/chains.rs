//! Packets over several frames: answered whole or dropped by reason.

use super::*;

fn jumbo(max_segments: usize) -> Wired {
    wired(&MemoryConfig { mtu: 9000, max_segments, ..config() })
}

fn cut(bytes: &[u8], first: usize, rest: usize) -> Vec<&[u8]> {
    let (head, tail) = bytes.split_at(first);
    std::iter::once(head).chain(tail.chunks(rest)).collect()
}

#[test]
fn chains_are_answered_whole() {
    for ends in [V4, V6] {
        let mut there = packet(ends, &count(5001));
        there.padding = 3;
        there.tags = vec![Tag { tpid: 0x8100, tci: 3 }];
        for (first, rest) in [(1700, 1700), (66, 1701), (1501, 1333)] {
            let bytes = there.build();
            let mut wired = jumbo(8);
            let segments = cut(&bytes, first, rest);
            wired.wire.inject_chain(0, &segments).unwrap();
            wired.run(|view| {
                assert_eq!(view.payload(), there.payload);
                echo(view);
            });
            assert_eq!(wired.wire.collect_all(), [(0, unpadded(&turned(&there)))]);

            // Changed answers, shorter and longer, and one of no more than the first frame.
            for len in [0, 1, 100, 1700, 4999, 5002, 5300] {
                wired.wire.inject_chain(0, &segments).unwrap();
                wired.run(|view| {
                    view.room_mut()[..len].fill(0xab);
                    view.reply(len);
                });
                let expected = Packet { payload: vec![0xab; len], ..turned(&there) };
                assert!(wired.wire.collect_all() == [(0, unpadded(&expected))], "answer of {len} bytes");
            }
        }
    }
}

#[test]
fn chains_with_options_are_answered_without() {
    let mut there = packet(V6, &count(3000));
    there.extensions = vec![(protocol::DESTINATION, vec![0; 8])];
    let bytes = there.build();
    let mut wired = jumbo(4);
    for changed in [false, true] {
        wired.wire.inject_chain(0, &cut(&bytes, 900, 1200)).unwrap();
        wired.run(|view| {
            if changed {
                view.room_mut();
            }
            echo(view);
        });
        assert_eq!(wired.wire.collect_all(), [(0, unpadded(&turned(&there)))]);
    }
}

#[test]
fn chains_that_cannot_be_answered_are_dropped_by_reason() {
    let there = packet(V4, &count(5000));
    let bytes = there.build();
    let mut wired = jumbo(6);
    let mut reason = |segments: &[&[u8]], app: &mut dyn FnMut(&mut Datagram<'_>)| {
        let before = wired.net.stats().dropped;
        wired.wire.inject_chain(0, segments).unwrap();
        wired.run(app);
        assert!(wired.wire.collect_all().is_empty());
        let after = wired.net.stats().dropped;
        DropReason::ALL.iter().copied().find(|r| after[*r as usize] != before[*r as usize])
    };
    // Headers that go on in the second frame.
    assert_eq!(reason(&cut(&bytes, 30, 1700), &mut echo), Some(DropReason::Runt));
    let mut broken = bytes.clone();
    broken[4000] ^= 1;
    assert_eq!(reason(&cut(&broken, 1700, 1700), &mut echo), Some(DropReason::UdpChecksum));
    assert_eq!(
        reason(&cut(&bytes, 1700, 1700), &mut |view| view.reply(9000)),
        Some(DropReason::AnswerTooLong)
    );
    assert_eq!(
        reason(&cut(&bytes, 1700, 1700), &mut |view| view.reply(8000)),
        Some(DropReason::AnswerTooLong)
    );
    assert_eq!(reason(&cut(&bytes, 1700, 1700), &mut |view| view.consume()), None);
    assert_eq!(wired.net.stats().consumed, 1);

    // More segments than the port says it can send.
    wired.net.max_segments = 2;
    wired.wire.inject_chain(0, &cut(&bytes, 1700, 1700)).unwrap();
    wired.run(echo);
    assert_eq!(wired.net.stats().dropped[DropReason::ChainTooLong as usize], 1);
}

#[test]
fn chains_and_single_frames_share_a_burst() {
    let (long, short) = (packet(V4, &count(4000)), packet(V6, b"short"));
    let (long_bytes, short_bytes) = (long.build(), short.build());
    let mut wired = jumbo(4);
    for _ in 0..20 {
        wired.wire.inject(0, b"rubbish").unwrap();
        wired.wire.inject_chain(0, &cut(&long_bytes, 1500, 1600)).unwrap();
        wired.wire.inject(0, &short_bytes).unwrap();
        wired.wire.inject_chain(0, &cut(&long_bytes, 1600, 1400)).unwrap();
    }
    let mut turn = 0;
    wired.run(|view| {
        turn += 1;
        match turn % 5 {
            0 => view.drop(DropReason::AppRateLimited),
            1 => {
                view.room_mut();
                echo(view);
            }
            _ => echo(view),
        }
    });
    let stats = wired.net.stats();
    assert_eq!((stats.received, stats.answered, stats.dropped_total()), (60, 48, 20 + 12));
    for (_, bytes) in wired.wire.collect_all() {
        let expected = if bytes.len() > 1000 { &long } else { &short };
        assert_eq!(bytes, unpadded(&turned(expected)));
    }
}
