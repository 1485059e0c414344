use super::*;
use crate::frame::Frame;
use proptest::prelude::*;

fn config(ring: usize, frames: u32) -> MemoryConfig {
    MemoryConfig { ring, frames, ..MemoryConfig::default() }
}

fn give_back(port: &mut MemoryPort, burst: &mut Burst) {
    port.free(burst);
    port.flush();
}

#[test]
fn packets_go_both_ways_and_the_ledger_follows() {
    let (mut port, mut wire) = MemoryPort::new(&config(8, 32));
    assert_eq!(port.ledger(), Ledger { total: 32, free: 24, kernel_rx: 8, ..Ledger::default() });
    wire.inject(0, b"one").unwrap();
    wire.inject(0, b"two").unwrap();

    let mut burst = Burst::new();
    assert_eq!(port.rx(&mut burst), 2);
    assert_eq!(burst.iter().map(Frame::bytes).collect::<Vec<_>>(), [b"one", b"two"]);
    assert_eq!((burst[0].headroom(), port.ledger().app), (256, 2));

    assert_eq!(port.tx(&mut burst), 2);
    assert_eq!((port.ledger().kernel_tx, port.ledger().app), (2, 0));
    assert_eq!(wire.collect_all(), [(0, b"one".to_vec()), (0, b"two".to_vec())]);
    port.flush();
    assert_eq!(port.ledger(), Ledger { total: 32, free: 24, kernel_rx: 8, ..Ledger::default() });
    let stats = port.stats();
    assert_eq!((stats.rx_frames, stats.tx_frames, stats.tx_completed), (2, 2, 2));
}

#[test]
fn a_full_tx_ring_takes_no_more_until_the_device_completes() {
    let (mut port, mut wire) = MemoryPort::new(&config(4, 32));
    let mut burst = Burst::new();
    assert_eq!(port.alloc(&mut burst, 6), 6);
    assert_eq!(port.tx(&mut burst), 4);
    assert_eq!((burst.len(), port.tx(&mut burst)), (2, 0));

    wire.hold_completions(true);
    assert_eq!(wire.collect(|_| {}), 4, "the device fetches, but hangs");
    port.flush();
    assert_eq!((port.tx(&mut burst), port.ledger().kernel_tx), (2, 6));
    wire.hold_completions(false);
    assert_eq!(wire.collect(|_| {}), 2);
    port.flush();
    assert_eq!((port.ledger().kernel_tx, port.ledger().balances()), (0, true));
}

#[test]
fn overload_is_refused_counted_and_recovered_from() {
    let (mut port, mut wire) = MemoryPort::new(&config(4, 6));
    let mut burst = Burst::new();
    assert!((0..4).all(|_| wire.inject(0, b"x").is_ok()));
    assert_eq!(wire.inject(0, b"x"), Err(Refused::NoFrame));
    port.flush(); // posts the last two frames, while four packets wait in the ring
    assert_eq!(wire.inject(0, b"x"), Err(Refused::RingFull));
    assert_eq!(port.rx(&mut burst), 4);
    assert!(wire.inject(0, b"x").is_ok() && wire.inject(0, b"x").is_ok());
    assert_eq!(port.rx(&mut burst), 2);
    let stats = port.stats();
    assert_eq!((stats.fill_ring_empty, stats.rx_ring_full, stats.rx_frames), (1, 1, 6));
    give_back(&mut port, &mut burst);
    assert_eq!((wire.posted(0), port.ledger().free), (4, 2));
}

#[test]
fn a_chain_arrives_whole_or_waits_and_leaves_whole_or_stays() {
    let (mut port, mut wire) =
        MemoryPort::new(&MemoryConfig { max_segments: 3, chunk: 1280, headroom: 256, ..config(64, 256) });
    let long = vec![5; 3000];
    assert_eq!(wire.inject(0, &[0; 4000]), Err(Refused::TooLong));
    assert_eq!(port.stats().rx_dropped, 1);
    for _ in 0..10 {
        wire.inject(0, &long).unwrap();
    }
    wire.inject_chain(0, &[b"ab", b"c"]).unwrap();
    assert_eq!(wire.inject_chain(0, &[]), Err(Refused::TooLong));

    let mut burst = Burst::new();
    port.alloc(&mut burst, 62);
    assert_eq!(port.rx(&mut burst), 0, "a chain of three does not fit the room of two");
    port.free(&mut burst);
    assert_eq!(port.rx(&mut burst), 32);
    let lens: Vec<_> = burst[..3].iter().map(|f| (f.len(), f.has(flag::MORE))).collect();
    assert_eq!(lens, [(1024, true), (1024, true), (952, false)]);

    // 32 frames are in the burst; the tx ring has 64 slots: twice is all, the third time only as many whole chains as fit.
    assert_eq!(port.tx(&mut burst), 32);
    for (n, expected) in [(10, 30), (1, 0)] {
        port.flush();
        (0..n).for_each(|_| wire.inject(0, &long).unwrap());
        port.rx(&mut burst);
        assert_eq!(port.tx(&mut burst), expected, "two slots are left and a chain takes three");
    }
    port.free(&mut burst);
    let mut sent = Vec::new();
    wire.collect(|packet| sent.push((packet.segments, packet.bytes.len())));
    assert_eq!((sent.len(), sent[0], sent[10]), (21, (3, 3000), (2, 3)));
    port.flush();
    assert_eq!(port.ledger().free + port.ledger().kernel_rx, 256);
}

