//! The exception path: what is not ours goes to a kernel, and what it sends goes out.

use super::*;

#[test]
fn what_is_not_ours_goes_to_the_kernel_and_what_it_sends_goes_out() {
    let (kernel, mut behind) =
        MemoryPort::new(&MemoryConfig { ring: 64, frames: 256, ..MemoryConfig::default() });
    let standalone = StandaloneConfig { exception: Some(Box::new(kernel)), ..alone() };
    let mut wired = started(standalone, &config());
    wired.turn(SECOND);
    let ssh = tcp(("10.1.0.2:5000", "10.1.0.1:22"), b"SSH-2.0-x");
    let reply = arp(REPLY, (ROUTER, ROUTER4), (OURS, OUR4), &[]);
    let mdns = packet(("10.1.0.2:5353", "224.0.0.251:5353"), b"mdns").build();
    let other = arp(REQUEST, (THEIRS, THEIR4), (NOBODY, [10, 1, 0, 77]), &[]);
    let lldp = [&[1, 0x80, 0xc2, 0, 0, 0xe][..], &THEIRS, &[0x88, 0xcc], &[7; 50]].concat();
    let fragment = {
        let mut bytes = packet(V4, &count(100)).build();
        bytes[20] = 0x20;
        mended(bytes)
    };
    let theirs = [&ssh, &reply, &mdns, &other, &lldp, &fragment];
    for bytes in theirs {
        assert_eq!(wired.ask(bytes), [[0u8; 0]; 0]);
    }
    // Ours, and what nobody wants.
    assert_eq!(wired.ask(&arp(REQUEST, (THEIRS, THEIR4), (NOBODY, OUR4), &[])).len(), 1);
    assert_eq!(wired.ask(&packet(V4, b"game").build()).len(), 1);
    assert_eq!(wired.reason(&[1; 13]), Some(DropReason::Runt));
    let shown: Vec<_> = behind.collect_all().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(shown, theirs.map(Clone::clone));
    assert_eq!(wired.net.stats().passed, 6);
    // A datagram that steering leaves to the kernel.
    wired.flags = flag::NOT_STEERED;
    assert_eq!(wired.ask(&packet(V4, b"dns").build()), [[0u8; 0]; 0]);
    wired.flags = 0;
    assert_eq!(behind.collect_all().len(), 1);
    // The gateway was learned although the kernel saw the answer too.
    let now = wired.now.ns;
    wired.net.send(&path("10.1.0.1:1", "203.0.113.9:2"), 1, &mut |_| {}).unwrap();
    assert_eq!(wired.turn(now).len(), 1);

    // And back.
    for n in 0..3u8 {
        behind.inject(0, &[n; 60]).unwrap();
    }
    assert_eq!(wired.turn(now), [vec![0; 60], vec![1; 60], vec![2; 60]]);
    assert_eq!(wired.alone().forwarded, 3);
    let ledger = wired.net.exception_port().unwrap().ledger();
    assert!(ledger.balances(), "{ledger}");
    wired.net.close();
    let ledger = wired.net.exception_port().unwrap().ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
}

#[test]
fn a_kernel_that_takes_nothing_holds_nothing_up() {
    let (kernel, mut behind) =
        MemoryPort::new(&MemoryConfig { ring: 16, frames: 64, ..MemoryConfig::default() });
    let standalone = StandaloneConfig { exception: Some(Box::new(kernel)), ..alone() };
    let mut wired = started(standalone, &config());
    wired.turn(SECOND);
    let ssh = tcp(("10.1.0.2:5000", "10.1.0.1:22"), b"x");
    for round in 1..=10 {
        for _ in 0..32 {
            wired.wire.inject(0, &ssh).unwrap();
            wired.wire.inject(0, &packet(V4, b"game").build()).unwrap();
        }
        let games = wired.turn(2 * SECOND).iter().filter(|bytes| bytes[23] == protocol::UDP).count();
        assert_eq!(games, 32, "games go on");
        let stats = wired.net.stats();
        let full = stats.dropped[DropReason::ExceptionFull as usize];
        assert_eq!((stats.passed, full), (16, 32 * round - 16));
    }
    assert_eq!(behind.collect_all().len(), 16);
    wired.ask(&ssh);
    assert_eq!(behind.collect_all().len(), 1, "it recovers");
    // And a wire that takes nothing: the kernel's packets are dropped, counted, and no frame is lost.
    for _ in 0..40 {
        for _ in 0..16 {
            behind.inject(0, &[7; 60]).unwrap();
        }
        wired.run(echo);
        wired.net.recv(&mut Batch::default(), wired.now);
        wired.net.flush();
    }
    let stats = wired.net.stats();
    assert!(stats.dropped[DropReason::TxFull as usize] + wired.alone().forward_dropped > 0);
    wired.balanced();
}
