//! What is not one mbuf of ours for each packet: chains, and mbufs of strange pools. Off the straight way, so that this does
//! not carry it along.

use super::port::{DpdkPort, Lent};
use crate::frame::{Burst, Frame, flag};
use std::mem::ManuallyDrop;
use volley_dpdk::{Mbuf, mbuf};
use volley_steer::Verdict;

impl DpdkPort {
    /// Delivers a packet that is a chain, or lies in an mbuf that is not ours to keep (another pool's, shared, or with a buffer
    /// from elsewhere): the former as a chain of frames, the latter copied. Gives any packet back that the burst has no room for.
    #[cold]
    pub(super) fn unusual(&mut self, mbuf: Mbuf, burst: &mut Burst) -> Result<(), Mbuf> {
        let segments = usize::from(mbuf.segments());
        if segments > burst.remaining_capacity() && segments <= self.max_segments.max(1) {
            return Err(mbuf);
        }
        if burst.is_full() {
            return Err(mbuf);
        }
        if segments > self.max_segments {
            self.counts.chains_dropped += 1;
            return Ok(());
        }
        let ours = {
            let mut all = true;
            mbuf.each_segment(|segment| all &= segment.is_own() && self.pool.owns(segment));
            all
        };
        if ours {
            self.deliver_chain(mbuf, burst);
        } else {
            self.deliver_copy(&mbuf, burst);
        }
        Ok(())
    }

    fn deliver_chain(&mut self, mbuf: Mbuf, burst: &mut Burst) {
        let seen = mbuf.flags();
        let flags = super::offload::received(&mbuf, seen) | self.trust();
        // Steering looks at no more than the first segment has.
        let flags = match self.verdict(mbuf.bytes()) {
            Verdict::Redirect => flags,
            Verdict::Pass => flags | flag::NOT_STEERED,
            // As a chain it goes home.
            Verdict::Drop => return,
        };
        super::may_panic();
        let mut rest = Some(mbuf);
        while let Some(mut mbuf) = rest.take() {
            rest = mbuf.split();
            let more = if rest.is_some() { flag::MORE } else { 0 };
            let frame = self.token(mbuf, flags | more);
            burst.push(frame);
            super::may_panic();
        }
    }

    /// Into an mbuf of our own; the other goes back where it came from when the caller drops it.
    fn deliver_copy(&mut self, mbuf: &Mbuf, burst: &mut Burst) {
        let mut copies = mbuf::Burst::new();
        if !self.pool.take(&mut copies, 1) {
            self.counts.fill_ring_empty += 1;
            return;
        }
        let Some(mut copy) = copies.pop() else { return };
        let mut bytes = [0u8; 2048];
        let mut len = 0;
        let mut fits = true;
        mbuf.each_segment(|segment| match bytes.get_mut(len..len + segment.bytes().len()) {
            Some(to) => {
                to.copy_from_slice(segment.bytes());
                len += to.len();
            }
            None => fits = false,
        });
        if !fits || !copy.write(&bytes[..len]) {
            self.counts.rx_dropped += 1;
            return;
        }
        let flags = super::offload::received(mbuf, mbuf.flags()) | self.trust();
        let flags = match self.verdict(copy.bytes()) {
            Verdict::Redirect => flags,
            Verdict::Pass => flags | flag::NOT_STEERED,
            Verdict::Drop => return,
        };
        super::may_panic();
        let frame = self.token(copy, flags);
        burst.push(frame);
    }

    fn verdict(&self, packet: &[u8]) -> Verdict {
        self.steerer().map_or(Verdict::Redirect, |steering| steering.steer(packet))
    }

    /// Sends packet by packet: chains are linked, what the device cannot send is counted and freed, and the first that finds
    /// no room ends it. `readied` are mbufs whose frames are still in `burst`.
    #[cold]
    pub(super) fn send_unusual(&mut self, burst: &mut Burst, mut readied: Lent) -> usize {
        readied.iter_mut().for_each(|mbuf| self.unready(mbuf));
        let mut accepted = 0;
        while !burst.is_empty() {
            let whole = burst.iter().position(|frame| !frame.has(flag::MORE));
            let frames = whole.map_or(burst.len(), |last| last + 1);
            let packet = &mut burst[..frames];
            let endless = whole.is_none();
            match if endless { Sent::Never } else { self.send_packet(packet) } {
                Sent::Yes => {
                    burst.drain(..frames).for_each(|frame| self.release(frame));
                    self.counts.tx_frames += frames as u64;
                }
                Sent::Never => {
                    let mut mbufs = mbuf::Burst::new();
                    for frame in burst.drain(..frames) {
                        mbufs.push(self.take_back(frame));
                    }
                    self.put(&mut mbufs);
                    self.counts.tx_dropped += frames as u64;
                }
                Sent::NotNow => break,
            }
            accepted += frames;
            super::may_panic();
        }
        accepted
    }

    /// Links a packet's frames and offers it. Unless it is sent, the mbufs are apart again afterwards.
    fn send_packet(&mut self, packet: &mut [Frame]) -> Sent {
        if packet.len() > self.max_segments.max(1) || packet.iter().any(|frame| frame.len() == 0) {
            return Sent::Never;
        }
        let total: usize = packet.iter().map(Frame::len).sum();
        let mut offloaded = false;
        let mut chain = Lent::new(mbuf::Burst::new());
        for (n, frame) in packet.iter_mut().enumerate() {
            let mbuf = match n {
                0 => self.ready(frame, &mut offloaded),
                _ => Some(ManuallyDrop::into_inner(self.plain(frame))),
            };
            let Some(mbuf) = mbuf else { return Sent::Never };
            chain.push(mbuf);
            super::may_panic();
        }
        let segments = chain.len() as u16;
        let extra = u32::from(chain[0].data_len()) - packet[0].len() as u32;
        let mut next: Option<Mbuf> = None;
        while let Some(mut mbuf) = chain.pop() {
            if let Some(next) = next.take() {
                mbuf.link(next);
            }
            next = Some(mbuf);
        }
        let Some(mut head) = next else { return Sent::Never };
        head.set_segments(segments);
        head.set_packet_len(total as u32 + extra);
        chain.push(head);
        let outcome = self.offer(&mut chain, offloaded);
        // Not taken: the frames own the mbufs still, each for itself.
        let mut rest = chain.pop();
        if let Some(head) = &mut rest {
            self.unready(head);
        }
        while let Some(mut mbuf) = rest.take() {
            rest = mbuf.split();
            let _ = mbuf.into_raw();
        }
        outcome
    }
}

/// What became of a packet offered to the driver.
pub(super) enum Sent {
    Yes,
    NotNow,
    Never,
}
