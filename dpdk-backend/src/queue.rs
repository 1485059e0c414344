//! The queues of a device: bursts in and out, one call each.

use crate::device::Device;
use crate::gate::Pass;
use crate::mbuf::{Burst, pointers};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use volley_dpdk_sys as sys;

/// A receive queue. One thread at a time: `Send`, not `Sync`.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
    device: Device,
    pass: Option<Arc<Pass>>,
    _one_thread: PhantomData<Cell<()>>,
}

/// A transmit queue. One thread at a time: `Send`, not `Sync`.
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
    device: Device,
    pass: Option<Arc<Pass>>,
    _one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    pub(crate) fn new(device: Device, queue: u16, pass: Option<Arc<Pass>>) -> RxQueue {
        RxQueue { port: device.info().id, queue, device, pass, _one_thread: PhantomData }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The queue's number.
    #[inline(always)]
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Receives into the room of the burst, at most `most`, and returns how many packets came. Some drivers round `most` down to
    /// a multiple of 4 or 8.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst, most: usize) -> usize {
        let len = burst.len();
        let most = most.min(burst.remaining_capacity());
        // SAFETY: the device runs while the queue is there, and only we use it; `most` pointers fit behind the first `len`,
        // and as many as are said are ours then.
        unsafe {
            let to = pointers(burst.as_mut_ptr().add(len));
            let receive = || sys::volley_rx_burst(self.port, self.queue, to, most as u16);
            let received = usize::from(match &self.pass {
                None => receive(),
                Some(pass) => pass.through(receive),
            });
            burst.set_len(len + received);
            received
        }
    }
}

impl TxQueue {
    pub(crate) fn new(device: Device, queue: u16, pass: Option<Arc<Pass>>) -> TxQueue {
        TxQueue { port: device.info().id, queue, device, pass, _one_thread: PhantomData }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sends from the front of the burst and returns how many packets were taken; the rest stays.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        let len = burst.len();
        // SAFETY: as for `receive`; what is taken is the driver's, so its tokens are forgotten and the rest moves up.
        unsafe {
            let at = pointers(burst.as_mut_ptr());
            let send = || sys::volley_tx_burst(self.port, self.queue, at, len as u16);
            let taken = usize::from(match &self.pass {
                None => send(),
                Some(pass) => pass.through(send),
            });
            if taken < len {
                std::ptr::copy(at.add(taken), at, len - taken);
            }
            burst.set_len(len - taken);
            taken
        }
    }

    /// Readies packets with offload flags for [`TxQueue::send`], from the front, and returns how many are: less than all when
    /// the device cannot send the next one so, ever.
    #[inline]
    pub fn prepare(&mut self, burst: &mut Burst) -> usize {
        // SAFETY: as for `send`; the tokens stay.
        unsafe {
            let at = pointers(burst.as_mut_ptr());
            usize::from(sys::volley_tx_prepare(self.port, self.queue, at, burst.len() as u16))
        }
    }

    /// Gives back to their pools what has been sent. False when the driver has no such call.
    pub fn reap(&mut self) -> bool {
        // SAFETY: only we use the queue.
        unsafe { sys::rte_eth_tx_done_cleanup(self.port, self.queue, 0) >= 0 }
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.device.give_back(self.queue, true);
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.device.give_back(self.queue, false);
    }
}
