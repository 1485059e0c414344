//! The whole port over rings on the heap, the test playing the kernel.

mod rig;
mod zero_copy;

use super::ring::PKT_CONTD;
use super::*;
use rig::{RING, Rig, STARTS};
use std::collections::VecDeque;

#[test]
fn frames_go_round_across_the_wrap_of_every_index() {
    for start in STARTS {
        let mut rig = Rig::new(1, 32, 4, start);
        let mut burst = Burst::new();
        let (mut delivered, mut sent) = (0u32, 0u32);
        for round in 0..500u32 {
            for _ in 0..round % 4 + 1 {
                delivered += u32::from(rig.kernel(0).deliver(&[60 + delivered % 1000]));
            }
            rig.port.rx(&mut burst);
            rig.balanced();
            rig.port.tx(&mut burst);
            rig.port.flush();
            let ledger = rig.balanced();
            assert!(burst.is_empty() && ledger.app == 0 && ledger.kernel_tx == 0, "{ledger}");
            for descriptor in rig.kernel(0).sending.drain(..) {
                assert_eq!(descriptor.len, 60 + sent % 1000, "start {start:#x}: order or length");
                sent += 1;
            }
        }
        assert_eq!(sent, delivered);
        assert!(sent > 1000, "start {start:#x}: {sent} moved");
        let stats = rig.port.stats();
        assert_eq!((stats.rx_frames, stats.tx_completed), (u64::from(sent), u64::from(sent)));
    }
}

#[test]
fn chains_are_delivered_whole_also_across_the_end_of_the_ring() {
    for start in STARTS {
        let mut rig = Rig::new(1, 64, 4, start);
        // Five times three parts in a ring of eight: some chain straddles the end.
        for round in 0..5u32 {
            assert!(rig.kernel(0).deliver(&[1792, 1792, 100 + round]));
            let mut burst = Burst::new();
            assert_eq!(rig.port.rx(&mut burst), 3);
            let more: Vec<_> = burst.iter().map(|frame| frame.has(flag::MORE)).collect();
            assert_eq!(more, [true, true, false]);
            assert_eq!(burst[2].len() as u32, 100 + round);
            assert_eq!(rig.port.tx(&mut burst), 3, "answered whole");
            rig.port.flush();
            let sent: Vec<_> = rig.kernel(0).sending.drain(..).map(|d| d.options).collect();
            assert_eq!(sent, [PKT_CONTD, PKT_CONTD, 0]);
            rig.balanced();
        }
    }
}

/// What panics is the ownership check of debug builds.
#[test]
#[cfg(debug_assertions)]
fn the_ledger_balances_after_a_panic_within_a_receive_or_a_completion() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for segments in [1, MAX_SEGMENTS as u32] {
        let mut rig = Rig::new(1, 64, 4, 0);
        rig.port.queues[0].take_chains_of(segments);
        let mut sent = rig.frames(&[60; 2], false);
        assert_eq!(rig.port.tx(&mut sent), 2);
        assert!(rig.kernel(0).deliver(&[60]) && rig.kernel(0).deliver(&[61]));
        rig.kernel(0).deliver_nonsense();
        let mut burst = Burst::new();
        assert!(catch_unwind(AssertUnwindSafe(|| rig.port.rx(&mut burst))).is_err());
        assert_eq!((burst.len(), rig.balanced().app), (2, 2));
        assert_eq!(rig.port.stats().rx_frames, 2);
        rig.kernel(0).transmit(1);
        rig.kernel(0).complete_nonsense();
        assert!(catch_unwind(AssertUnwindSafe(|| rig.port.flush())).is_err());
        assert_eq!((rig.balanced().kernel_tx, rig.port.stats().tx_completed), (1, 1));
        rig.port.free(&mut burst);
        assert_eq!(rig.balanced().app, 0);
    }
}

#[test]
fn a_chain_whose_end_has_not_arrived_waits_and_so_does_one_that_does_not_fit() {
    let mut rig = Rig::new(1, 64, 4, u32::MAX - 1);
    rig.kernel(0).deliver_some(&[1792, 1792], true);
    let mut burst = Burst::new();
    assert_eq!(rig.port.rx(&mut burst), 0, "never cut");
    rig.kernel(0).deliver_some(&[10], false);
    assert_eq!(rig.port.rx(&mut burst), 3);
    rig.port.free(&mut burst);

    // Room for two more in the burst, and a chain of three.
    let mut full = Burst::new();
    assert_eq!(rig.port.alloc(&mut full, 47), 47);
    let mut other = Rig::new(1, 64, 4, 0);
    assert_eq!(other.port.alloc(&mut full, BURST - 2 - 47), BURST - 2 - 47);
    rig.port.flush();
    rig.kernel(0).deliver_some(&[1, 2, 3], false);
    assert_eq!(rig.port.rx(&mut full), 0);
    let mut foreign: Burst = full.drain(47..).collect();
    assert_eq!(rig.port.rx(&mut full), 3);
    rig.port.free(&mut full);
    other.port.free(&mut foreign);
    rig.balanced();
}

