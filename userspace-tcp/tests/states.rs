//! Every state, and what each kind of segment does in it (RFC 9293, section 3.10.7; RFC 5961).

mod harness;

use harness::peer::*;
use std::time::Duration;
use volley_tcp::{CloseReason, Config, ConnectionId, Drop, Error, EventKind, Shutdown, State};

#[test]
fn nobody_listens() {
    let mut lab = Lab::new(Config::default());
    lab.local.set_port(81);
    let r = lab.one(seg(SYN, 7, 0));
    assert_eq!((r.flags, r.seq, r.ack), (RST | ACK, 0, 8));
    let r = lab.one(seg(ACK, 7, 99).data(b"x"));
    assert_eq!((r.flags, r.seq), (RST, 99));
    lab.silent(seg(RST, 7, 0));
    assert_eq!(lab.stack.counters().dropped(Drop::NoConnection), 3);
}

#[test]
fn listen_answers_syn_resets_ack_and_ignores_the_rest() {
    let mut lab = Lab::new(Config::default());
    let r = lab.one(seg(ACK, 7, 99));
    assert_eq!((r.flags, r.seq), (RST, 99));
    lab.silent(seg(RST, 7, 0));
    lab.silent(seg(FIN, 7, 0));
    lab.silent(seg(SYN | FIN, 7, 0));
    let a = lab.one(seg(SYN, 7, 0).mss(1200).scale(3).sack_ok().ts(55, 0));
    assert_eq!((a.flags, a.ack), (SYN | ACK, 8));
    assert_eq!(
        (a.option(2), a.option(4), a.stamps().map(|s| s.1)),
        (Some(&[5, 0xb4][..]), Some(&[][..]), Some(55))
    );
    assert!(a.option(3).is_some());
    // Only what was offered is answered.
    lab.remote.set_port(5001);
    let a = lab.one(seg(SYN, 7, 0));
    assert_eq!((a.option(3), a.option(4), a.option(8)), (None, None, None));
}

#[test]
fn syn_received_answers_the_syn_again_and_forgets_on_reset() {
    let mut lab = Lab::new(Config::default());
    let first = lab.one(seg(SYN, 1000, 0));
    let again = lab.one(seg(SYN, 1000, 0));
    assert_eq!((again.seq, again.ack), (first.seq, first.ack));
    // A reset that is not exact is ignored (RFC 5961); a wrong acknowledgment is reset.
    lab.silent(seg(RST, 1005, 0));
    let r = lab.one(seg(ACK, 1001, first.seq.wrapping_add(5)));
    assert_eq!((r.flags, r.seq), (RST, first.seq.wrapping_add(5)));
    assert_eq!(lab.stack.population().half_open, 1);
    // Outside the window: an acknowledgment.
    let a = lab.one(seg(ACK, 900, first.seq + 1));
    assert_eq!((a.flags, a.seq, a.ack), (ACK, first.seq + 1, 1001));
    lab.silent(seg(RST, 1001, 0));
    assert_eq!(lab.stack.population().half_open, 0);
}

#[test]
fn syn_ack_is_sent_again_at_1_2_4_seconds_and_then_forgotten() {
    let mut lab = Lab::new(Config { syn_ack_attempts: 4, ..Config::default() });
    lab.one(seg(SYN, 1000, 0));
    let sent = lab.wait(Duration::from_secs(40));
    assert_eq!(sent.iter().map(|(at, _)| at / 100).collect::<Vec<_>>(), [10, 30, 70]);
    assert_eq!((lab.stack.population().half_open, lab.stack.counters().syn_timeouts), (0, 1));
}

#[test]
fn data_with_the_last_handshake_segment_is_taken() {
    let mut lab = Lab::new(Config::default());
    let a = lab.one(seg(SYN, 1000, 0));
    lab.put(&[seg(ACK | PSH, 1001, a.seq + 1).data(b"hi")]);
    let id = lab.stack.accept(lab.listener).unwrap();
    assert_eq!(lab.stack.peek(id).unwrap(), b"hi");
    assert_eq!(lab.kinds(id), [EventKind::Established, EventKind::Readable]);
}

