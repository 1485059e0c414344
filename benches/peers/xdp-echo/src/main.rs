//! A UDP echo on the `xdp` crate: `xdp-echo INTERFACE PORT`, queue 0, copy mode, spinning. A row of `volley-bench matrix`.

use anyhow::{Context, Result};
use peer::{Arguments, BURST, FRAMES, RING, Tell};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use xdp::nic::NicIndex;
use xdp::slab::{Slab, StackSlab};
use xdp::socket::{XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{RingConfigBuilder, Umem, WakableRings};

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let name = CString::new(arguments.interface.as_str())?;
    let nic = NicIndex::lookup_by_name(&name)?
        .with_context(|| format!("there is no interface {}", arguments.interface))?;
    let (mut umem, rings, socket) = peer::open(|| open(nic))?;
    let (mut fill, mut completion) = (rings.fill_ring, rings.completion_ring);
    let (mut rx, mut tx) = rings.rx_ring.zip(rings.tx_ring).context("both rings were asked for")?;
    // SAFETY: `socket` is not dropped before the process ends.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    peer::raise_budget(descriptor);
    // SAFETY: the UMEM lives as long as the socket, here and below: both until main returns.
    unsafe { fill.enqueue(&mut umem, RING as usize, true)? };
    let _steering = arguments.steer(descriptor)?;

    let mut tell = Tell::ready("xdp-echo")?;
    let (mut received, mut answers) = (StackSlab::<BURST>::new(), StackSlab::<BURST>::new());
    let mut on_the_way = 0;
    while tell.go_on() {
        // SAFETY: as above; packets go back to the UMEM or to its transmit ring.
        unsafe { rx.recv(&umem, &mut received) };
        while answers.available() > 0
            && let Some(mut packet) = received.pop_back()
        {
            match peer::answer(&mut packet) {
                true => drop(answers.push_front(packet)),
                false => umem.free_packet(packet),
            }
        }
        let waiting = answers.len();
        if waiting > 0 {
            tell.calls += 1;
            // SAFETY: as above.
            match unsafe { tx.send(&mut answers, true) } {
                Ok(_) => {}
                // In the ring all the same: the kernel did not take all of them yet, or dropped one.
                Err(error) if again(&error) => {}
                Err(error) => return Err(error).context("sendto"),
            }
            let sent = waiting - answers.len();
            tell.answered += sent as u64;
            on_the_way += sent;
        }
        on_the_way -= completion.dequeue(&mut umem, 2 * BURST);
        if waiting == 0 && on_the_way > 0 {
            // What the kernel left in the ring; the crate has no doorbell without packets.
            tell.calls += 1;
            // SAFETY: sendto reads nothing when the length is 0.
            unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
        }
        // SAFETY: as above. In copy mode nobody waits for the fill ring.
        unsafe { fill.enqueue(&mut umem, BURST, false)? };
    }
    Ok(())
}

fn open(nic: NicIndex) -> Result<(Umem, WakableRings, XdpSocket)> {
    let frames =
        UmemCfgBuilder { frame_size: FrameSize::TwoK, frame_count: FRAMES, ..UmemCfgBuilder::default() };
    let umem = Umem::map(frames.build()?)?;
    let mut builder = XdpSocketBuilder::new()?;
    let rings =
        RingConfigBuilder { rx_count: RING, tx_count: RING, fill_count: RING, completion_count: RING };
    let (rings, mut flags) = builder.build_wakable_rings(&umem, rings.build()?)?;
    flags.force_copy();
    Ok((umem, rings, builder.bind(nic, 0, flags)?))
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::EBUSY))
}