#[test]
fn a_chain_too_long_is_dropped_whole_and_counted() {
    let mut rig = Rig::new(1, 64, 4, u32::MAX - 5);
    let mut burst = Burst::new();
    // More parts than the ring holds: they come in pieces, and a ring full of one open chain must not stand still.
    for open in [true, true, false] {
        rig.kernel(0).deliver_some(&[1792; 4], true);
        rig.kernel(0).deliver_some(&[1792; 4], open);
        assert_eq!(rig.port.rx(&mut burst), 0);
        rig.port.flush();
        rig.balanced();
    }
    assert!(rig.kernel(0).deliver(&[77]));
    assert_eq!(rig.port.rx(&mut burst), 1, "the next packet is whole");
    assert_eq!(burst[0].len(), 77);
    assert_eq!(rig.port.stats().chains_dropped, 1);
    rig.port.free(&mut burst);
    rig.port.flush();
    assert_eq!(rig.balanced().app, 0);
}

#[test]
fn a_chain_is_sent_whole_or_not_at_all_and_order_is_kept() {
    let mut rig = Rig::new(1, 64, 4, u32::MAX - 2);
    // The kernel does not send: six of eight slots fill up.
    rig.kernel(0).script.extend([Err(libc::ENETDOWN); 100]);
    let mut six = rig.frames(&[60; 6], false);
    assert_eq!(rig.port.tx(&mut six), 6);
    let mut three = rig.frames(&[61, 62, 63], true);
    assert_eq!(rig.port.tx(&mut three), 0, "two slots are not enough for three");
    assert_eq!(three.len(), 3, "the chain is still the caller's");
    let mut mixed = rig.frames(&[70, 71, 72], false);
    assert_eq!(rig.port.tx(&mut mixed), 2, "what fits from the front");
    assert_eq!(mixed[0].len(), 72);
    rig.port.free(&mut mixed);
    rig.kernel(0).script.clear();
    rig.port.flush();
    assert_eq!(rig.port.tx(&mut three), 3);
    rig.port.flush();
    let sent: Vec<_> = rig.kernel(0).sending.drain(..).map(|d| d.len).collect();
    assert_eq!(sent, [60, 60, 60, 60, 60, 60, 70, 71, 61, 62, 63]);
    assert_eq!(rig.balanced().kernel_tx, 0);
}

#[test]
fn what_no_device_can_send_is_freed_and_counted_not_queued_for_ever() {
    let mut rig = Rig::new(1, 64, 4, 0);
    let mut empty = rig.frames(&[60, 0, 60], false);
    assert_eq!(rig.port.tx(&mut empty), 3);
    let mut long = rig.frames(&[10; MAX_SEGMENTS + 1], true);
    assert_eq!(rig.port.tx(&mut long), MAX_SEGMENTS + 1);
    let mut endless = rig.frames(&[10, 10], true);
    endless[1].set_flags(flag::MORE);
    assert_eq!(rig.port.tx(&mut endless), 2);
    rig.port.flush();
    let stats = rig.port.stats();
    assert_eq!((stats.tx_frames, stats.tx_dropped), (2, 1 + MAX_SEGMENTS as u64 + 1 + 2));
    assert_eq!(rig.kernel(0).sending.len(), 2);
    assert_eq!(rig.balanced().app, 0);
}

#[test]
fn each_answer_to_a_transmit_wakeup_is_taken_for_what_it_means() {
    let mut rig = Rig::new(1, 64, 4, u32::MAX - 4);
    let send = |rig: &mut Rig, script: &[Result<(), i32>]| {
        rig.kernel(0).script = script.iter().copied().collect();
        rig.kernel(0).wakeups = 0;
        let mut burst = rig.frames(&[60; 5], false);
        assert_eq!(rig.port.tx(&mut burst), 5);
        rig.port.flush();
        let stats = rig.port.stats();
        let wakeups = rig.kernel(0).wakeups;
        (wakeups, stats.tx_dropped, rig.balanced().kernel_tx)
    };
    assert_eq!(send(&mut rig, &[]), (1, 0, 0), "one doorbell for a burst");
    let again = Err(libc::EAGAIN);
    assert_eq!(send(&mut rig, &[again, again]), (3, 0, 0), "still queued: ring again");
    let busy = Err(libc::EBUSY);
    assert_eq!(send(&mut rig, &[busy, again, busy]), (4, 2, 0), "one dropped for each EBUSY");
    // Nothing moves: no spinning on it, but the next flush tries again.
    assert_eq!(send(&mut rig, &[Err(libc::ENOBUFS)]), (1, 2, 5));
    rig.port.flush();
    assert_eq!(rig.balanced().kernel_tx, 0);
    assert_eq!(send(&mut rig, &[Err(libc::ENETDOWN)]), (1, 2, 5), "link down: they wait");
    rig.port.flush();
    assert_eq!(rig.balanced().kernel_tx, 0);
    assert_eq!(rig.port.failure(), None);
    assert_eq!(send(&mut rig, &[Err(libc::ENXIO)]).2, 5);
    assert!(rig.port.failure().unwrap().contains("gone"));
}

