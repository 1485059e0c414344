//! The sending half against a hand-made peer: timeouts, loss, windows, and what holds data back.

mod harness;

use harness::peer::*;
use std::time::Duration;
use volley_tcp::{
    CloseReason, Config, ConnectionId, ConnectionOptions, Ecn, EventKind, IcmpError, IcmpMessage,
    KeepAlive, ListenOptions, SocketOption,
};

const MSS: u32 = 1000;

/// A connection with an MSS of 1,000 bytes and plenty of window; the stack's next sequence number.
fn lab(sack: bool, config: Config) -> (Lab, ConnectionId, u32) {
    let mut lab = Lab::new(config);
    lab.rtt = Duration::from_millis(40);
    let syn = seg(SYN, 1000, 0).mss(MSS as u16);
    let (id, next) = lab.accepted(if sack { syn.sack_ok() } else { syn });
    (lab, id, next)
}

/// The parts of what was sent: offset from `base` and length.
fn parts(sent: &[Seg], base: u32) -> Vec<(u32, usize)> {
    sent.iter()
        .filter(|s| !s.payload.is_empty())
        .map(|s| (s.seq.wrapping_sub(base), s.payload.len()))
        .collect()
}

fn ack(next: u32) -> Seg {
    seg(ACK, 1001, next)
}

#[test]
fn the_first_window_is_ten_segments_and_slow_start_doubles_it() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.write(id, &[7; 50_000]).unwrap();
    assert_eq!(lab.out().len(), 10);
    // Each acknowledgment of two segments lets four out.
    for i in 1..=5 {
        assert_eq!(lab.inject(ack(base + 2 * i * MSS)).len(), 4);
    }
    assert_eq!(lab.stack.info(id).unwrap().cwnd, 20_000);
}

#[test]
fn the_retransmission_timeout_doubles_from_its_minimum_until_a_segment_sent_once_is_acknowledged() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.wait(Duration::from_millis(500));
    lab.stack.write(id, b"0123456789").unwrap();
    let sent = lab.wait(Duration::from_millis(3_500));
    // The round trip is short: 200 ms is the minimum, then 400, 800, 1600.
    assert_eq!(sent.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 200, 600, 1400, 3000]);
    assert!(sent.iter().all(|(_, s)| s.seq == base && s.payload == b"0123456789"));
    assert_eq!(lab.stack.info(id).unwrap().cwnd, MSS);
    // No sample: it stays backed off, at three seconds at the most.
    lab.silent(ack(base + 10));
    assert_eq!(lab.stack.info(id).unwrap().backoff, 3);
    assert!(lab.wait(Duration::from_secs(100)).is_empty());
    lab.stack.write(id, b"x").unwrap();
    assert_eq!(lab.out().len(), 1);
    lab.silent(ack(base + 11));
    assert_eq!(lab.stack.info(id).unwrap().backoff, 0);
}

#[test]
fn without_a_round_trip_time_the_timeout_is_one_second() {
    let mut lab = Lab::new(Config::default());
    let first = lab.one(seg(SYN, 1000, 0).mss(1000));
    // SYN-ACK is sent twice, so that nobody knows the round trip.
    lab.wait(Duration::from_millis(1_100));
    lab.silent(ack(first.seq + 1));
    let id = lab.stack.accept(lab.listener).unwrap();
    lab.stack.write(id, &[1; 2000]).unwrap();
    let sent = lab.wait(Duration::from_secs(4));
    // RFC 6298, 5.7: three seconds after a lost SYN; RFC 5681: a window of one segment.
    assert_eq!(sent.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 3000]);
}

