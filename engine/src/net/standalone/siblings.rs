//! Other queues of the same device. A device gives an answer to one of its queues, not to the one that asked: ARP has no addresses that it
//! hashes, and a neighbour's advertisement hashes as it likes. An error about a packet comes from a router, and hashes by that one's
//! address. So what neighbours and routers say is told to every sibling.
//!
//! ```text
//!   worker 0: heard "10.0.0.9 is at …" ──► own cache
//!                                      └─► SPSC ring ──► worker 1, before its next burst ──► its cache
//! ```
//!
//! Each pair has a ring of its own, bounded: what finds no room is lost and counted, and the neighbour is asked again a second later; the
//! next packet that is too big brings the router's answer again.

use super::cache::{Answer, Key};
use crate::net::Path;
use crate::net::neighbours::Address;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::{Arc, Mutex, PoisonError};
use volley_wire::ethernet::Mac;

/// Messages that fit between two queues. A link with this many neighbours that all answer within one turn of a worker is a flood.
const RING: usize = 256;

/// What somebody on the link, or a router, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A neighbour: where it is.
    Neighbour { key: Key, mac: Mac, answer: Answer },
    /// A router: a packet of `len` bytes over `path` was too big for a link of `mtu`. The teller has not sent it: the others look whether
    /// they have.
    TooBig { path: Path, len: usize, mtu: u32 },
    /// The same, believed by the one who sent the packet: packets to `peer` may have `mtu` bytes.
    PathMtu { peer: Address, mtu: u32 },
}

#[derive(Default)]
struct Ends {
    to: Vec<Producer<News>>,
    from: Vec<Consumer<News>>,
}

/// One queue's place among its siblings. It outlives the port that sits there: a worker that is started anew sits down again.
#[derive(Clone)]
pub struct Place(Arc<Mutex<Option<Ends>>>);

/// A port's ends of the rings, until it is dropped.
pub struct Siblings {
    ends: Ends,
    place: Place,
}

impl Place {
    /// Places for `queues` queues, each pair of them joined.
    pub fn mesh(queues: usize) -> Vec<Place> {
        let mut all: Vec<Ends> = (0..queues).map(|_| Ends::default()).collect();
        for from in 0..queues {
            for to in (0..queues).filter(|to| *to != from) {
                let (producer, consumer) = RingBuffer::new(RING);
                all[from].to.push(producer);
                all[to].from.push(consumer);
            }
        }
        all.into_iter().map(|ends| Place(Arc::new(Mutex::new(Some(ends))))).collect()
    }

    /// Takes the place; `None` while somebody has it.
    pub fn take(&self) -> Option<Siblings> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Siblings { ends, place: self.clone() })
    }
}

impl Siblings {
    /// Tells everybody. Says how many had no room.
    pub(super) fn tell(&mut self, news: News) -> u64 {
        self.ends.to.iter_mut().map(|ring| u64::from(ring.push(news).is_err())).sum()
    }

    /// The next that somebody told. What is told meanwhile is left for the next turn, for as long as a ring's length lasts.
    pub(super) fn hear(&mut self) -> Option<News> {
        self.ends.from.iter_mut().find_map(|ring| ring.pop().ok())
    }
}

impl Drop for Siblings {
    fn drop(&mut self) {
        *self.place.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::mem::take(&mut self.ends));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Tag;

    #[test]
    fn everybody_hears_once_and_a_place_is_taken_by_one() {
        let places = Place::mesh(3);
        let [mut a, mut b, mut c] = [0, 1, 2].map(|n| places[n].take().unwrap());
        assert!(places[0].take().is_none(), "somebody sits there");
        let key = Key { address: [7; 16], tag: Tag::default() };
        let news = News::Neighbour { key, mac: [2; 6], answer: Answer::Solicited };
        assert_eq!(a.tell(news), 0);
        for sibling in [&mut b, &mut c] {
            assert_eq!(sibling.hear(), Some(news));
            assert!(sibling.hear().is_none());
        }
        assert!(a.hear().is_none(), "nobody tells himself");
        let lost: u64 = (0..RING + 5).map(|_| a.tell(news)).sum();
        assert_eq!(lost, 10, "five to each of two");
        drop(a);
        assert!(places[0].take().is_some(), "a successor sits down");
    }
}