#[test]
fn a_device_that_vanishes_while_nothing_happens_is_noticed() {
    let mut rig = Rig::new(2, 64, 4, 0);
    rig.kernel(1).rx_answer = Err(libc::ENXIO);
    for _ in 0..=PROBE_EVERY {
        rig.port.flush();
    }
    assert!(rig.port.failure().is_some());
}

#[test]
fn no_wakeup_without_need() {
    let mut rig = Rig::new(1, 64, 4, 0);
    rig.kernel(0).tx.ask_for_wakeup(false);
    let mut burst = rig.frames(&[60; 3], false);
    assert_eq!(rig.port.tx(&mut burst), 3);
    (0..10).for_each(|_| rig.port.flush());
    assert_eq!((rig.kernel(0).wakeups, rig.port.stats().wakeups), (0, 0));
    rig.kernel(0).transmit(3);
    (0..10).for_each(|_| rig.port.flush());
    assert_eq!(rig.balanced().kernel_tx, 0, "completions are reaped although nothing arrives");
    rig.kernel(0).fill.ask_for_wakeup(true);
    rig.port.flush();
    assert_eq!(rig.port.stats().wakeups, 0, "in copy mode there is no driver that could wake");
    let mut rig = Rig::with(1, 64, 4, 0, Some(0));
    rig.kernel(0).fill.ask_for_wakeup(true);
    rig.port.flush();
    assert_eq!(rig.port.stats().wakeups, 1, "the fill ring asked");
}

#[test]
fn queues_share_the_chunks_evenly_and_leave_the_reserve() {
    let mut rig = Rig::new(3, 3 * 4 + 5, 5, u32::MAX);
    let posted: Vec<_> = rig.port.queues.iter().map(Queue::in_rx).collect();
    assert_eq!(posted, [4, 4, 4]);
    assert_eq!(rig.balanced().free, 5);
    // Every arrival is kept: the reserve is still there to send from.
    let mut kept = Burst::new();
    for queue in 0..3 {
        while rig.kernel(queue).deliver(&[60]) {}
    }
    assert_eq!(rig.port.rx(&mut kept), 12);
    rig.port.flush();
    let mut burst = Burst::new();
    assert_eq!(rig.port.alloc(&mut burst, 64), 5, "never starved");
    assert_eq!(rig.port.alloc(&mut burst, 1), 0, "exhausted");
    assert!(!rig.kernel(0).deliver(&[60]), "nothing is posted now");
    // Full recovery, from few at first.
    rig.port.free(&mut burst);
    let mut few: Burst = kept.drain(..7).collect();
    rig.port.free(&mut few);
    rig.port.flush();
    let mut posted: Vec<_> = rig.port.queues.iter().map(Queue::in_rx).collect();
    posted.sort_unstable();
    assert_eq!(posted, [2, 2, 3], "even also when there is little");
    rig.port.free(&mut kept);
    rig.port.flush();
    assert!(rig.port.queues.iter().all(|queue| queue.in_rx() == 4));
    rig.balanced();
}

#[test]
fn a_busy_queue_does_not_keep_another_from_receiving() {
    let mut rig = Rig::new(2, 64, 4, 0);
    let (mut first, mut second) = (0, 0);
    for _ in 0..40 {
        while rig.kernel(0).deliver(&[60]) {}
        while rig.kernel(1).deliver(&[60]) {}
        // Room for six only, of up to sixteen that wait.
        let mut burst = Burst::new();
        let mut other = Rig::new(1, 64, 1, 0);
        other.port.alloc(&mut burst, BURST - 8);
        let held = burst.len();
        rig.port.rx(&mut burst);
        first += burst[held..].iter().filter(|frame| frame.queue() == 0).count();
        second += burst[held..].iter().filter(|frame| frame.queue() == 1).count();
        let mut arrived: Burst = burst.drain(held..).collect();
        rig.port.free(&mut arrived);
        other.port.free(&mut burst);
        rig.port.flush();
    }
    assert!(first > 100 && first.abs_diff(second) <= 16, "{first} against {second}");
}

