//! The receiving half against a hand-made peer: acknowledgments, windows, order, and what is refused.

mod harness;

use harness::peer::*;
use std::time::Duration;
use volley_tcp::{Config, ConnectionOptions, Drop, EventKind, ListenOptions, SocketOption};

#[test]
fn acknowledgments_wait_for_company_or_the_timer() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    let full = [1u8; 1460];
    lab.silent(seg(ACK, 1001, next).data(&full));
    let sent = lab.wait(Duration::from_millis(60));
    assert_eq!((sent.len(), sent[0].0, sent[0].1.ack), (1, 40, 2461));
    // Every second full segment at once.
    lab.silent(seg(ACK, 2461, next).data(&full));
    assert_eq!(lab.one(seg(ACK, 3921, next).data(&full)).ack, 5381);
    // A reply carries it.
    lab.silent(seg(ACK, 5381, next).data(b"ping"));
    lab.stack.write(id, b"pong").unwrap();
    let r = lab.out();
    assert_eq!((r.len(), r[0].ack, r[0].payload.as_slice()), (1, 5385, &b"pong"[..]));
    assert!(lab.wait(Duration::from_millis(100)).iter().all(|(_, s)| s.payload == b"pong"));
    lab.stack.set_option(id, SocketOption::DelayedAck(Duration::ZERO)).unwrap();
    assert_eq!(lab.one(seg(ACK, 5385, next + 4).data(b"now")).ack, 5388);
    // One for a whole burst.
    lab.put(&(0..8).map(|i| seg(ACK, 5388 + i * 1460, next + 4).data(&full)).collect::<Vec<_>>());
    assert_eq!(lab.out().iter().map(|s| s.ack).collect::<Vec<_>>(), [5388 + 8 * 1460]);
}

#[test]
fn out_of_order_data_is_kept_reported_and_joined() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.sacking();
    let part = |from: u32, len: usize| seg(ACK, 1001 + from, next).data(&vec![from as u8; len]);
    let a = lab.one(part(100, 50));
    assert_eq!((a.ack, a.sack_blocks()), (1001, vec![(1101, 1151)]));
    let a = lab.one(part(200, 50));
    assert_eq!(a.sack_blocks(), [(1201, 1251), (1101, 1151)]);
    let a = lab.one(part(150, 50));
    assert_eq!(a.sack_blocks(), [(1101, 1251)]);
    // RFC 2883: a duplicate is told first, once.
    let a = lab.one(part(100, 20));
    assert_eq!(a.sack_blocks(), [(1101, 1121), (1101, 1251)]);
    let a = lab.one(part(0, 60));
    assert_eq!((a.ack, a.sack_blocks()), (1061, vec![(1101, 1251)]));
    // Overlaps both what has arrived and what waits.
    let a = lab.one(seg(ACK, 1001 + 50, next).data(&[9; 100]));
    assert_eq!(a.ack, 1251);
    assert!(a.sack_blocks().len() <= 1);
    let mut got = Vec::new();
    while let Some(bytes) = lab.stack.peek(id).ok().filter(|b| !b.is_empty()).map(<[u8]>::to_vec) {
        lab.stack.read(id, bytes.len()).unwrap();
        got.extend(bytes);
    }
    let expected = [vec![0u8; 60], vec![9; 90], vec![150; 50], vec![200; 50]].concat();
    assert!(got == expected);
    assert_eq!(lab.stack.population().chunks, 0);
    // All of it old: acknowledged and reported.
    let a = lab.one(part(0, 60));
    assert_eq!((a.ack, a.sack_blocks()), (1251, vec![(1001, 1061)]));
}

#[test]
fn the_window_closes_and_opens_by_whole_steps() {
    let connection = ConnectionOptions { receive_buffer: 10_000, ..Default::default() };
    let mut lab = Lab::with(Config::default(), ListenOptions { connection, ..Default::default() });
    let (id, next) = lab.plain();
    let mut at = 1001;
    let mut last = 10_000;
    for _ in 0..6 {
        for a in lab.inject(seg(ACK, at, next).data(&[1; 1460])) {
            assert!(u32::from(a.window) + a.ack - 1001 <= 10_000);
            last = a.window;
        }
        at += 1460;
    }
    assert_eq!(last, 10_000 - 6 * 1460);
    // 1,240 bytes are left: the rest of a larger segment is cut off.
    let a = lab.one(seg(ACK, at, next).data(&[1; 1460]));
    assert_eq!((a.ack, a.window), (11_001, 0));
    let a = lab.one(seg(ACK, 11_001, next).data(&[1; 100]));
    assert_eq!((a.ack, a.window), (11_001, 0));
    // Silly window avoidance: a little room is not told, half the buffer or a segment is.
    lab.stack.read(id, 1000).unwrap();
    assert!(lab.out().is_empty());
    lab.stack.read(id, 1000).unwrap();
    let a = lab.out();
    assert_eq!((a.len(), a[0].window), (1, 2000));
    // Out of the window: an acknowledgment, nothing taken.
    let a = lab.one(seg(ACK, 11_001 + 5_000, next).data(b"far"));
    assert_eq!(a.ack, 11_001);
    assert_eq!(lab.stack.counters().dropped(Drop::OutOfWindow), 1);
}

