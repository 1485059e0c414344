//! Pooled connection slots with generations, and the events of each, coalesced.
//!
//! All memory is there from the start: opening and closing a connection moves an index. A slot with events stands once in the
//! queue, however many there are, so the queue is never longer than the table.

use super::{CloseReason, StreamError, StreamEvent, StreamId};
use std::collections::VecDeque;

const OPENED: u8 = 1;
const READABLE: u8 = 2;
const WRITABLE: u8 = 4;
const PEER_CLOSED: u8 = 8;
const CLOSED: u8 = 16;

struct Slot<T> {
    generation: u32,
    events: u8,
    queued: bool,
    reason: CloseReason,
    value: Option<T>,
}

/// A table of at most so many connections, each with a `T`.
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    events: VecDeque<u32>,
    /// `Closed` was told of this one: it is freed before the next event, so that its last bytes can be read in the callback.
    leaving: Option<u32>,
}

impl<T> Slots<T> {
    /// Room for `most` connections.
    pub fn new(most: u32) -> Slots<T> {
        let slot =
            || Slot { generation: 0, events: 0, queued: false, reason: CloseReason::Failed, value: None };
        Slots {
            slots: (0..most).map(|_| slot()).collect(),
            // Low numbers first.
            free: (0..most).rev().collect(),
            events: VecDeque::with_capacity(most as usize),
            leaving: None,
        }
    }

    /// Connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when no further connection fits.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`StreamError::Full`].
    pub fn insert(&mut self, value: T) -> Result<StreamId, StreamError> {
        let slot = self.free.pop().ok_or(StreamError::Full)?;
        let place = &mut self.slots[slot as usize];
        place.value = Some(value);
        Ok(StreamId { slot, generation: place.generation })
    }

