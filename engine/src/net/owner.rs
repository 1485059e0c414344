//! One owner per client: segments that arrive on another worker's queue are copied to the worker that owns their client.
//!
//! The owner is the NIC's own hash (Toeplitz) over the two addresses, through the table the NIC has, computed in software on every
//! worker alike. Where the NIC spreads by the same function nothing is ever copied; where it hashes ports too, or not at all, a
//! client's connections are still on one worker.
//!
//! ```text
//!   worker 1's queue ─► not mine: copied, with path ─► SPSC ring ─► worker 0's stack ─► answers leave by worker 0's queue
//!                       └─► the frame is freed by worker 1
//! ```

use super::Path;
use crate::app::WorkerId;
use crate::worker::{Mailboxes, Waker};
use std::sync::{Arc, Mutex};
use volley_wire::rss::{Owners, SYMMETRIC_KEY};

/// Bytes of the longest segment that is handed over: an Ethernet's worth.
const SEGMENT: usize = 1500;

/// Segments that fit between two workers. A burst of each is 64; a worker that is this far behind loses packets anyway.
const RING: usize = 256;

/// Entries of the indirection table, as most NICs have.
const TABLE: usize = 128;

/// A segment on its way to another worker.
pub(super) struct Handed {
    /// Where it came from, the link layer included.
    pub path: Path,
    pub ecn: u8,
    pub verified: bool,
    len: u16,
    bytes: [u8; SEGMENT],
}

impl Handed {
    /// The segment.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

type Boxes = Mailboxes<Handed>;

/// One worker's ends of the rings, kept here while the worker has no port: at the start, and after a panic.
#[derive(Clone)]
pub struct HandOverPlace {
    me: WorkerId,
    table: Arc<[u16]>,
    boxes: Arc<Mutex<Option<Boxes>>>,
}

impl HandOverPlace {
    /// A place for each worker; `queues` are the queues of each, and `wakers` end their sleep. None for one worker alone.
    pub fn all(queues: &[Vec<u16>], wakers: &[Arc<Waker>]) -> Vec<Option<HandOverPlace>> {
        if wakers.len() < 2 {
            return wakers.iter().map(|_| None).collect();
        }
        let mut served: Vec<(u16, u16)> = Vec::new();
        for (worker, queues) in queues.iter().enumerate() {
            served.extend(queues.iter().map(|queue| (*queue, worker as u16)));
        }
        served.sort_unstable();
        // Entries are dealt to the queues in turn, which is what drivers do by themselves.
        let table: Arc<[u16]> =
            (0..TABLE).filter_map(|entry| served.get(entry % served.len().max(1))).map(|s| s.1).collect();
        let places = Boxes::mesh(wakers, RING).into_iter().enumerate().map(|(me, boxes)| {
            let boxes = Arc::new(Mutex::new(Some(boxes)));
            Some(HandOverPlace { me: WorkerId(me as u16), table: Arc::clone(&table), boxes })
        });
        places.collect()
    }

    /// Takes the ends, for a port that is being opened; they come back when it is dropped.
    pub(super) fn take(&self) -> Option<HandOver> {
        let boxes = self.boxes.lock().ok()?.take()?;
        Some(HandOver { boxes: Some(boxes), place: self.clone() })
    }
}

impl std::fmt::Debug for HandOverPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HandOverPlace({})", self.me.0)
    }
}

/// One worker's ends of the rings, in use.
pub(super) struct HandOver {
    boxes: Option<Boxes>,
    place: HandOverPlace,
}

impl HandOver {
    /// The worker that owns the peer of `path`; `None` when it is this one.
    pub fn owner(&self, path: &Path) -> Option<WorkerId> {
        let owners = Owners { key: &SYMMETRIC_KEY, table: &self.place.table };
        let four = |address: &[u8; 16]| [address[12], address[13], address[14], address[15]];
        let owner = match path.is_ipv4() {
            true => owners.of_ipv4(four(&path.peer), four(&path.local)),
            false => owners.of_ipv6(path.peer, path.local),
        };
        owner.map(WorkerId).filter(|owner| *owner != self.place.me)
    }

    /// Copies a segment to worker `to`; false when there is no room, or it is too long.
    pub fn give(&mut self, to: WorkerId, path: &Path, ecn: u8, verified: bool, segment: &[u8]) -> bool {
        let Some(boxes) = self.boxes.as_mut().filter(|_| segment.len() <= SEGMENT) else { return false };
        let mut handed =
            Handed { path: *path, ecn, verified, len: segment.len() as u16, bytes: [0; SEGMENT] };
        handed.bytes[..segment.len()].copy_from_slice(segment);
        boxes.post(to, handed).is_ok()
    }

    /// The next segment from another worker.
    pub fn take(&mut self) -> Option<Handed> {
        self.boxes.as_mut()?.take()
    }

    /// True when one waits.
    pub fn has_waiting(&self) -> bool {
        self.boxes.as_ref().is_some_and(|boxes| !boxes.is_empty())
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        if let Ok(mut place) = self.place.boxes.lock() {
            *place = self.boxes.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_agree_on_the_owner_and_segments_reach_it() {
        let wakers: Vec<_> = (0..3).map(|_| Arc::new(Waker::new(|| ()))).collect();
        let places = HandOverPlace::all(&[vec![0, 3], vec![1, 4], vec![2]], &wakers);
        let mut ends: Vec<_> = places.iter().map(|p| p.as_ref().unwrap().take().unwrap()).collect();
        assert!(places[0].as_ref().unwrap().take().is_none(), "one port at a time");
        let mut owned = [0; 3];
        for last in 1..=200u8 {
            let peer = std::net::SocketAddr::from(([10, 0, 0, last], 5000 + u16::from(last)));
            let path = Path::to(0, "10.0.1.1:7777".parse().unwrap(), peer).unwrap();
            let answers: Vec<_> = ends.iter().map(|end| end.owner(&path)).collect();
            let owner = answers.iter().position(Option::is_none).unwrap();
            let others = answers.iter().flatten().all(|other| usize::from(other.0) == owner);
            assert!(others && answers.iter().flatten().count() == 2, "{answers:?}");
            owned[owner] += 1;
            let from = (owner + 1) % 3;
            assert!(ends[from].give(WorkerId(owner as u16), &path, 2, true, &[last; 40]));
            assert!(ends[owner].has_waiting());
            let handed = ends[owner].take().unwrap();
            assert_eq!((handed.bytes(), handed.path, handed.ecn), (&[last; 40][..], path, 2));
        }
        assert!(owned.iter().all(|count| *count > 20), "{owned:?}");
        let path = Path::to(0, "10.0.1.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()).unwrap();
        assert!(!ends[0].give(WorkerId(1), &path, 0, true, &[0; SEGMENT + 1]));
        let fit = (0..RING + 10).filter(|_| ends[0].give(WorkerId(1), &path, 0, true, &[7])).count();
        assert_eq!(fit, RING);
        ends.remove(0);
        assert!(places[0].as_ref().unwrap().take().is_some(), "back in its place");
    }

    #[test]
    fn one_worker_owns_everything() {
        assert!(HandOverPlace::all(&[vec![0, 1]], &[Arc::new(Waker::new(|| ()))])[0].is_none());
    }
}
