//! Packets spread over several frames (multi-buffer): received and answered whole, or dropped by reason.
//!
//! The headers must lie in the first frame. The app sees one slice, so the payload is copied into the batch's scratch memory, and
//! an answer that changed it is copied back, filling the frames in order; what an unchanged answer does not need is only trimmed.
//!
//! ```text
//! frames    │ headers │ pay │   │ load, spread │   │ over │
//! scratch   │ payload, spread over │ room for a longer answer │ next chain …
//! ```

use super::parse::{self, Arrival};
use super::reply::{self, Checksum};
use super::{Net, Path};
use crate::datagram::{Datagram, Opened};
use crate::frame::{BURST, Frame, flag};
use crate::port::Port;
use arrayvec::ArrayVec;
use volley_wire::DropReason;

/// Sizes the scratch memory for a burst full of chains, once: each has two frames or more. Grown again only for a port
/// with a larger MTU on the same worker.
#[inline(always)]
pub(super) fn reserve(scratch: &mut Vec<u8>, max_segments: usize, mtu: usize) {
    if max_segments > 1 && scratch.len() < BURST / 2 * mtu {
        scratch.resize(BURST / 2 * mtu, 0);
    }
}

/// A datagram that begins in frame `first`, with the room of the next chain, which is cut off the scratch memory. `limits` are the
/// most bytes of a payload to send over IPv6 and IPv4.
pub(super) fn view<'b>(
    scratch: &mut &'b mut [u8],
    first: &'b Frame,
    note: &'b Opened,
    limits: [usize; 2],
) -> Datagram<'b> {
    let limit = limits[usize::from(note.is_ipv4())].max(note.len as usize);
    let all = std::mem::take(scratch);
    let end = limit.min(all.len());
    let (room, rest) = all.split_at_mut(end);
    debug_assert!(note.len as usize <= room.len());
    *scratch = rest;
    Datagram::of_packet(room, &first.bytes()[..note.headers()], note)
}

impl<P: Port + ?Sized> Net<P> {
    /// Parses, linearises and verifies the chain at the start of `frames`, and notes it. Returns how many frames it
    /// has. `used` is how much of the scratch memory earlier chains of the burst have.
    #[cold]
    pub(super) fn open_chain(
        &mut self,
        frames: &[Frame],
        index: usize,
        scratch: &mut [u8],
        used: &mut usize,
        opened: &mut ArrayVec<Opened, BURST>,
    ) -> (Result<(), DropReason>, usize) {
        let (result, segments) = match frames.iter().position(|frame| !frame.has(flag::MORE)) {
            Some(last) => (self.open_segments(&frames[..=last], index, scratch, used), last + 1),
            // A port that breaks its promise of whole chains.
            None => (Err(DropReason::Truncated), frames.len()),
        };
        let result = result.map(|note| {
            self.stats.received_bytes += u64::from(note.len);
            opened.push(note);
        });
        (result, segments)
    }

    fn open_segments(
        &self,
        chain: &[Frame],
        index: usize,
        scratch: &mut [u8],
        used: &mut usize,
    ) -> Result<Opened, DropReason> {
        if chain.len() > self.max_segments {
            return Err(DropReason::ChainTooLong);
        }
        let first = &chain[0];
        let verified = chain.iter().all(|f| f.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL));
        let arrival = Arrival { queue: first.queue(), verify: !verified, ..self.arrival };
        let total = chain.iter().map(Frame::len).sum();
        let parsed = parse::headers(first.bytes(), total, &arrival)?;

        let limit = self.payload_limit(parsed.path.is_ipv4()).max(parsed.len as usize);
        let start = *used;
        // Only a packet longer than our own MTU can find too little here.
        let room = scratch.get_mut(start..start + limit).ok_or(DropReason::ChainTooLong)?;
        let payload = &mut room[..parsed.len as usize];
        let mut left = &mut payload[..];
        let mut skip = parsed.payload();
        for frame in chain {
            let bytes = &frame.bytes()[skip..];
            skip = 0;
            let len = bytes.len().min(left.len());
            let (part, after) = left.split_at_mut(len);
            part.copy_from_slice(&bytes[..len]);
            left = after;
        }
        if !verified {
            parsed.verify(payload)?;
        }
        *used = start + limit;
        Ok(parsed.note(index, chain.len(), start))
    }

    /// Turns a chain around, and says which of its frames the answer takes: a bit each, from the lowest.
    #[cold]
    pub(super) fn answer_chain(
        &mut self,
        chain: &mut [Frame],
        note: &Opened,
        scratch: &[u8],
        len: usize,
        unchanged: bool,
    ) -> Result<u64, DropReason> {
        let head = note.headers();
        let room: usize = chain.iter().map(|frame| frame.len() + frame.tailroom()).sum();
        let path = || Path::of_packet(&chain[0].bytes()[..head], note);
        if !self.fits(note.is_ipv4(), len, path) || head + len > room {
            return Err(DropReason::AnswerTooLong);
        }
        let answer = &scratch[note.payload as usize..][..len];
        let checksum = match self.keeps_checksum(&chain[0], note, unchanged) {
            true => Checksum::Kept,
            false if self.tx_checksum => Checksum::Partial,
            false => Checksum::Computed(Some(answer)),
        };
        let gap = reply::turn(&mut chain[0], note, len, checksum);
        let flags = chain[0].flags();

        let (mut used, mut left) = (0u64, len);
        for (n, frame) in chain.iter_mut().enumerate() {
            let skip = if n == 0 { head - gap } else { 0 };
            // An unchanged answer keeps the frames as they came, any other fills each to its end.
            let here = match unchanged {
                true => frame.len() - skip,
                false => frame.len() + frame.tailroom() - skip,
            };
            let here = here.min(left);
            if n > 0 && here == 0 {
                continue;
            }
            if !unchanged {
                frame.room_mut()[skip..skip + here].copy_from_slice(&answer[len - left..][..here]);
            }
            let fits = frame.set_len(skip + here);
            debug_assert!(fits, "`here` lies within the room");
            left -= here;
            // What the device is asked to do stands with the first.
            let asked = if n == 0 { flags } else { flags & !flag::CHECKSUM_PARTIAL };
            frame.set_flags(if left > 0 { asked | flag::MORE } else { asked });
            used |= 1 << n;
        }
        Ok(used)
    }
}