#[test]
fn syn_sent_takes_only_what_answers_it() {
    let mut lab = Lab::new(Config::default());
    let (id, syn) = lab.syn_sent();
    let next = syn.seq + 1;
    // RFC 9293: a wrong acknowledgment is reset, unless it is a reset itself; a reset without one is ignored.
    let r = lab.one(seg(ACK, 50, next + 1));
    assert_eq!((r.flags, r.seq), (RST, next + 1));
    let r = lab.one(seg(SYN | ACK, 50, syn.seq));
    assert_eq!((r.flags, r.seq), (RST, syn.seq));
    lab.silent(seg(RST | ACK, 50, next + 1));
    lab.silent(seg(RST, 50, 0));
    lab.silent(seg(ACK, 50, next));
    lab.silent(seg(FIN, 50, 0));
    assert_eq!(lab.state(id), Some(State::SynSent));
    let a = lab.one(seg(SYN | ACK, 50, next).mss(1000));
    assert_eq!((a.flags, a.seq, a.ack), (ACK, next, 51));
    assert_eq!(lab.state(id), Some(State::Established));
    assert_eq!(lab.stack.info(id).unwrap().mss, 1000);
}

#[test]
fn syn_sent_is_refused_by_reset_and_times_out() {
    let mut lab = Lab::new(Config::default());
    let (id, syn) = lab.syn_sent();
    lab.silent(seg(RST | ACK, 0, syn.seq + 1));
    assert_eq!(lab.kinds(id), [EventKind::Closed(CloseReason::Refused)]);
    lab.stack.close(id).unwrap();
    assert_eq!(lab.stack.close(id), Err(Error::Stale));
    let (id, _) = lab.syn_sent();
    let sent = lab.wait(Duration::from_secs(200));
    let at: Vec<u64> = sent.iter().map(|(at, _)| at.div_ceil(1000)).collect();
    assert_eq!(at, [1, 3, 7, 15, 31, 63, 123]);
    assert_eq!(lab.kinds(id), [EventKind::Closed(CloseReason::TimedOut)]);
}

#[test]
fn two_opens_that_cross_make_one_connection() {
    let mut lab = Lab::new(Config::default());
    let (id, syn) = lab.syn_sent();
    let a = lab.one(seg(SYN, 300, 0).mss(1460));
    assert_eq!((a.flags, a.seq, a.ack), (SYN | ACK, syn.seq, 301));
    assert_eq!(lab.state(id), Some(State::SynReceived));
    // RFC 9293, figure 8: the peer's own SYN-ACK.
    lab.put(&[seg(SYN | ACK, 300, syn.seq + 1).mss(1460)]);
    assert_eq!(lab.state(id), Some(State::Established));
    assert_eq!(lab.kinds(id), [EventKind::Established]);
    lab.out();
    lab.stack.write(id, b"x").unwrap();
    assert_eq!(lab.out()[0].payload, b"x");
    // And in SYN-RECEIVED a plain acknowledgment does as well.
    let mut lab = Lab::new(Config::default());
    let (id, syn) = lab.syn_sent();
    lab.one(seg(SYN, 300, 0));
    lab.silent(seg(ACK, 301, syn.seq + 1));
    assert_eq!(lab.state(id), Some(State::Established));
    // A reset there refuses an active open.
    let mut lab = Lab::new(Config::default());
    let (id, _) = lab.syn_sent();
    lab.one(seg(SYN, 300, 0));
    lab.silent(seg(RST, 301, 0));
    assert_eq!(lab.kinds(id), [EventKind::Closed(CloseReason::Refused)]);
}