#[test]
fn frames_leave_on_their_own_queue() {
    let mut rig = Rig::new(2, 64, 4, 0);
    let mut burst = rig.frames(&[60, 61, 62, 63], false);
    for (frame, queue) in burst.iter_mut().zip([1, 0, 1, 99]) {
        frame.set_queue(queue);
    }
    assert_eq!(rig.port.tx(&mut burst), 4);
    rig.port.flush();
    let lens = |queue: usize| rig.kernel(queue).sending.iter().map(|d| d.len).collect::<Vec<_>>();
    assert_eq!((lens(0), lens(1)), (vec![61, 63], vec![60, 62]), "an unknown queue is the first");
}

#[test]
fn stopping_posts_no_more_and_closing_counts_what_is_given_up() {
    let mut rig = Rig::new(1, 32, 4, u32::MAX - 6);
    rig.port.stop_rx();
    let mut burst = Burst::new();
    let mut received = 0;
    while rig.kernel(0).deliver(&[60]) {
        received += rig.port.rx(&mut burst);
        rig.port.free(&mut burst);
        rig.port.flush();
    }
    assert_eq!((received, rig.balanced().kernel_rx), (8, 0));
    rig.kernel(0).script.extend([Err(libc::ENETDOWN); 10]);
    let mut out = rig.frames(&[60; 5], false);
    let mut lent: Burst = out.drain(3..).collect();
    assert_eq!(rig.port.tx(&mut out), 3, "transmit goes on");
    rig.port.flush();
    let ledger = rig.port.close();
    assert_eq!((ledger.abandoned, ledger.app, ledger.kernel_tx), (3, 2, 0));
    rig.balanced();
    rig.port.free(&mut lent);
    rig.port.flush();
    assert_eq!((rig.port.rx(&mut lent), rig.port.alloc(&mut lent, 4)), (0, 0));
    assert_eq!((rig.balanced().app, rig.port.stats().tx_frames), (0, 3));
}

#[test]
fn a_checksum_request_stands_before_the_packet() {
    let mut rig = Rig::new(1, 32, 4, 0);
    let mut burst = rig.frames(&[60, 60], false);
    assert!(burst[0].set_partial_checksum(14 + 20, false));
    assert!(!burst[1].set_partial_checksum(15, false), "odd offsets do not exist");
    let before = burst[0].headroom();
    assert_eq!(checksum::request(&mut burst[0]), libc::XDP_TX_METADATA);
    assert_eq!(checksum::request(&mut burst[1]), 0);
    assert_eq!((burst[0].headroom(), burst[0].len()), (before, 60), "the packet has not moved");
    assert!(burst[0].set_range(before - 24, 24));
    let mut expected = [0u8; 24];
    expected[..8].copy_from_slice(&2u64.to_ne_bytes());
    expected[8..10].copy_from_slice(&34u16.to_ne_bytes());
    expected[10..12].copy_from_slice(&6u16.to_ne_bytes());
    assert_eq!(burst[0].bytes(), expected);
    rig.port.free(&mut burst);
}

#[test]
fn only_what_is_marked_is_asked_for_and_what_has_no_room_is_not_sent() {
    let mut rig = Rig::finishing_checksums();
    let mut burst = rig.frames(&[60, 60, 60], false);
    assert!(burst[0].set_partial_checksum(14 + 40, true));
    // The packet begins with the chunk: nowhere to put metadata, and the kernel would refuse the descriptor.
    assert!(burst[2].set_range(0, 60));
    assert_eq!(rig.port.tx(&mut burst), 3);
    assert_eq!(rig.port.stats().tx_dropped, 1);
    let sent = rig.kernel(0).transmit(8);
    let asked: Vec<_> =
        sent.iter().map(|descriptor| descriptor.options & libc::XDP_TX_METADATA != 0).collect();
    assert_eq!(asked, [true, false]);
    rig.port.flush();
    assert_eq!(rig.balanced().app, 0);
}

#[test]
fn a_chain_asks_once_before_its_first_frame() {
    let mut rig = Rig::finishing_checksums();
    let mut burst = rig.frames(&[200, 60], true);
    assert!(burst[0].set_partial_checksum(14 + 20, false));
    assert_eq!(rig.port.tx(&mut burst), 2);
    let sent = rig.kernel(0).transmit(8);
    let options: Vec<_> = sent.iter().map(|descriptor| descriptor.options).collect();
    assert_eq!(options, [libc::XDP_TX_METADATA | libc::XDP_PKT_CONTD, 0]);
}

#[test]
fn queues_are_named_as_people_name_them() {
    assert_eq!(ranges(&[0]), "0");
    assert_eq!(ranges(&[3, 0, 1, 7, 2]), "0-3,7");
}