#[test]
fn three_duplicates_bring_the_first_segment_back_and_a_partial_acknowledgment_the_next() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.write(id, &[7; 30_000]).unwrap();
    assert_eq!(lab.out().len(), 10);
    // Segments 0 and 4 are lost. RFC 3042: the first two duplicates let one new segment out each.
    assert_eq!(parts(&lab.inject(ack(base)), base), [(10_000, 1000)]);
    assert_eq!(parts(&lab.inject(ack(base)), base), [(11_000, 1000)]);
    let third = lab.inject(ack(base));
    assert_eq!(parts(&third, base)[0], (0, 1000));
    assert_eq!(lab.stack.counters().fast_recoveries, 1);
    for _ in 0..5 {
        lab.inject(ack(base));
    }
    // RFC 6582: the partial acknowledgment says that segment 4 is lost, too.
    let partial = lab.inject(ack(base + 4000));
    assert_eq!(parts(&partial, base)[0], (4000, 1000));
    assert!(lab.stack.info(id).unwrap().recovering);
    lab.inject(ack(base + 12_000));
    let info = lab.stack.info(id).unwrap();
    assert!(!info.recovering);
    assert_eq!((info.cwnd, info.ssthresh), (info.ssthresh, info.ssthresh));
    assert!((7_000..=8_400).contains(&info.cwnd), "{}: 0.7 of what was in flight", info.cwnd);
    assert_eq!(lab.stack.counters().timeouts, 0);
}

#[test]
fn newreno_halves() {
    let connection = ConnectionOptions {
        congestion_control: volley_tcp::CongestionControl::NewReno,
        ..Default::default()
    };
    let mut lab = Lab::with(Config::default(), ListenOptions { connection, ..Default::default() });
    let (id, base) = lab.accepted(seg(SYN, 1000, 0).mss(MSS as u16));
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.out();
    for _ in 0..3 {
        lab.inject(ack(base));
    }
    assert_eq!(lab.stack.info(id).unwrap().ssthresh, 5_000);
}

#[test]
fn sacked_segments_are_not_sent_again_and_the_holes_are() {
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 10_000]).unwrap();
    assert_eq!(lab.out().len(), 10);
    lab.now = lab.now + Duration::from_millis(50);
    // 0 and 5 are missing.
    let mut sent = Vec::new();
    sent.extend(lab.inject(ack(base).sack(&[(base + 1000, base + 2000)])));
    sent.extend(lab.inject(ack(base).sack(&[(base + 1000, base + 3000)])));
    assert!(parts(&sent, base).is_empty());
    sent.extend(lab.inject(ack(base).sack(&[(base + 1000, base + 4000)])));
    assert_eq!(parts(&sent, base), [(0, 1000)]);
    sent.extend(lab.inject(ack(base).sack(&[(base + 6000, base + 9000), (base + 1000, base + 5000)])));
    sent.extend(lab.inject(ack(base).sack(&[(base + 6000, base + 10_000), (base + 1000, base + 5000)])));
    assert_eq!(parts(&sent, base), [(0, 1000), (5000, 1000)]);
    lab.inject(ack(base + 10_000));
    assert!(lab.wait(Duration::from_secs(10)).is_empty());
    assert_eq!(lab.stack.info(id).unwrap().queued, 0);
}

#[test]
fn reordering_is_no_loss_once_it_has_been_seen() {
    let (mut lab, id, base) = lab(true, Config::default());
    let rtt = Duration::from_millis(40);
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.out();
    lab.now = lab.now + rtt;
    // Segment 0 arrives last, by a hair: seen as reordering, since it was sent once and comes after later ones.
    lab.inject(ack(base).sack(&[(base + 1000, base + 2000)]));
    lab.inject(ack(base + 10_000));
    assert!(lab.stack.info(id).unwrap().reordering);
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.out();
    lab.now = lab.now + rtt;
    let base = base + 10_000;
    for end in [2000, 3000, 4000, 5000, 6000] {
        assert!(
            lab.inject(ack(base).sack(&[(base + 1000, base + end)])).is_empty(),
            "sent again although reordered"
        );
    }
    // A quarter of the round trip later it is lost after all (RFC 8985, the reordering timer).
    let sent = lab.wait(Duration::from_millis(30));
    assert_eq!(sent.iter().filter(|(_, s)| s.seq == base).count(), 1);
    assert!((9..=12).contains(&sent[0].0), "{} ms", sent[0].0);
}