#[test]
fn passive_close_goes_through_close_wait_and_last_ack() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    let a = lab.one(seg(FIN | ACK, 1001, next));
    assert_eq!((a.flags, a.ack), (ACK, 1002));
    assert_eq!(
        (lab.state(id), lab.kinds(id).last()),
        (Some(State::CloseWait), Some(&EventKind::PeerClosed))
    );
    // Half closed: data still goes out.
    lab.stack.write(id, b"late").unwrap();
    assert_eq!(lab.out()[0].payload, b"late");
    lab.silent(seg(ACK, 1002, next + 4));
    // The FIN again is acknowledged again.
    assert_eq!(lab.one(seg(FIN | ACK, 1001, next + 4)).ack, 1002);
    lab.stack.close(id).unwrap();
    let f = lab.out();
    assert_eq!((f[0].flags, f[0].seq, lab.state(id)), (FIN | ACK, next + 4, Some(State::LastAck)));
    lab.silent(seg(ACK, 1002, next + 5));
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::Finished)));
    assert_eq!((lab.stack.population().connections, lab.stack.population().time_wait), (0, 0));
}

fn fin_wait_1(lab: &mut Lab) -> (ConnectionId, u32) {
    let (id, next) = lab.plain();
    lab.stack.shutdown(id, Shutdown::Write).unwrap();
    assert_eq!(lab.stack.write(id, b"no"), Err(Error::ShutDown));
    let f = lab.out();
    assert_eq!((f[0].flags, f[0].seq, lab.state(id)), (FIN | ACK, next, Some(State::FinWait1)));
    (id, next)
}

#[test]
fn active_close_half_closed_then_time_wait() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = fin_wait_1(&mut lab);
    lab.silent(seg(ACK, 1001, next + 1));
    assert_eq!(lab.state(id), Some(State::FinWait2));
    // The other half still works.
    lab.put(&[seg(ACK, 1001, next + 1).data(b"more")]);
    assert_eq!(lab.stack.peek(id).unwrap(), b"more");
    let a = lab.one(seg(FIN | ACK, 1005, next + 1));
    assert_eq!((a.flags, a.ack), (ACK, 1006));
    assert_eq!(lab.stack.population().time_wait, 1);
    // Unread data survives the end; the slot stays until close.
    assert_eq!(lab.stack.read(id, 100), Ok(4));
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::Finished)));
    lab.stack.close(id).unwrap();
    assert_eq!(lab.stack.population().connections, 0);
}

#[test]
fn both_close_at_once() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = fin_wait_1(&mut lab);
    let a = lab.one(seg(FIN | ACK, 1001, next));
    assert_eq!((a.flags, a.ack, lab.state(id)), (ACK, 1002, Some(State::Closing)));
    lab.put(&[seg(ACK, 1002, next + 1)]);
    assert_eq!(lab.stack.population().time_wait, 1);
    // FIN and the acknowledgment of ours in one segment go straight to TIME-WAIT.
    lab.remote.set_port(5001);
    let (_, next) = fin_wait_1(&mut lab);
    assert_eq!(lab.one(seg(FIN | ACK, 1001, next + 1)).ack, 1002);
    assert_eq!(lab.stack.population().time_wait, 2);
}

#[test]
fn fin_wait_2_of_a_closed_connection_times_out_but_not_of_a_half_closed_one() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = fin_wait_1(&mut lab);
    lab.silent(seg(ACK, 1001, next + 1));
    lab.wait(Duration::from_secs(600));
    assert_eq!(lab.state(id), Some(State::FinWait2));
    lab.stack.close(id).unwrap();
    lab.wait(Duration::from_secs(61));
    assert_eq!(lab.stack.population().connections, 0);
}

#[test]
fn data_after_close_is_reset() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    lab.stack.close(id).unwrap();
    lab.out();
    lab.silent(seg(ACK, 1001, next + 1));
    let r = lab.one(seg(ACK, 1001, next + 1).data(b"x"));
    assert_eq!((r.flags & RST, r.seq), (RST, next + 1));
    assert_eq!(
        (lab.stack.population().connections, lab.stack.counters().dropped(Drop::AfterClose)),
        (0, 1)
    );
}

