//! What routers say of how large packets may be.

use super::super::super::standalone::siblings::Place;
use super::*;

#[test]
fn a_router_that_says_too_big_is_believed_about_what_was_sent_and_for_ten_minutes() {
    for (ends, ipv4, headers, mtu, floor) in [
        (("10.1.0.1:7777", "203.0.113.9:5000"), true, 28, 1400u32, 576),
        (("[fd00::1]:7777", "[2001:db8::9]:5000"), false, 48, 1400, 1280),
    ] {
        let mut wired = started(alone(), &config()).settled();
        let to = path(ends.0, ends.1);
        let fill = &mut |room: &mut [u8]| room.fill(3);
        let full = 1500 - headers;
        // Nothing that large was sent: not believed.
        let mut forged = packet(ends, &vec![3; full]);
        forged.macs = (OURS, ROUTER);
        assert_eq!(wired.ask(&too_big(&forged.build(), ipv4, mtu)), [[0u8; 0]; 0]);
        assert_eq!(wired.net.max_payload_to(&to), full);
        assert_eq!(wired.alone().pmtu_refused, 1);

        wired.net.send(&to, full, fill).unwrap();
        let now = wired.now.ns;
        let sent = wired.turn(now).remove(0);
        // About another flow, with other ports: not believed.
        let mut other = sent.clone();
        other[headers + 14 - 6] ^= 1;
        wired.ask(&too_big(&other, ipv4, mtu));
        assert_eq!((wired.net.max_payload_to(&to), wired.alone().pmtu_refused), (full, 2));

        wired.ask(&too_big(&sent, ipv4, mtu));
        assert_eq!(wired.net.max_payload_to(&to), mtu as usize - headers);
        assert_eq!(wired.net.send(&to, full, fill), Err(SendError::TooLong));
        wired.net.send(&to, mtu as usize - headers, fill).unwrap();
        let smaller = wired.turn(now).remove(0);
        // Never larger again, never below what every link carries.
        wired.ask(&too_big(&sent, ipv4, 1450));
        assert_eq!(wired.net.max_payload_to(&to), mtu as usize - headers);
        wired.ask(&too_big(&smaller, ipv4, 68));
        assert_eq!(wired.net.max_payload_to(&to), floor - headers);
        // Another peer is not concerned.
        assert_eq!(wired.net.max_payload(ipv4), full);
        let stats = wired.alone();
        assert_eq!((stats.pmtu_lowered, stats.pmtu_refused), (2, 3));
        wired.turn(now + 600 * SECOND);
        assert_eq!(wired.net.max_payload_to(&to), full, "tried again");
    }
}

#[test]
fn answers_in_place_keep_to_the_mtu_of_their_path_as_well() {
    let mut wired = started(alone(), &config()).settled();
    let question = packet(V4, &count(1400)).build();
    wired.wire.inject(0, &question).unwrap();
    let now = wired.now.ns;
    let answer = wired.turn(now).remove(0);
    wired.ask(&too_big(&answer, true, 0)); // a router that does not say: the next lower plateau
    assert_eq!(wired.net.path_mtu(&path("10.1.0.1:7777", "10.1.0.2:5000")), 1006);
    assert_eq!(wired.reason(&question), Some(DropReason::AnswerTooLong));
    assert_eq!(wired.ask(&packet(V4, &count(900)).build()).len(), 1);
}

#[test]
fn errors_about_packets_that_cannot_be_ours_are_refused_and_only_so_many_are_looked_at() {
    let mut wired = started(alone(), &config()).settled();
    let mut ours = packet(("10.1.0.1:7777", "203.0.113.9:5000"), &[1; 1400]);
    ours.macs = (OURS, ROUTER);
    let sent = ours.build();
    let mut not_ours = sent.clone();
    not_ours[29] = 2;
    let mut fragmentable = sent.clone();
    fragmentable[20] = 0;
    for (n, original) in [&not_ours, &fragmentable, &sent[..14 + 24].to_vec()].into_iter().enumerate() {
        assert_eq!(wired.reason(&too_big(original, true, 1000)), Some(DropReason::BadControl), "case {n}");
    }
    let flood = too_big(&sent, true, 1000);
    let before = wired.net.stats();
    for _ in 0..10 {
        (0..50).for_each(|_| wired.wire.inject(0, &flood).unwrap());
        let now = wired.now.ns;
        wired.turn(now);
    }
    let after = wired.net.stats();
    assert_eq!(after.handled - before.handled, 97);
    assert_eq!(after.dropped[DropReason::RateLimited as usize], 500 - 97);
    // A port that is closed is no matter of MTU.
    let mut message = vec![v4::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&sent[14..100]);
    wired.turn(30 * SECOND);
    wired.ask(&icmp4((THEIR4, OUR4), &[], &message));
    assert_eq!(wired.alone().errors, 1);
}

#[test]
fn an_error_is_believed_by_the_queue_that_sent_and_heard_by_all() {
    for (ends, ipv4, headers) in [
        (("10.1.0.1:7777", "203.0.113.9:5000"), true, 28),
        (("[fd00::1]:7777", "[2001:db8::9]:5000"), false, 48),
    ] {
        let places = Place::mesh(3);
        let [mut sends, mut hears, mut third] = [0, 1, 2].map(|n| {
            let standalone = StandaloneConfig { siblings: places[n].take(), ..alone() };
            started(standalone, &config()).settled()
        });
        let to = path(ends.0, ends.1);
        let full = 1500 - headers;
        let now = sends.now.ns;
        sends.net.send(&to, full, &mut |room| room.fill(3)).unwrap();
        let sent = sends.turn(now).remove(0);
        let before = [&sends, &third].map(|wired| wired.alone().told);
        // A queue that has sent nothing believes no router, nor does another that hears of it.
        hears.ask(&too_big(&sent, ipv4, 1400));
        third.turn(now);
        assert_eq!((hears.alone().pmtu_lowered, hears.alone().pmtu_refused), (0, 1));
        assert_eq!((third.net.max_payload_to(&to), third.alone().pmtu_lowered), (full, 0));
        // The one that has sent it does, and the others take its word.
        for wired in [&mut sends, &mut hears, &mut third] {
            wired.turn(now);
            assert_eq!(wired.net.max_payload_to(&to), 1400 - headers);
            assert_eq!(wired.alone().pmtu_lowered, 1);
        }
        assert_eq!([&sends, &third].map(|wired| wired.alone().told), [before[0] + 1, before[1] + 2]);
        // Nothing goes round: all have heard, and nobody says it again.
        for wired in [&mut sends, &mut hears, &mut third] {
            let told = wired.alone().told;
            wired.turn(now);
            assert_eq!(wired.alone().told, told);
        }
        // Heard by the sender itself: all know at once. What was never sent leaves all as they are.
        let smaller = 1400 - headers;
        sends.net.send(&to, smaller, &mut |room| room.fill(3)).unwrap();
        let sent = sends.turn(now).remove(0);
        let mut other = sent.clone();
        other[headers + 14 - 6] ^= 1;
        hears.ask(&too_big(&other, ipv4, 1300));
        for wired in [&mut sends, &mut third] {
            wired.turn(now);
        }
        assert_eq!(sends.net.max_payload_to(&to), smaller);
        sends.ask(&too_big(&sent, ipv4, 1300));
        for wired in [&mut hears, &mut third] {
            wired.turn(now);
            assert_eq!(wired.net.max_payload_to(&to), 1300 - headers);
        }
    }
}