#[test]
fn a_recovery_that_only_reordering_caused_is_undone_by_the_duplicate_report() {
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.out();
    let before = lab.stack.info(id).unwrap().cwnd;
    lab.now = lab.now + Duration::from_millis(40);
    let sent = lab.inject(ack(base).sack(&[(base + 1000, base + 5000)]));
    assert_eq!(parts(&sent, base)[0], (0, 1000));
    // The original arrives after all, then the retransmission: RFC 2883 reports it, RFC 3708 draws the conclusion.
    lab.inject(ack(base + 10_000));
    assert!(lab.stack.info(id).unwrap().cwnd < before);
    lab.inject(ack(base + 10_000).sack(&[(base, base + 1000)]));
    assert_eq!((lab.stack.info(id).unwrap().cwnd, lab.stack.counters().undone_recoveries), (before, 1));
}

#[test]
fn a_loss_shown_by_the_last_acknowledgment_of_a_burst_costs_no_more_than_one() {
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.out();
    lab.now = lab.now + Duration::from_millis(40);
    lab.put(&[
        ack(base + 3000),
        ack(base + 6000),
        ack(base + 6000).sack(&[(base + 7000, base + 8000)]),
        ack(base + 6000).sack(&[(base + 7000, base + 10_000)]),
    ]);
    assert_eq!(lab.stack.counters().fast_recoveries, 1);
    assert!(lab.stack.info(id).unwrap().ssthresh >= 7000, "{}", lab.stack.info(id).unwrap().ssthresh);
}

#[test]
fn the_tail_is_probed_before_the_timeout() {
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 1000]).unwrap();
    lab.out();
    lab.now = lab.now + Duration::from_millis(40);
    lab.inject(ack(base + 1000));
    lab.stack.write(id, &[7; 3000]).unwrap();
    let sent = lab.wait(Duration::from_millis(150));
    let late: Vec<_> = sent.iter().filter(|(at, _)| *at > 0).collect();
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].1.seq, lab.stack.counters().tail_probes), (base + 3000, 1));
    // RFC 8985, 7.2: twice the smoothed round trip.
    let rtt = lab.stack.info(id).unwrap().rtt.unwrap().as_millis() as u64;
    assert!((2 * rtt..2 * rtt + 3).contains(&late[0].0), "{} ms of {rtt}", late[0].0);
    // The probe's SACK shows that the two before it are lost.
    let sent = lab.inject(ack(base + 1000).sack(&[(base + 3000, base + 4000)]));
    let again: Vec<_> =
        lab.wait(Duration::from_millis(60)).into_iter().map(|(_, s)| s).chain(sent).collect();
    assert!(parts(&again, base).contains(&(1000, 1000)), "{:?}", parts(&again, base));
    assert_eq!(lab.stack.counters().timeouts, 0);
}

#[test]
fn a_timeout_that_only_delay_caused_is_undone() {
    // F-RTO (RFC 5682): no timestamps. The acknowledgments were merely late.
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 12_000]).unwrap();
    assert_eq!(lab.out().len(), 10);
    let before = lab.stack.info(id).unwrap().cwnd;
    let sent = lab.wait(Duration::from_millis(300));
    assert!(lab.stack.counters().timeouts == 1, "{sent:?}");
    // The originals arrive one after the other.
    let sent = lab.inject(ack(base + 1000));
    let sent = [sent, lab.inject(ack(base + 2000)), lab.inject(ack(base + 3000))].concat();
    assert_eq!(lab.stack.counters().spurious_timeouts, 1);
    assert!(lab.stack.info(id).unwrap().cwnd >= before);
    assert!(parts(&sent, base).iter().all(|(at, _)| *at >= 10_000), "went back: {:?}", parts(&sent, base));
}