    /// The connection of that name.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    pub fn get(&self, id: StreamId) -> Result<&T, StreamError> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot.and_then(|slot| slot.value.as_ref()).ok_or(StreamError::Stale)
    }

    /// The connection of that name.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    pub fn get_mut(&mut self, id: StreamId) -> Result<&mut T, StreamError> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot.and_then(|slot| slot.value.as_mut()).ok_or(StreamError::Stale)
    }

    /// The name of the connection that is in `slot` now.
    pub fn current(&self, slot: u32) -> Option<StreamId> {
        let place = self.slots.get(slot as usize).filter(|place| place.value.is_some())?;
        Some(StreamId { slot, generation: place.generation })
    }

    /// The names of all connections.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> + '_ {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        used.map(|(slot, place)| StreamId { slot: slot as u32, generation: place.generation })
    }

    /// Notes an event. After `Closed` nothing is noted any more; before it, everything that was not told yet is told first.
    pub fn raise(&mut self, id: StreamId, event: StreamEvent) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else { return };
        if slot.generation != id.generation || slot.value.is_none() || slot.events & CLOSED != 0 {
            return;
        }
        slot.events |= match event {
            StreamEvent::Opened => OPENED,
            StreamEvent::Readable => READABLE,
            StreamEvent::Writable => WRITABLE,
            StreamEvent::PeerClosed => PEER_CLOSED,
            StreamEvent::Closed(reason) => {
                slot.reason = reason;
                CLOSED
            }
        };
        if !std::mem::replace(&mut slot.queued, true) {
            self.events.push_back(id.slot);
        }
    }

    /// Forgets what was noted but for `Opened`: the app has closed it and hears only `Closed`.
    pub fn hush(&mut self, id: StreamId) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize)
            && slot.generation == id.generation
        {
            slot.events &= OPENED | CLOSED;
        }
    }

    /// True when an event waits.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event. A connection of which `Closed` is told is there for the callback; the next call of this takes it out, and
    /// `gone` gets what it was.
    pub fn next_event(&mut self, gone: impl FnOnce(StreamId, T)) -> Option<(StreamId, StreamEvent)> {
        if let Some((id, value)) = self.take_leaving() {
            gone(id, value);
        }
        loop {
            let index = *self.events.front()?;
            let slot = &mut self.slots[index as usize];
            let (taken, event) = match slot.events {
                events if events & OPENED != 0 => (OPENED, StreamEvent::Opened),
                events if events & READABLE != 0 => (READABLE, StreamEvent::Readable),
                events if events & WRITABLE != 0 => (WRITABLE, StreamEvent::Writable),
                events if events & PEER_CLOSED != 0 => (PEER_CLOSED, StreamEvent::PeerClosed),
                events if events & CLOSED != 0 => (CLOSED, StreamEvent::Closed(slot.reason)),
                _ => {
                    slot.queued = false;
                    self.events.pop_front();
                    continue;
                }
            };
            if taken == CLOSED {
                // Stays set, so that nothing is noted in the callback.
                slot.queued = false;
                self.events.pop_front();
                self.leaving = Some(index);
            } else {
                slot.events &= !taken;
                if slot.events == 0 {
                    slot.queued = false;
                    self.events.pop_front();
                }
            }
            return Some((StreamId { slot: index, generation: slot.generation }, event));
        }
    }

    fn take_leaving(&mut self) -> Option<(StreamId, T)> {
        let index = self.leaving.take()?;
        let slot = &mut self.slots[index as usize];
        let id = StreamId { slot: index, generation: slot.generation };
        slot.generation = slot.generation.wrapping_add(1);
        slot.events = 0;
        self.free.push(index);
        slot.value.take().map(|value| (id, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(slots: &mut Slots<&'static str>) -> Vec<(u32, StreamEvent)> {
        let mut told = Vec::new();
        while let Some((id, event)) = slots.next_event(|_, _| ()) {
            told.push((id.slot, event));
        }
        told
    }

    #[test]
    fn events_of_a_burst_are_one_edge_each_in_their_order_of_life() {
        let mut slots = Slots::new(4);
        let (a, b) = (slots.insert("a").unwrap(), slots.insert("b").unwrap());
        for _ in 0..3 {
            slots.raise(a, StreamEvent::Readable);
            slots.raise(b, StreamEvent::PeerClosed);
            slots.raise(b, StreamEvent::Readable);
        }
        slots.raise(a, StreamEvent::Opened);
        use StreamEvent::*;
        assert_eq!(events(&mut slots), [(0, Opened), (0, Readable), (1, Readable), (1, PeerClosed)]);
        assert!(!slots.has_events() && slots.len() == 2);
    }

    #[test]
    fn closed_is_the_last_and_told_once_and_the_name_is_stale_afterwards() {
        let mut slots = Slots::new(1);
        let a = slots.insert("a").unwrap();
        assert_eq!(slots.insert("b"), Err(StreamError::Full));
        slots.raise(a, StreamEvent::Opened);
        slots.raise(a, StreamEvent::Readable);
        slots.raise(a, StreamEvent::Closed(CloseReason::Reset));
        slots.raise(a, StreamEvent::Closed(CloseReason::Finished));
        slots.hush(a);
        assert_eq!(slots.next_event(|_, _| ()), Some((a, StreamEvent::Opened)));
        assert_eq!(slots.next_event(|_, _| ()), Some((a, StreamEvent::Closed(CloseReason::Reset))));
        assert_eq!(slots.get(a), Ok(&"a"), "there for the callback");
        slots.raise(a, StreamEvent::Readable);
        let mut gone = None;
        assert_eq!(slots.next_event(|_, value| gone = Some(value)), None);
        assert_eq!((gone, slots.get(a)), (Some("a"), Err(StreamError::Stale)));
        let b = slots.insert("b").unwrap();
        assert!(b.slot == a.slot && b.generation != a.generation);
        slots.raise(a, StreamEvent::Readable);
        assert_eq!(events(&mut slots), []);
        assert_eq!(slots.ids().collect::<Vec<_>>(), [b]);
    }
}