#[test]
fn each_queue_has_rings_of_its_own_and_none_starves() {
    let (mut port, mut wire) = MemoryPort::new(&MemoryConfig { queues: 3, ..config(64, 600) });
    for n in 0..64 {
        (0..3).for_each(|queue| wire.inject(queue, &[queue as u8, n]).unwrap());
    }
    let mut burst = Burst::new();
    let mut seen = [0; 3];
    for _ in 0..3 {
        assert_eq!(port.rx(&mut burst), 64);
        burst.iter().for_each(|frame| seen[frame.queue() as usize] += 1);
        assert!(burst.iter().all(|frame| frame.bytes()[0] == frame.queue() as u8));
        let other = (burst[0].queue() + 1) % 3;
        burst[0].set_queue(other);
        assert_eq!(port.tx(&mut burst), 64);
        wire.collect(|_| {});
        port.flush();
    }
    assert_eq!(seen, [64; 3]);

    port.alloc(&mut burst, 1);
    burst[0].set_queue(9);
    assert_eq!(port.tx(&mut burst), 1);
    assert_eq!((port.stats().invalid_descriptors, port.ledger().app), (1, 0));
}

#[test]
fn a_stopped_or_unplugged_port_receives_no_more_but_sends() {
    let (mut port, mut wire) = MemoryPort::new(&config(8, 32));
    let mut burst = Burst::new();
    wire.inject(0, b"before").unwrap();
    port.stop_rx();
    assert_eq!(wire.inject(0, b"after"), Err(Refused::Stopped));
    assert_eq!(port.rx(&mut burst), 1, "what had arrived is still delivered");
    assert_eq!(port.tx(&mut burst), 1);
    assert_eq!(wire.collect(|_| {}), 1);
    port.flush();
    assert_eq!(port.ledger().kernel_rx, 7, "nothing is posted any more");

    assert_eq!(port.failure(), None);
    wire.unplug("pulled out");
    assert_eq!(port.failure().as_deref(), Some("pulled out"));
}