#[test]
fn a_real_timeout_goes_back_and_everything_is_sent_again() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.write(id, &[7; 5_000]).unwrap();
    lab.out();
    let sent = lab.wait(Duration::from_millis(250));
    assert_eq!(parts(&sent.into_iter().map(|(_, s)| s).collect::<Vec<_>>(), base), [(0, 1000)]);
    let mut got = 1000;
    let mut rounds = 0;
    while got < 5000 {
        let sent = lab.inject(ack(base + got));
        for (at, len) in parts(&sent, base) {
            if at == got {
                got += len as u32;
            }
        }
        rounds += 1;
        assert!(rounds < 20, "stuck at {got}");
    }
    lab.inject(ack(base + 5000));
    assert_eq!(lab.stack.info(id).unwrap().queued, 0);
}

#[test]
fn a_closed_window_is_probed_with_one_byte_for_as_long_as_the_peer_answers() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.inject(ack(base).window(0));
    lab.stack.write(id, &[7; 3000]).unwrap();
    let sent = lab.wait(Duration::from_millis(1_500));
    let probes: Vec<_> =
        sent.iter().map(|(at, s)| (*at, s.seq.wrapping_sub(base), s.payload.len())).collect();
    assert_eq!(probes, [(200, 0, 1), (600, 0, 1), (1400, 0, 1)]);
    // The peer answers every probe without opening, for an hour: no end (RFC 9293, MUST-37).
    for _ in 0..60 {
        lab.wait(Duration::from_secs(60));
        lab.inject(ack(base).window(0));
    }
    assert!(lab.kinds(id).iter().all(|k| !matches!(k, EventKind::Closed(_))));
    let sent = lab.inject(ack(base));
    let mut have = parts(&sent, base);
    have.sort_unstable();
    assert_eq!(have.iter().map(|p| p.1).sum::<usize>(), 3000, "{have:?}");
    // A peer that does not answer at all is given up.
    let (mut lab, id, base) = self::lab(false, Config::default());
    lab.inject(ack(base).window(0));
    lab.stack.write(id, &[7; 3000]).unwrap();
    lab.wait(Duration::from_secs(400));
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::TimedOut)));
}

#[test]
fn small_segments_wait_with_nagle_and_with_cork_and_for_half_a_window() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.set_option(id, SocketOption::NoDelay(false)).unwrap();
    lab.stack.write(id, b"a").unwrap();
    assert_eq!(lab.out().len(), 1);
    lab.stack.write(id, b"b").unwrap();
    assert!(lab.out().is_empty(), "Nagle");
    lab.stack.write(id, &[b'c'; 1500]).unwrap();
    assert_eq!(parts(&lab.out(), base), [(1, 1000)]);
    assert_eq!(parts(&lab.inject(ack(base + 1001)), base), [(1001, 501)]);
    lab.inject(ack(base + 1502));
    lab.stack.set_option(id, SocketOption::NoDelay(true)).unwrap();
    lab.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    lab.stack.write(id, b"head").unwrap();
    lab.stack.write(id, b"body").unwrap();
    let o = lab.out();
    assert!(o.is_empty(), "cork {o:?}");
    lab.stack.set_option(id, SocketOption::Cork(false)).unwrap();
    assert_eq!(lab.out()[0].payload, b"headbody");
    lab.inject(ack(base + 1510));
    lab.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    lab.stack.write(id, b"x").unwrap();
    let sent = lab.wait(Duration::from_millis(300));
    assert_eq!((sent.len(), sent[0].0), (1, 200), "cork holds 200 ms at most");
    lab.inject(ack(base + 1511));
    // Silly window: less than a segment and less than half of the largest window is not used, until the override.
    lab.stack.set_option(id, SocketOption::Cork(false)).unwrap();
    lab.inject(ack(base + 1511).window(100));
    lab.stack.write(id, &[1; 2000]).unwrap();
    assert!(lab.out().is_empty(), "silly window");
    let sent = lab.wait(Duration::from_secs(1));
    assert_eq!(sent[0].1.payload.len(), 100);
}