#[test]
fn close_with_unread_data_resets() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    lab.put(&[seg(ACK, 1001, next).data(b"unread")]);
    lab.out();
    lab.stack.close(id).unwrap();
    let r = lab.out();
    assert_eq!((r[0].flags & RST, r[0].seq), (RST, next));
    lab.wait(Duration::ZERO);
    assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::Aborted)));
}

#[test]
fn resets_count_only_exactly_in_every_synchronized_state() {
    type Reach = fn(&mut Lab) -> (ConnectionId, u32, u32);
    let states: [(State, Reach); 6] = [
        (State::Established, |lab| {
            let (id, next) = lab.plain();
            (id, 1001, next)
        }),
        (State::FinWait1, |lab| {
            let (id, next) = fin_wait_1(lab);
            (id, 1001, next)
        }),
        (State::FinWait2, |lab| {
            let (id, next) = fin_wait_1(lab);
            lab.silent(seg(ACK, 1001, next + 1));
            (id, 1001, next + 1)
        }),
        (State::CloseWait, |lab| {
            let (id, next) = lab.plain();
            lab.one(seg(FIN | ACK, 1001, next));
            (id, 1002, next)
        }),
        (State::Closing, |lab| {
            let (id, next) = fin_wait_1(lab);
            lab.one(seg(FIN | ACK, 1001, next));
            (id, 1002, next)
        }),
        (State::LastAck, |lab| {
            let (id, next) = lab.plain();
            lab.one(seg(FIN | ACK, 1001, next));
            lab.stack.shutdown(id, Shutdown::Write).unwrap();
            lab.out();
            (id, 1002, next)
        }),
    ];
    for (state, reach) in states {
        let mut lab = Lab::new(Config::default());
        let (id, expected, una) = reach(&mut lab);
        assert_eq!(lab.state(id), Some(state));
        // RFC 5961, section 3: in the window, not exact: a challenge. Outside: nothing.
        let c = lab.one(seg(RST, expected + 10, 0));
        assert_eq!((c.flags, c.ack), (ACK, expected), "{state:?}");
        lab.silent(seg(RST, expected.wrapping_sub(10), 0));
        lab.silent(seg(RST, expected + 5_000_000, 0));
        // Section 4: SYN anywhere is challenged.
        for at in [expected, expected + 10, expected.wrapping_sub(500), expected + 9_000_000] {
            let c = lab.one(seg(SYN, at, 0));
            assert_eq!((c.flags, c.ack), (ACK, expected), "{state:?} {at}");
        }
        // No ACK flag: dropped.
        lab.silent(seg(0, expected, 0).data(b"x"));
        // Section 5: acknowledges what was never sent.
        let c = lab.one(seg(ACK, expected, una.wrapping_add(100_000)).data(b"evil"));
        assert_eq!((c.flags, c.ack), (ACK, expected), "{state:?}");
        assert_eq!(lab.state(id), Some(state));
        lab.silent(seg(RST, expected, 0));
        assert_eq!(lab.kinds(id).last(), Some(&EventKind::Closed(CloseReason::Reset)), "{state:?}");
    }
}

#[test]
fn challenges_are_limited_for_each_connection_and_for_no_other() {
    let mut lab = Lab::new(Config { challenge_acks: 5, ..Config::default() });
    let (_, _) = lab.plain();
    let attacked = lab.remote;
    lab.remote.set_port(6000);
    lab.plain();
    let other = lab.remote;
    lab.remote = attacked;
    let answers: usize = (0..100).map(|_| lab.inject(seg(RST, 1011, 0)).len()).sum();
    assert_eq!(answers, 5);
    assert_eq!(lab.stack.counters().challenge_acks_limited, 95);
    // CVE-2016-5696: what one connection used up says nothing to another.
    lab.remote = other;
    let answers: usize = (0..100).map(|_| lab.inject(seg(RST, 1011, 0)).len()).sum();
    assert_eq!(answers, 5);
    lab.remote = attacked;
    lab.wait(Duration::from_millis(1001));
    assert_eq!(lab.inject(seg(RST, 1011, 0)).len(), 1);
}

