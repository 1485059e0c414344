//! Frames as mbufs: on their way through a ring that leads back to the port itself.

use crate::{alone, assert_all_free, options, receive};
use volley::engine::config::Dpdk as Options;
use volley::frame::{Burst, flag};
use volley::net::packet::Packet;
use volley::port::Port;
use volley::port::dpdk::{Dpdk, DpdkPort};

/// What a ring device sends, it receives.
fn ring(change: impl FnOnce(&mut Options)) -> (Dpdk, DpdkPort) {
    let mut options = options(&["net_ring0"]);
    change(&mut options);
    let dpdk = Dpdk::open(&options, 1).expect("a ring needs nothing");
    let port = dpdk.port(0, 0).expect("nobody has the queue");
    (dpdk, port)
}

/// Closes everything, and every mbuf is back.
#[track_caller]
fn close(dpdk: Dpdk, port: DpdkPort) {
    drop(port);
    assert_eq!(dpdk.close(), 0, "mbufs are missing");
}

/// `count` frames of `len` bytes, each filled with its number.
fn fill(port: &mut DpdkPort, count: usize, len: usize) -> Burst {
    let mut burst = Burst::new();
    assert_eq!(port.alloc(&mut burst, count), count);
    for (n, frame) in burst.iter_mut().enumerate() {
        assert!(frame.headroom() >= 128 && frame.set_len(len));
        frame.bytes_mut().fill(n as u8);
    }
    burst
}

#[test]
fn what_is_sent_comes_back_byte_for_byte() {
    alone("frames::what_is_sent_comes_back_byte_for_byte", || {
        let (dpdk, mut port) = ring(|_| {});
        for len in [1, 60, 64, 1514, 1522] {
            let mut burst = fill(&mut port, 64, len);
            assert_eq!(port.tx(&mut burst), 64);
            receive(&mut port, &mut burst, 64);
            assert_eq!(burst.len(), 64);
            for (n, frame) in burst.iter().enumerate() {
                assert_eq!(frame.bytes(), vec![n as u8; len], "frame {n} of {len} bytes");
            }
            assert_eq!(port.ledger().app, 64);
            port.free(&mut burst);
            assert_all_free(&port);
        }
        assert_eq!(port.stats().tx_frames, 5 * 64);
        assert_eq!(port.stats().rx_frames, 5 * 64);
        assert_eq!(port.ledger().free, 1024);
        close(dpdk, port);
    });
}

#[test]
fn a_full_ring_leaves_frames_with_the_caller() {
    alone("frames::a_full_ring_leaves_frames_with_the_caller", || {
        // A ring of net_ring holds 1,023; the pool holds more.
        let (dpdk, mut port) = ring(|options| options.frames = 2048);
        let mut sent = 0;
        let mut left = loop {
            let mut burst = fill(&mut port, 64, 60);
            sent += port.tx(&mut burst);
            if !burst.is_empty() {
                break burst;
            }
        };
        assert!(sent >= 1000, "only {sent} frames fit");
        // They are what they were, and go out once there is room.
        let first = left[0].bytes()[0];
        assert!(left.iter().enumerate().all(|(n, frame)| frame.bytes() == [first + n as u8; 60]));
        assert_eq!(port.ledger().app, left.len() as u64);
        assert_eq!(port.tx(&mut left), 0);
        let mut burst = Burst::new();
        receive(&mut port, &mut burst, 64);
        port.free(&mut burst);
        let count = left.len();
        assert_eq!(port.tx(&mut left), count);
        while port.rx(&mut burst) > 0 {
            port.free(&mut burst);
        }
        assert_eq!(port.ledger().free, 2048);
        assert_all_free(&port);
        close(dpdk, port);
    });
}

#[test]
fn a_chain_is_sent_as_one_packet_and_comes_back_as_a_chain() {
    alone("frames::a_chain_is_sent_as_one_packet_and_comes_back_as_a_chain", || {
        let (dpdk, mut port) = ring(|options| options.mtu = Some(9000));
        let most = port.info().max_segments;
        assert_eq!(most, 5, "9,022 bytes in mbufs of 2,048");
        let mut burst = fill(&mut port, 64, 2000);
        // Packets of 1, 2, 3, 4, 5 frames, over and over; what is left at the end is a chain without an end.
        let mut left = 1;
        let mut length = 1;
        for frame in burst.iter_mut() {
            left -= 1;
            if left == 0 {
                length = length % most + 1;
                left = length;
            } else {
                frame.set_flags(flag::MORE);
            }
        }
        let more: Vec<bool> = burst.iter().map(|frame| frame.has(flag::MORE)).collect();
        let whole = more.iter().rposition(|more| !more).expect("some packet ends") + 1;
        let dropped = (64 - whole) as u64;
        assert_eq!(port.tx(&mut burst), 64);
        assert_eq!(port.stats().tx_dropped, dropped, "an endless chain is nobody's");
        assert!(dropped > 0);
        receive(&mut port, &mut burst, whole);
        assert_eq!(burst.len(), whole);
        for (n, frame) in burst.iter().enumerate() {
            assert_eq!(frame.has(flag::MORE), more[n], "frame {n}");
            assert_eq!(frame.bytes(), vec![n as u8; 2000], "frame {n}");
        }
        port.free(&mut burst);
        assert_all_free(&port);

        // Longer than the device may have, and empty.
        let mut burst = fill(&mut port, 7, 2000);
        burst[..5].iter_mut().for_each(|frame| frame.set_flags(flag::MORE));
        assert!(burst[6].set_len(0));
        assert_eq!(port.tx(&mut burst), 7);
        assert_eq!(port.stats().tx_dropped, dropped + 7);
        assert_eq!(port.rx(&mut burst), 0);
        assert_eq!(port.ledger().free, 1024);
        close(dpdk, port);
    });
}