#[test]
fn a_shrunken_window_does_no_harm() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.write(id, &[7; 5000]).unwrap();
    assert_eq!(lab.out().len(), 5);
    lab.inject(ack(base + 1000).window(500));
    lab.stack.write(id, &[7; 5000]).unwrap();
    assert!(lab.out().is_empty());
    let sent = lab.inject(ack(base + 5000).window(60_000));
    assert_eq!(parts(&sent, base).len(), 5);
}

#[test]
fn user_timeout_and_keep_alive_end_a_dead_connection() {
    let (mut lab, id, _) = lab(false, Config::default());
    lab.stack.set_option(id, SocketOption::UserTimeout(Some(Duration::from_secs(20)))).unwrap();
    lab.stack.write(id, b"x").unwrap();
    let sent = lab.wait(Duration::from_secs(60));
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::TimedOut)));
    assert!(sent.last().unwrap().1.flags & RST != 0);
    assert!((19_000..30_000).contains(&sent.last().unwrap().0), "{}", sent.last().unwrap().0);

    let (mut lab, id, base) = self::lab(false, Config::default());
    let keep = KeepAlive { idle: Duration::from_secs(10), interval: Duration::from_secs(5), probes: 3 };
    lab.stack.set_option(id, SocketOption::KeepAlive(Some(keep))).unwrap();
    let sent = lab.wait(Duration::from_secs(12));
    assert_eq!(sent.len(), 1, "{sent:?}");
    // RFC 9293, section 3.8.4: a sequence number already acknowledged.
    assert_eq!((sent[0].0, sent[0].1.seq, sent[0].1.payload.len()), (10_000, base - 1, 0));
    lab.silent(ack(base));
    let sent = lab.wait(Duration::from_secs(40));
    assert_eq!(sent.iter().filter(|(_, s)| s.flags == ACK).count(), 3);
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::TimedOut)));
}

#[test]
fn a_smaller_path_is_believed_only_with_a_sequence_number_in_flight() {
    let (mut lab, id, base) = lab(true, Config::default());
    lab.stack.write(id, &[7; 3000]).unwrap();
    lab.out();
    let message = |sequence, mtu| IcmpMessage {
        error: IcmpError::TooBig(mtu),
        local: "192.0.2.1:80".parse().unwrap(),
        remote: "192.0.2.2:5000".parse().unwrap(),
        sequence,
    };
    assert!(!lab.stack.icmp(&message(base - 1, 600)));
    assert!(!lab.stack.icmp(&message(base + 3000, 600)));
    assert_eq!(lab.stack.info(id).unwrap().mss, 1000);
    assert!(lab.stack.icmp(&message(base, 600)));
    assert_eq!((lab.stack.info(id).unwrap().mss, lab.stack.info(id).unwrap().mtu), (560, 600));
    let sent = lab.out();
    assert!(sent.iter().all(|s| s.payload.len() <= 560), "{:?}", parts(&sent, base));
    assert_eq!(parts(&sent, base).iter().map(|p| p.1).sum::<usize>(), 3000);
    // Never below the floor.
    assert!(lab.stack.icmp(&message(base, 68)));
    assert_eq!(lab.stack.info(id).unwrap().mtu, 552);
    // Unreachable ends only what is not yet open.
    let mut unreachable = message(base, 0);
    unreachable.error = IcmpError::Unreachable;
    assert!(lab.stack.icmp(&unreachable));
    assert!(lab.kinds(id).iter().all(|k| !matches!(k, EventKind::Closed(_))));
    lab.out();
    let (id, syn) = lab.syn_sent();
    let unreachable = IcmpMessage {
        error: IcmpError::Unreachable,
        local: lab.local,
        remote: lab.remote,
        sequence: syn.seq,
    };
    assert!(lab.stack.icmp(&unreachable));
    lab.wait(Duration::ZERO);
    assert_eq!(lab.kinds(id), [EventKind::Closed(CloseReason::Unreachable)]);
}

