//! What can only be set up from inside: mbufs that are not the port's own, and packets of another VLAN.

use super::*;
use crate::frame::Burst;
use crate::port::Port;
use volley_dpdk::mbuf;

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

fn ring(vlan: Option<u16>) -> (Dpdk, DpdkPort) {
    let options = Options {
        vdev: vec!["net_ring0".into()],
        memory: Memory::NoHuge,
        megabytes: Some(64),
        frames: 1024,
        vlan,
        ..Options::default()
    };
    let dpdk = Dpdk::open(&options, 1).unwrap();
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