#[test]
fn window_scale_counts_only_when_both_have_said_so() {
    let connection = ConnectionOptions { receive_buffer: 1 << 20, ..Default::default() };
    let mut lab = Lab::with(Config::default(), ListenOptions { connection, ..Default::default() });
    let (id, next) = lab.accepted(seg(SYN, 1000, 0).mss(1460).scale(9).window(1000));
    let info = lab.stack.info(id).unwrap();
    assert_eq!(info.window_scale, (9, 5));
    assert_eq!(info.send_window, 1000 << 9);
    let a = lab.inject(seg(ACK, 1001, next).data(&[1; 1460]).window(10));
    let b = lab.inject(seg(ACK, 2461, next).data(&[1; 1460]).window(10));
    let a = [a, b].concat();
    assert_eq!(lab.stack.info(id).unwrap().send_window, 10 << 9);
    assert!(u32::from(a.last().unwrap().window) << 5 > 1_000_000 - 3_000);
}

#[test]
fn old_timestamps_are_refused_and_missing_ones_too() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.accepted(seg(SYN, 1000, 0).mss(1460).ts(5000, 0));
    let mine = lab.stack.info(id).unwrap();
    assert!(mine.timestamps);
    lab.put(&[seg(ACK, 1001, next).ts(5010, 0).data(b"new")]);
    lab.out();
    // PAWS (RFC 7323, section 5): acknowledged and dropped.
    let a = lab.one(seg(ACK, 1004, next).ts(4999, 0).data(b"old"));
    assert_eq!((a.ack, a.stamps().map(|s| s.1)), (1004, Some(5010)));
    assert_eq!(lab.stack.counters().dropped(Drop::Paws), 1);
    lab.silent(seg(ACK, 1004, next).data(b"none"));
    assert_eq!(lab.stack.counters().dropped(Drop::MissingTimestamp), 1);
    // TS.Recent is what stood at the left edge: data that fills no gap does not move it.
    let a = lab.one(seg(ACK, 1104, next).ts(6000, 0).data(b"ahead"));
    assert_eq!(a.stamps().map(|s| s.1), Some(5010));
    // A reset needs none.
    lab.silent(seg(RST, 1004, 0));
    assert!(matches!(lab.kinds(id).last(), Some(EventKind::Closed(_))));
}

#[test]
fn sequence_numbers_wrap() {
    let mut lab = Lab::new(Config::default());
    let irs = u32::MAX - 5;
    let (id, next) = lab.accepted(seg(SYN, irs, 0).mss(1460));
    lab.put(&[seg(ACK, irs.wrapping_add(6), next).data(b"world")]);
    lab.out();
    let a = lab.inject(seg(ACK, irs.wrapping_add(1), next).data(b"hello"));
    assert_eq!(a.last().unwrap().ack, irs.wrapping_add(11));
    let mut got = Vec::new();
    while let Some(bytes) = lab.stack.peek(id).ok().filter(|b| !b.is_empty()).map(<[u8]>::to_vec) {
        lab.stack.read(id, bytes.len()).unwrap();
        got.extend(bytes);
    }
    assert_eq!(got, b"helloworld");
}

#[test]
fn a_fin_before_its_turn_waits_and_data_beyond_it_is_none() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    lab.inject(seg(FIN | ACK, 1005, next).data(b"efg"));
    assert!(!lab.kinds(id).contains(&EventKind::PeerClosed));
    let a = lab.inject(seg(ACK, 1001, next).data(b"abcd"));
    assert_eq!(a.last().unwrap().ack, 1009);
    assert_eq!(lab.kinds(id).iter().filter(|k| **k == EventKind::PeerClosed).count(), 1);
    let a = lab.inject(seg(ACK, 1009, next).data(b"more"));
    assert_eq!(a.last().unwrap().ack, 1009);
    assert_eq!(lab.stack.counters().dropped(Drop::AfterFin), 1);
    assert_eq!(lab.stack.unread(id), Ok(7));
}

#[test]
fn the_low_water_mark_holds_readable_back() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    lab.stack.set_option(id, SocketOption::LowWater(10)).unwrap();
    lab.put(&[seg(ACK, 1001, next).data(b"12345")]);
    assert!(!lab.kinds(id).contains(&EventKind::Readable));
    lab.put(&[seg(ACK, 1006, next).data(b"67890")]);
    assert_eq!(lab.kinds(id).iter().filter(|k| **k == EventKind::Readable).count(), 1);
}

#[test]
fn an_empty_pool_shrinks_the_window_and_out_of_order_data_goes_first() {
    let config = Config { pool_bytes: 64 * 1024, ..Config::default() };
    let mut lab = Lab::new(config);
    let (id, next) = lab.sacking();
    // Much out of order, up to the pool's reserve.
    let mut at = 3000;
    for _ in 0..60 {
        lab.inject(seg(ACK, at, next).data(&[2; 1000]));
        at += 1000;
    }
    let held = lab.stack.population().chunks;
    assert!(held > 100 && lab.stack.counters().dropped(Drop::NoMemory) > 0, "{held}");
    // In order, unread: it gets its chunks, at the expense of the others if need be.
    let mut in_order = 1001;
    let mut windows = Vec::new();
    for _ in 0..40 {
        for a in lab.inject(seg(ACK, in_order, next).data(&[1; 990])) {
            in_order = a.ack.max(in_order);
            windows.push(a.window);
        }
        if in_order > 3000 {
            break;
        }
        in_order += if windows.is_empty() { 990 } else { 0 };
    }
    let memory = lab.stack.memory();
    assert!(memory.pool_used <= 64 * 1024);
    assert!(windows.iter().any(|w| *w < 30_000), "{windows:?}");
    let unread = lab.stack.unread(id).unwrap();
    assert!(unread >= 990);
    // Reading frees it all, and the window opens.
    lab.stack.read(id, unread).unwrap();
    assert!(lab.out().iter().any(|a| a.window > 30_000));
}