#[test]
fn ecn_is_negotiated_marks_data_and_reduces_once_a_window() {
    let mut lab = Lab::new(Config { ecn: Ecn::Accept, ..Config::default() });
    let a = lab.one(seg(SYN | ECE | CWR, 1000, 0).mss(1000));
    assert_eq!(a.flags, SYN | ACK | ECE);
    lab.silent(ack(a.seq + 1));
    let base = a.seq + 1;
    let id = lab.stack.accept(lab.listener).unwrap();
    lab.stack.write(id, &[7; 10_000]).unwrap();
    let sent = lab.out();
    assert!(sent.iter().all(|s| s.ecn == 2), "ECT(0) on data");
    let before = lab.stack.info(id).unwrap().cwnd;
    lab.put(&[seg(ACK | ECE, 1001, base + 1000)]);
    let reduced = lab.stack.info(id).unwrap().cwnd;
    assert!(reduced < before * 3 / 4);
    lab.put(&[seg(ACK | ECE, 1001, base + 2000)]);
    assert_eq!(lab.stack.counters().ecn_reductions, 1);
    lab.stack.write(id, &[7; 10_000]).unwrap();
    lab.put(&[ack(base + 9000)]);
    let sent = lab.out();
    assert_eq!(sent.iter().filter(|s| s.flags & CWR != 0).count(), 1, "CWR once, on new data");
    assert!(sent[0].flags & CWR != 0);
    // A mark on what we receive is echoed until CWR.
    lab.stack.set_option(id, SocketOption::DelayedAck(Duration::ZERO)).unwrap();
    let a = lab.inject(seg(ACK, 1001, base + 9000).data(&[1; 2000]).ecn(3));
    assert!(a.last().unwrap().flags & ECE != 0);
    let a = lab.inject(seg(ACK, 3001, base + 9000).data(&[1; 2000]));
    assert!(a.last().unwrap().flags & ECE != 0);
    let a = lab.inject(seg(ACK | CWR, 5001, base + 9000).data(&[1; 2000]));
    assert!(a.last().unwrap().flags & ECE == 0);
}

#[test]
fn after_idleness_the_window_starts_again() {
    let (mut lab, id, base) = lab(false, Config::default());
    lab.stack.write(id, &[7; 40_000]).unwrap();
    let mut acked = 0;
    lab.out();
    while acked < 40_000 {
        acked += 2000;
        lab.inject(ack(base + acked));
    }
    assert!(lab.stack.info(id).unwrap().cwnd >= 30_000);
    lab.wait(Duration::from_secs(5));
    lab.stack.write(id, &[7; 40_000]).unwrap();
    assert_eq!(lab.out().len(), 10);
}

#[test]
fn linger_resets_what_is_not_delivered_in_time() {
    let (mut lab, id, _) = lab(false, Config::default());
    lab.stack.set_option(id, SocketOption::Linger(Some(Duration::from_secs(3)))).unwrap();
    lab.stack.write(id, &[7; 1000]).unwrap();
    lab.stack.close(id).unwrap();
    let sent = lab.wait(Duration::from_secs(10));
    let (at, last) = sent.last().unwrap();
    assert!(last.flags & RST != 0 && (3_000..3_100).contains(at), "{at}");
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::Aborted)));
    let (mut lab, id, base) = self::lab(false, Config::default());
    lab.stack.set_option(id, SocketOption::Linger(Some(Duration::ZERO))).unwrap();
    lab.stack.close(id).unwrap();
    assert_eq!((lab.out()[0].flags & RST, lab.stack.population().connections), (RST, 1));
    lab.wait(Duration::ZERO);
    assert_eq!(lab.stack.population().connections, 0);
    let _ = base;
}

#[test]
fn an_orphan_that_nobody_acknowledges_goes() {
    let (mut lab, id, base) =
        lab(false, Config { orphan_timeout: Duration::from_secs(30), ..Config::default() });
    lab.inject(ack(base).window(0));
    lab.stack.write(id, &[7; 1000]).unwrap();
    lab.stack.close(id).unwrap();
    // The peer keeps its window closed and answers for ever.
    for _ in 0..20 {
        lab.wait(Duration::from_secs(5));
        lab.inject(ack(base).window(0));
    }
    assert_eq!(lab.stack.population().connections, 0);
}
