//! What can only be set up from inside: mbufs that are not the port's own, packets of another VLAN, and panics.

use super::*;
use crate::frame::Burst;
use crate::port::Port;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use volley_dpdk::mbuf;

thread_local! {
    /// Places at which nothing happens still; then a panic.
    static PLACES: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// See [`super::may_panic`].
pub fn may_panic() {
    let left = PLACES.get();
    PLACES.set(left - 1);
    assert!(left > 0, "the test wants it");
}

/// EAL starts once per process, so the test runs itself again, in one of its own.
fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "VOLLEY_DPDK_TEST";
    if std::env::var(ALONE).is_ok_and(|asked| asked == name) {
        return body();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", name, "--nocapture"]).env(ALONE, name).status().unwrap();
    assert!(status.success(), "{name}, in a process of its own: {status}");
}

fn options(vlan: Option<u16>) -> Options {
    Options {
        vdev: vec!["net_ring0".into()],
        memory: Memory::NoHuge,
        megabytes: Some(64),
        frames: 1024,
        vlan,
        ..Options::default()
    }
}

fn ring(vlan: Option<u16>) -> (Dpdk, DpdkPort) {
    let dpdk = Dpdk::open(&options(vlan), 1).unwrap();
    let port = dpdk.port(0, 0).unwrap();
    (dpdk, port)
}

/// Sends packets from `pool`, past the frames.
fn send(port: &mut DpdkPort, pool: &Mempool, packets: &[Vec<u8>]) {
    let mut mbufs = mbuf::Burst::new();
    assert!(pool.take(&mut mbufs, packets.len()));
    for (mbuf, packet) in mbufs.iter_mut().zip(packets) {
        assert!(mbuf.write(packet));
    }
    assert_eq!(port.tx.send(&mut mbufs), packets.len());
}

/// Sends one packet in several mbufs of `pool`.
fn send_chain(port: &mut DpdkPort, pool: &Mempool, parts: &[&[u8]]) {
    let mut mbufs = mbuf::Burst::new();
    assert!(pool.take(&mut mbufs, parts.len()));
    let mut next = None;
    for (mut mbuf, part) in mbufs.drain(..).zip(parts).rev() {
        assert!(mbuf.write(part));
        if let Some(next) = next.take() {
            mbuf.link(next);
        }
        next = Some(mbuf);
    }
    let mut head = next.unwrap();
    head.set_segments(parts.len() as u16);
    head.set_packet_len(parts.iter().map(|part| part.len() as u32).sum());
    mbufs.push(head);
    assert_eq!(port.tx.send(&mut mbufs), 1);
}

#[test]
fn a_strange_mbuf_is_copied_and_goes_home() {
    alone("port::dpdk::tests::a_strange_mbuf_is_copied_and_goes_home", || {
        let (dpdk, mut port) = ring(None);
        let strange = Mempool::new(&dpdk.eal, "test", 256, 4096, -1).unwrap();
        let packets: Vec<Vec<u8>> = (0..64u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
        send(&mut port, &strange, &packets);
        // Longer than anything of ours: it goes home, and is counted.
        send(&mut port, &strange, &[vec![1; 3900]]);
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 64);
        assert!(burst.iter().zip(&packets).all(|(frame, packet)| frame.bytes() == packet));
        assert_eq!(port.ledger().app, 64);
        port.free(&mut burst);
        assert_eq!((port.rx(&mut burst), port.stats().rx_dropped), (0, 1));
        assert_eq!((strange.available(), port.ledger().free), (256, 1024));

        // Without an mbuf to copy into, the packet is lost and counted, and nothing else is.
        let mut all = Vec::new();
        while {
            all.push(Burst::new());
            port.alloc(all.last_mut().unwrap(), 64) > 0
        } {}
        send(&mut port, &strange, &packets[..3]);
        assert_eq!((port.rx(&mut burst), port.stats().fill_ring_empty), (0, 3));
        all.iter_mut().for_each(|burst| port.free(burst));
        assert_eq!((strange.available(), port.ledger().free), (256, 1024));
        drop((port, strange));
        assert_eq!(dpdk.close(), 0);
    });
}

#[test]
fn packets_of_other_vlans_are_not_ours() {
    alone("port::dpdk::tests::packets_of_other_vlans_are_not_ours", || {
        let (dpdk, mut port) = ring(Some(5));
        let packet = |tag: &[u8]| [&[1; 12], tag, &[8, 0], &[7; 40]].concat();
        let (untagged, other) = (packet(&[]), packet(&[0x81, 0, 0, 6]));
        let (ours, urgent) = (packet(&[0x81, 0, 0, 5]), packet(&[0x81, 0, 0xe0, 5]));
        let pool = port.pool.clone();
        send(&mut port, &pool, &[untagged.clone(), other, ours, urgent, vec![1; 13], vec![1; 1]]);
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 2);
        assert!(burst.iter().all(|frame| frame.bytes() == untagged), "the tag is off");
        assert_eq!(port.stats().rx_dropped, 4);

        // One that found no room is as it was.
        let before = burst[0].bytes().to_vec();
        let mut full = mbuf::Burst::new();
        while pool.take(&mut full, 1) && port.tx.send(&mut full) == 1 {}
        full.clear();
        let taken = port.tx(&mut burst);
        assert!(taken < 2, "the ring has room for {taken}");
        assert!(burst.iter().all(|frame| frame.bytes() == before));
        port.free(&mut burst);
        drop((port, pool));
        dpdk.close();
    });
}

