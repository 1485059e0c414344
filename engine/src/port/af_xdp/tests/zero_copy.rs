//! What is different when the driver itself takes frames from our rings.

use super::super::queue::RING_AGAIN_AFTER;
use super::*;

#[test]
fn a_driver_is_woken_once_for_what_is_new_and_again_only_when_nothing_moves() {
    let mut rig = Rig::with(1, 64, 4, u32::MAX - 2, Some(0));
    // As a driver whose doorbell only asks for an interrupt: nothing has been sent when the call returns.
    rig.kernel(0).script = VecDeque::from([Ok(()); 8]);
    let send = |rig: &mut Rig| {
        let mut burst = rig.frames(&[60; 2], false);
        assert_eq!(rig.port.tx(&mut burst), 2);
        rig.port.flush();
        rig.kernel(0).wakeups
    };
    assert_eq!(send(&mut rig), 1);
    (0..RING_AGAIN_AFTER).for_each(|_| rig.port.flush());
    assert_eq!(rig.kernel(0).wakeups, 1, "the interrupt is on its way");
    rig.port.flush();
    assert_eq!(rig.kernel(0).wakeups, 2, "it was lost: once more");
    assert_eq!(send(&mut rig), 3, "something new");
    rig.kernel(0).transmit(4);
    (0..1000).for_each(|_| rig.port.flush());
    assert_eq!((rig.kernel(0).wakeups, rig.balanced().kernel_tx), (3, 0), "nothing is left to send");
}

#[test]
fn a_doorbell_that_failed_is_rung_by_the_next_flush() {
    let mut rig = Rig::with(1, 64, 4, 0, Some(0));
    rig.kernel(0).script = VecDeque::from([Err(libc::ENETDOWN), Err(libc::ENOBUFS)]);
    let mut burst = rig.frames(&[60; 3], false);
    assert_eq!(rig.port.tx(&mut burst), 3);
    for left in [3, 3, 0] {
        rig.port.flush();
        assert_eq!(rig.balanced().kernel_tx, left);
    }
    assert_eq!((rig.port.failure(), rig.port.stats().tx_dropped), (None, 0));
    rig.kernel(0).script = VecDeque::from([Err(libc::ENXIO)]);
    let mut burst = rig.frames(&[60], false);
    rig.port.tx(&mut burst);
    rig.port.flush();
    assert!(rig.port.failure().unwrap().contains("gone"));
}

#[test]
fn the_device_s_ring_is_filled_beside_the_fill_ring() {
    const DEVICE: u32 = 16;
    let mut rig = Rig::with(2, 2 * (RING + DEVICE) + 10, 10, u32::MAX - 20, Some(DEVICE));
    let mut in_device = [0; 2];
    // The driver moves what is posted into its own ring, as far as that goes.
    for _ in 0..5 {
        for (queue, held) in in_device.iter_mut().enumerate() {
            let mut kernel = rig.kernel(queue);
            let taken = kernel.fill.ready(DEVICE - *held).min(DEVICE - *held);
            kernel.fill.release(taken);
            *held += taken;
        }
        rig.port.flush();
    }
    assert_eq!(in_device, [DEVICE; 2]);
    let posted: Vec<_> = rig.port.queues.iter().map(Queue::in_rx).collect();
    assert_eq!(posted, [DEVICE + RING; 2]);
    assert_eq!(rig.balanced().free, 10, "the reserve is left");
}