#[test]
fn chains_wait_for_a_burst_with_room() {
    alone("frames::chains_wait_for_a_burst_with_room", || {
        let (dpdk, mut port) = ring(|options| options.mtu = Some(9000));
        for _ in 0..16 {
            let mut burst = fill(&mut port, 5, 1800);
            burst[..4].iter_mut().for_each(|frame| frame.set_flags(flag::MORE));
            assert_eq!(port.tx(&mut burst), 5);
        }
        // Sixteen chains of five: twelve fit a burst of 64, the others are kept, and in order.
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 60);
        assert!(port.ledger().held == 4 && port.ledger().balances(), "{}", port.ledger());
        port.free(&mut burst);
        assert_eq!(port.rx(&mut burst), 20);
        let ends: Vec<bool> = burst.iter().map(|frame| !frame.has(flag::MORE)).collect();
        assert!(ends.chunks(5).all(|chain| chain == [false, false, false, false, true]), "{ends:?}");
        port.free(&mut burst);
        assert_all_free(&port);
        close(dpdk, port);
    });
}

#[test]
fn packets_behind_chains_wait_for_a_burst_with_room() {
    alone("frames::packets_behind_chains_wait_for_a_burst_with_room", || {
        let (dpdk, mut port) = ring(|options| options.mtu = Some(9000));
        for _ in 0..12 {
            let mut burst = fill(&mut port, 5, 1800);
            burst[..4].iter_mut().for_each(|frame| frame.set_flags(flag::MORE));
            assert_eq!(port.tx(&mut burst), 5);
        }
        let mut burst = fill(&mut port, 10, 60);
        assert_eq!(port.tx(&mut burst), 10);
        // Twenty-two packets came in one burst: sixty frames of chains, and four of the ten behind them, have room.
        assert_eq!(port.rx(&mut burst), 64);
        assert!(port.ledger().held == 6 && port.ledger().balances(), "{}", port.ledger());
        port.free(&mut burst);
        assert_eq!(port.rx(&mut burst), 6);
        for (n, frame) in burst.iter().enumerate() {
            assert_eq!(frame.bytes(), [4 + n as u8; 60], "packet {n}");
        }
        port.free(&mut burst);
        assert_all_free(&port);
        close(dpdk, port);
    });
}

#[test]
fn an_exhausted_pool_recovers() {
    alone("frames::an_exhausted_pool_recovers", || {
        // net_null takes an mbuf for each packet it makes up.
        let dpdk = Dpdk::open(&options(&["net_null0,size=64,copy=1"]), 1).unwrap();
        let mut port = dpdk.port(0, 0).unwrap();
        let mut all = Vec::new();
        loop {
            let mut burst = Burst::new();
            if port.alloc(&mut burst, 64) == 0 {
                break;
            }
            all.push(burst);
        }
        let out: usize = all.iter().map(|burst| burst.len()).sum();
        assert_eq!((out, port.ledger().free), (1024, 0));
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 0, "there is no mbuf to receive into");
        all.iter_mut().take(2).for_each(|burst| port.free(burst));
        receive(&mut port, &mut burst, 64);
        assert_eq!(burst.len(), 64, "it receives again");
        assert!(burst.iter().all(|frame| frame.len() == 64));
        port.free(&mut burst);
        all.iter_mut().for_each(|burst| port.free(burst));
        assert_all_free(&port);
        close(dpdk, port);
    });
}

#[test]
fn a_vlan_is_taken_off_and_put_on_and_others_are_not_ours() {
    alone("frames::a_vlan_is_taken_off_and_put_on_and_others_are_not_ours", || {
        let (dpdk, mut port) = ring(|options| options.vlan = Some(5));
        let packet =
            Packet::new("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), b"tag").build();
        let mut burst = fill(&mut port, 2, packet.len());
        burst.iter_mut().for_each(|frame| frame.bytes_mut().copy_from_slice(&packet));
        assert_eq!(port.tx(&mut burst), 2);
        receive(&mut port, &mut burst, 2);
        assert!(burst.iter().all(|frame| frame.bytes() == packet), "the tag came off again");
        port.free(&mut burst);
        close(dpdk, port);
    });
}

#[test]
fn a_queue_is_one_threads_and_can_be_taken_again() {
    alone("frames::a_queue_is_one_threads_and_can_be_taken_again", || {
        let (dpdk, port) = ring(|_| {});
        let error = dpdk.port(0, 0).err().expect("the queue is taken").to_string();
        assert!(error.contains("net_ring0") && error.contains("queue 0"), "{error}");
        drop(port);
        let dpdk = std::sync::Arc::new(dpdk);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let dpdk = std::sync::Arc::clone(&dpdk);
                // Each thread is registered with EAL, uses the queue, and is forgotten with its end.
                std::thread::spawn(move || {
                    let Ok(mut port) = dpdk.port(0, 0) else { return 0 };
                    let mut burst = fill(&mut port, 64, 60);
                    port.free(&mut burst);
                    1
                })
            })
            .collect();
        let used: i32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(used >= 1, "somebody gets the queue");
        let port = dpdk.port(0, 0).unwrap();
        assert_all_free(&port);
        assert_eq!(port.ledger().free, 1024, "what a thread had cached is back");
        drop(port);
        assert_eq!(std::sync::Arc::into_inner(dpdk).expect("the threads have ended").close(), 0);
    });
}