#[test]
fn the_ledger_balances_after_a_panic_at_any_place() {
    alone("port::dpdk::tests::the_ledger_balances_after_a_panic_at_any_place", || {
        let options = Options { mtu: Some(9000), ..options(None) };
        let dpdk = Dpdk::open(&options, 1).unwrap();
        let mut port = dpdk.port(0, 0).unwrap();
        assert!(port.max_segments > 1, "chains come as such");
        let pool = port.pool.clone();
        let strange = Mempool::new(&dpdk.eal, "test", 256, 4096, -1).unwrap();
        let mut burst = Burst::new();
        let mut panics = [0, 0];
        for (mixed, places) in (0..).map(|n| (false, n)).take(15).chain((0..).map(|n| (true, n))) {
            send(&mut port, &pool, &[vec![1; 60], vec![2; 60]]);
            // Without these, a burst goes through as a whole.
            if mixed {
                send(&mut port, &strange, &[vec![3; 60]]);
                send_chain(&mut port, &pool, &[&[4; 1000], &[5; 500]]);
            }
            send(&mut port, &pool, &[vec![6; 60]]);
            PLACES.set(places);
            let quiet = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| ()));
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                port.rx(&mut burst);
                // The plain ones go as such first, and then all packet by packet.
                let mut plain: Burst = burst.drain(..2).collect();
                let sent = catch_unwind(AssertUnwindSafe(|| port.tx(&mut plain)));
                burst.extend(plain);
                sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                port.tx(&mut burst);
            }));
            std::panic::set_hook(quiet);
            PLACES.set(u32::MAX);
            let ledger = port.ledger();
            assert!(ledger.balances() && ledger.app == burst.len() as u64, "place {places}: {ledger}");
            // Each is there once, and comes home.
            port.free(&mut burst);
            while port.rx(&mut burst) > 0 {
                port.free(&mut burst);
            }
            let ledger = port.ledger();
            assert!(ledger.free == 1024 && strange.available() == 256, "place {places}: {ledger}");
            panics[usize::from(mixed)] += usize::from(outcome.is_err());
            if mixed && outcome.is_ok() {
                break;
            }
        }
        assert!(panics[0] > 2 && panics[0] < 15 && panics[1] > 20, "{panics:?} places");
        drop((port, pool, strange));
        assert_eq!(dpdk.close(), 0);
    });
}