#[test]
fn the_memory_is_freed_whichever_half_goes_first() {
    for port_first in [true, false] {
        let (mut port, mut wire) = MemoryPort::new(&config(8, 32));
        let mut burst = Burst::new();
        wire.inject(0, b"in the rx ring").unwrap();
        port.alloc(&mut burst, 3);
        port.tx(&mut burst);
        let shared = port.shared.clone();
        match port_first {
            true => {
                drop(port);
                wire.hold_completions(false);
                assert_eq!(wire.collect(|_| {}), 3);
                drop(wire);
            }
            false => {
                drop(wire);
                assert!(port.ledger().balances());
                drop(port);
            }
        }
        let estate = shared.estate();
        let ledger = estate.pool.as_ref().unwrap().ledger();
        assert_eq!((ledger.free, ledger.total), (32, 32));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_sleeping_worker_is_woken_and_falls_asleep_again() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::BorrowedFd;
    let (mut port, mut wire) = MemoryPort::new(&config(8, 32));
    let fd = port.poll_fds()[0];
    // SAFETY: the port, which owns the descriptor, lives to the end of the test.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let ready = || poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1;
    assert!(!ready());
    let mut burst = Burst::new();
    for _ in 0..3 {
        wire.inject(0, b"wake").unwrap();
        wire.inject(0, b"up").unwrap();
        assert!(ready());
        assert_eq!(port.rx(&mut burst), 2);
        assert!(!ready());
        give_back(&mut port, &mut burst);
    }
}

#[test]
fn two_threads_exchange_packets_without_losing_a_frame() {
    const PACKETS: u32 = 20_000;
    let (mut port, mut wire) = MemoryPort::new(&config(16, 64));
    let device = std::thread::spawn(move || {
        let (mut next, mut back) = (0u32, 0u32);
        while back < PACKETS {
            if next < PACKETS && wire.inject(0, &next.to_be_bytes()).is_ok() {
                next += 1;
            }
            let collected = wire.collect(|packet| {
                assert_eq!(packet.bytes, back.to_be_bytes());
                back += 1;
            });
            if collected == 0 {
                std::thread::yield_now();
            }
        }
        wire
    });
    let mut burst = Burst::new();
    while port.stats().tx_completed < u64::from(PACKETS) {
        port.rx(&mut burst);
        port.tx(&mut burst);
        port.flush();
        std::thread::yield_now();
    }
    device.join().unwrap();
    assert_eq!(port.ledger(), Ledger { total: 64, free: 48, kernel_rx: 16, ..Ledger::default() });
}

/// What may happen to a port and its wire.
#[derive(Clone, Debug)]
enum Event {
    Inject { queue: u16, len: usize },
    Receive,
    Send { keep: usize },
    Alloc(usize),
    Free,
    Flush,
    Collect,
    HoldCompletions(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3u16, 1..300usize).prop_map(|(queue, len)| Event::Inject { queue, len }),
        3 => Just(Event::Receive),
        3 => (0..70usize).prop_map(|keep| Event::Send { keep }),
        1 => (0..20usize).prop_map(Event::Alloc),
        1 => Just(Event::Free),
        2 => Just(Event::Flush),
        2 => Just(Event::Collect),
        1 => any::<bool>().prop_map(Event::HoldCompletions),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_frame_is_lost_and_no_packet_cut_or_reordered(
        events in proptest::collection::vec(event(), 1..200)
    ) {
        let config = MemoryConfig { queues: 3, ring: 8, frames: 64, chunk: 128, headroom: 28, max_segments: 3, ..MemoryConfig::default() };
        let (mut port, mut wire) = MemoryPort::new(&config);
        let mut burst = Burst::new();
        let mut arrived: [VecDeque<Vec<u8>>; 3] = Default::default();
        let mut leaving: [VecDeque<Vec<u8>>; 3] = Default::default();
        let mut count = 0u8;
        for event in events {
            match event {
                Event::Inject { queue, len } => {
                    count = count.wrapping_add(1);
                    let packet = vec![count; len];
                    if wire.inject(queue, &packet).is_ok() {
                        arrived[queue as usize].push_back(packet);
                    }
                }
                Event::Receive => {
                    let before = burst.len();
                    port.rx(&mut burst);
                    for (queue, packet) in packets(&burst[before..]) {
                        prop_assert_eq!(Some(packet), arrived[queue as usize].pop_front());
                    }
                }
                Event::Send { keep } => {
                    // Whole packets from the front, as many as leave about `keep` frames behind.
                    let cut = burst.len().saturating_sub(keep);
                    let end = burst[..cut].iter().rposition(|frame| !frame.has(flag::MORE)).map_or(0, |at| at + 1);
                    let rest: Burst = burst.drain(end..).collect();
                    let sent = packets(&burst);
                    let left = port.tx(&mut burst);
                    let kept = packets(&burst).len();
                    prop_assert_eq!(left + burst.len(), end);
                    for (queue, packet) in sent.iter().take(sent.len() - kept) {
                        leaving[*queue as usize].push_back(packet.clone());
                    }
                    burst.extend(rest);
                }
                Event::Alloc(want) => {
                    let mut empty = Burst::new();
                    port.alloc(&mut empty, want);
                    port.free(&mut empty);
                }
                Event::Free => port.free(&mut burst),
                Event::Flush => port.flush(),
                Event::Collect => {
                    for (queue, packet) in wire.collect_all() {
                        prop_assert_eq!(Some(packet), leaving[queue as usize].pop_front());
                    }
                }
                Event::HoldCompletions(hold) => wire.hold_completions(hold),
            }
            prop_assert!(port.ledger().balances());
            prop_assert_eq!(port.ledger().app, burst.len() as u64);
        }
        port.free(&mut burst);
    }
}

/// The packets of whole frames, chains joined, with their queue.
fn packets(frames: &[Frame]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(frame.bytes());
        if !frame.has(flag::MORE) {
            found.push((frame.queue(), std::mem::take(&mut bytes)));
        }
    }
    assert!(bytes.is_empty(), "a chain was cut");
    found
}