#[test]
fn time_wait_acknowledges_fin_ignores_reset_and_gives_way_to_a_newer_syn() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.accepted(seg(SYN, 1000, 0).mss(1460).ts(100, 0));
    lab.stack.close(id).unwrap();
    let f = lab.out();
    let echo = f[0].stamps().unwrap().0;
    lab.put(&[seg(FIN | ACK, 1001, next + 1).ts(101, echo)]);
    lab.out();
    assert_eq!(lab.stack.population().time_wait, 1);
    // RFC 1337.
    lab.silent(seg(RST, 1002, 0));
    assert_eq!(lab.stack.counters().dropped(Drop::TimeWaitReset), 1);
    // The FIN again, late: acknowledged, and the wait begins anew.
    lab.wait(Duration::from_secs(50));
    let a = lab.one(seg(FIN | ACK, 1001, next + 1).ts(102, echo));
    assert_eq!((a.flags, a.seq, a.ack), (ACK, next + 1, 1002));
    lab.wait(Duration::from_secs(50));
    assert_eq!(lab.stack.population().time_wait, 1);
    // An old duplicate SYN gets an acknowledgment; a newer one a new connection with a larger ISS (RFC 6191).
    let a = lab.one(seg(SYN, 500, 0).ts(90, 0));
    assert_eq!(a.flags, ACK);
    let a = lab.one(seg(SYN, 500, 0).mss(1460).ts(2000, 0));
    assert_eq!((a.flags, a.ack), (SYN | ACK, 501));
    assert!((a.seq.wrapping_sub(next) as i32) > 0, "a larger initial sequence number");
    assert_eq!((lab.stack.counters().time_waits_reused, lab.stack.population().time_wait), (1, 0));
}

#[test]
fn time_wait_lasts_as_long_as_configured_and_the_oldest_goes_at_the_cap() {
    let mut lab =
        Lab::new(Config { max_time_wait: 3, time_wait: Duration::from_secs(10), ..Config::default() });
    for port in 0..5 {
        lab.remote.set_port(6000 + port);
        let (id, next) = lab.plain();
        lab.stack.close(id).unwrap();
        lab.out();
        lab.put(&[seg(FIN | ACK, 1001, next + 1)]);
        lab.out();
    }
    assert_eq!((lab.stack.population().time_wait, lab.stack.counters().time_waits_evicted), (3, 2));
    lab.wait(Duration::from_millis(9_900));
    assert_eq!(lab.stack.population().time_wait, 3);
    lab.wait(Duration::from_millis(200));
    assert_eq!(lab.stack.population().time_wait, 0);
}

#[test]
fn bad_segments_are_counted_and_change_nothing() {
    let mut lab = Lab::new(Config::default());
    let (id, next) = lab.plain();
    lab.silent(seg(ACK, 1001, next).opt(&[2, 0, 0, 0]));
    assert_eq!(lab.stack.counters().dropped(Drop::BadOption), 1);
    // The urgent pointer changes nothing: the byte is data.
    lab.put(&[seg(ACK | 0x20, 1001, next).data(b"u")]);
    assert_eq!(lab.stack.peek(id).unwrap(), b"u");
    let mut raw = [0u8; 20];
    for (len, offset, reason) in
        [(10, 5, Drop::Runt), (20, 4, Drop::HeaderLength), (20, 6, Drop::Runt), (20, 5, Drop::Checksum)]
    {
        raw[12] = offset << 4;
        let s = volley_tcp::SegmentIn {
            source: lab.remote.ip(),
            destination: lab.local.ip(),
            ecn: 0,
            checksum: Default::default(),
            path: 0,
            bytes: &raw[..len],
        };
        let before = lab.stack.counters().dropped(reason);
        drop(lab.stack.receive_burst(lab.now, &[s]));
        assert_eq!(lab.stack.counters().dropped(reason), before + 1);
    }
}
