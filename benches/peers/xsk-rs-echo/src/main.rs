//! A UDP echo on the `xsk-rs` crate: `xsk-rs-echo INTERFACE PORT`, queue 0, copy mode, spinning. A row of `volley-bench matrix`.

use anyhow::{Context, Result};
use peer::{Arguments, BURST, FRAMES, RING, Tell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{Socket, Umem};

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let ring = QueueSize::new(RING)?;
    let layout = UmemConfig::builder()
        .frame_size(FrameSize::new(2048)?)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()?;
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let (umem, mut frames, (mut tx, mut rx, rest)) = peer::open(|| {
        let (umem, frames) = Umem::new(layout, FRAMES.try_into()?, false)?;
        // SAFETY: the UMEM is not shared.
        let socket = unsafe { Socket::new(config, &umem, &arguments.interface.parse()?, 0)? };
        Ok((umem, frames, socket))
    })?;
    let (mut fill, mut completion) = rest.context("the first socket of a UMEM has its rings")?;
    // SAFETY: `tx` keeps the socket open until the process ends.
    let descriptor = unsafe { BorrowedFd::borrow_raw(tx.fd().as_raw_fd()) };
    peer::raise_budget(descriptor.as_fd());
    let mut free = frames.split_off(RING as usize);
    // SAFETY: here and below, a frame is in one place only: kernel, `burst` or `free`.
    unsafe { fill.produce(&frames) };
    let _steering = arguments.steer(descriptor)?;

    let mut tell = Tell::ready("xsk-rs-echo")?;
    let mut burst = [free[0]; BURST];
    let mut done = [free[0]; 2 * BURST];
    let mut on_the_way = 0;
    while tell.go_on() {
        // SAFETY: as above.
        let received = unsafe { rx.consume(&mut burst) };
        let mut answers = 0;
        for at in 0..received {
            // SAFETY: as above; the frame is ours since it was received.
            if peer::answer(unsafe { umem.data_mut(&mut burst[at]) }.contents_mut()) {
                burst.swap(answers, at);
                answers += 1;
            }
        }
        free.extend_from_slice(&burst[answers..received]);
        if answers > 0 {
            // SAFETY: as above. The transmit ring holds as many frames as there are beside the fill ring's.
            let sent = unsafe { tx.produce(&burst[..answers]) };
            free.extend_from_slice(&burst[sent..answers]);
            tell.answered += sent as u64;
            on_the_way += sent;
        }
        if on_the_way > 0 && tx.needs_wakeup() {
            tell.calls += 1;
            tx.wakeup()?;
        }
        // SAFETY: as above.
        let completed = unsafe { completion.consume(&mut done) };
        free.extend_from_slice(&done[..completed]);
        on_the_way -= completed;
        let refill = free.len().min(BURST);
        if refill > 0 {
            let at = free.len() - refill;
            // SAFETY: as above.
            let filled = unsafe { fill.produce(&free[at..]) };
            // All or nothing, which is this ring's rule.
            free.truncate(free.len() - filled);
        }
    }
    Ok(())
}
