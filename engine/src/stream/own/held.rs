//! Segments of the burst under way, where they arrived: what an app reads without a copy.
//!
//! ```text
//!   settle ─► push(frame) … ─► the stack takes note ─► events: the app reads in the frames ─► release: what is unread is copied
//!                join(chain) ─► one copy, since a segment is one slice                         the frames go back to their port
//! ```
//!
//! It holds frames for the length of one turn, and never looks into them.

use crate::frame::{BURST, Burst, Frame};
use arrayvec::ArrayVec;
use volley_tcp::Segments;

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a frame: which, from where, how many bytes.
    Frame(u8, u32, u32),
    /// Put together from several frames: from where, how many bytes.
    Joined(u32, u32),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Held {
    frames: Burst,
    places: ArrayVec<Place, BURST>,
    /// Frames that the places name.
    expected: u8,
    /// Segments that were spread over several frames, put together.
    joined: Vec<u8>,
}

impl Held {
    /// Makes room for the segments of a burst that are spread over several frames; without it there is none.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.joined.reserve(bytes);
    }

    /// Copies the `len` bytes from `at` on out of a chain, as the next segment; false when there is no room.
    pub(crate) fn join(&mut self, chain: &[Frame], at: usize, len: usize) -> bool {
        let start = self.joined.len();
        if start + len > self.joined.capacity() || self.places.is_full() {
            return false;
        }
        let mut skip = at;
        for frame in chain {
            let bytes = frame.bytes();
            let here = bytes.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(bytes.len());
            let left = start + len - self.joined.len();
            self.joined.extend_from_slice(&here[..here.len().min(left)]);
        }
        if self.joined.len() < start + len {
            self.joined.truncate(start);
            return false;
        }
        self.places.push(Place::Joined(start as u32, len as u32));
        true
    }

    /// Takes note of the next segment: `len` bytes from `at` on in the next frame that [`Held::push`] brings.
    pub(crate) fn expect(&mut self, at: usize, len: usize) {
        self.places.push(Place::Frame(self.expected, at as u32, len as u32));
        self.expected += 1;
    }

    /// Takes the frame of the next segment that was expected.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// True when no segment is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Frames held.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The frames, to be freed; the segments are forgotten.
    pub(crate) fn clear(&mut self) -> &mut Burst {
        self.places.clear();
        self.expected = 0;
        self.joined.clear();
        &mut self.frames
    }
}

impl Segments for Held {
    fn segment(&self, at: usize) -> &[u8] {
        let found = self.places.get(at).and_then(|place| match *place {
            Place::Frame(frame, at, len) => {
                self.frames.get(usize::from(frame))?.bytes().get(at as usize..(at + len) as usize)
            }
            Place::Joined(at, len) => self.joined.get(at as usize..(at + len) as usize),
        });
        found.unwrap_or(&[])
    }
}
