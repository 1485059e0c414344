//! Telling a worker the difference between what it knows and what is so.

use super::model::View;
use crate::net::neighbours::{Link, Neighbour, Publisher, Update};
use crate::worker::Waker;
use std::sync::Arc;

/// One worker's port, and what it has been told.
pub(super) struct Subscriber {
    interface: u32,
    publisher: Publisher,
    worker: Option<Arc<Waker>>,
    told: View,
    complete: bool,
    up_to_date: bool,
}

impl Subscriber {
    pub(super) fn new(interface: u32, publisher: Publisher, worker: Option<Arc<Waker>>) -> Subscriber {
        Subscriber {
            interface,
            publisher,
            worker,
            told: View::default(),
            complete: false,
            up_to_date: false,
        }
    }

    pub(super) fn interface(&self) -> u32 {
        self.interface
    }

    /// False when something did not fit the ring.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// True when the worker's end is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.publisher.updates.is_abandoned()
    }

    pub(super) fn has_asks(&self) -> bool {
        !self.publisher.asks.is_empty()
    }

    pub(super) fn next_ask(&mut self) -> Option<Neighbour> {
        self.publisher.asks.pop().ok()
    }

    /// Tells what changed, as far as the ring has room; the rest is found again by the next call.
    pub(super) fn publish(&mut self, now: View) {
        self.up_to_date = self.tell(now).is_some();
    }

    /// `None` when the ring is full. What comes is told before what goes, so that a route replaced is never missing.
    fn tell(&mut self, now: View) -> Option<()> {
        if self.told.link != now.link {
            self.push(Update::Link(now.link.unwrap_or(Link::Removed)))?;
            self.told.link = now.link;
            if let (Some(Link::Removed), Some(worker)) = (now.link, &self.worker) {
                worker.notify();
            }
        }
        for address in &now.addresses {
            if !self.told.addresses.contains(address) {
                self.push(Update::Address(*address, true))?;
                self.told.addresses.insert(*address);
            }
        }
        for route in &now.routes {
            if !self.told.routes.contains(route) {
                self.push(Update::Route(*route, true))?;
                self.told.routes.insert(*route);
            }
        }
        for (neighbour, reached) in &now.neighbours {
            if self.told.neighbours.get(neighbour) != Some(reached) {
                self.push(Update::Neighbour(*neighbour, Some(*reached)))?;
                self.told.neighbours.insert(*neighbour, *reached);
            }
        }
        while let Some(address) = self.told.addresses.difference(&now.addresses).next().copied() {
            self.push(Update::Address(address, false))?;
            self.told.addresses.remove(&address);
        }
        while let Some(route) = self.told.routes.difference(&now.routes).next().copied() {
            self.push(Update::Route(route, false))?;
            self.told.routes.remove(&route);
        }
        let gone: Vec<_> =
            self.told.neighbours.keys().filter(|n| !now.neighbours.contains_key(n)).copied().collect();
        for neighbour in gone {
            self.push(Update::Neighbour(neighbour, None))?;
            self.told.neighbours.remove(&neighbour);
        }
        if !self.complete {
            self.push(Update::Complete)?;
            self.complete = true;
        }
        Some(())
    }

    fn push(&mut self, update: Update) -> Option<()> {
        self.publisher.updates.push(update).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Tag;
    use crate::net::neighbours::{Reached, Route, subscription};

    fn view(routes: std::ops::Range<u8>, mac: u8) -> View {
        let route = |n| Route {
            prefix: [n; 16],
            prefix_len: 128,
            metric: 0,
            gateway: None,
            source: None,
            tag: Tag::default(),
        };
        let neighbour = Neighbour { tag: Tag::default(), address: [9; 16] };
        View {
            link: Some(Link::Present { up: true, mac: [2; 6], mtu: 1500 }),
            addresses: [[1; 16]].into(),
            routes: routes.map(route).collect(),
            neighbours: [(neighbour, Reached { mac: [mac; 6], stale: false })].into(),
        }
    }

    #[test]
    fn only_differences_are_told_and_what_does_not_fit_is_told_later() {
        let (subscription, mut publisher) = subscription(Arc::new(Waker::new(|| {})));
        let (producer, mut updates) = rtrb::RingBuffer::new(4);
        publisher.updates = producer;
        let mut subscriber = Subscriber::new(1, publisher, None);
        let mut told = Vec::new();
        for _ in 0..3 {
            subscriber.publish(view(0..5, 7));
            told.extend(std::iter::from_fn(|| updates.pop().ok()));
        }
        assert!(subscriber.is_up_to_date());
        // Link, address, five routes, neighbour, complete: each once.
        assert_eq!(told.len(), 9);
        assert_eq!(told[8], Update::Complete);

        subscriber.publish(view(1..6, 8));
        let told: Vec<_> = std::iter::from_fn(|| updates.pop().ok()).collect();
        assert!(matches!(
            told[..],
            [
                Update::Route(_, true),
                Update::Neighbour(_, Some(Reached { mac: [8, ..], .. })),
                Update::Route(_, false)
            ]
        ));
        drop((subscription, updates));
        assert!(subscriber.is_abandoned());
    }
}
