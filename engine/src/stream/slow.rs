//! Who reads too slowly: connections that had no room for what was written, and since when.

use super::StreamId;
use std::collections::VecDeque;

/// Watches blocked writes, in order of time. Each connection stands in it once at most.
pub struct SlowReaders {
    limit_ns: u64,
    /// By slot: who is blocked, and since when.
    since: Vec<Option<(u64, StreamId)>>,
    watched: Vec<bool>,
    queue: VecDeque<(u64, StreamId)>,
}

impl SlowReaders {
    /// For `connections` slots; who is blocked for `limit_ns` is too slow.
    pub fn new(connections: u32, limit_ns: u64) -> SlowReaders {
        SlowReaders {
            limit_ns,
            since: vec![None; connections as usize],
            watched: vec![false; connections as usize],
            queue: VecDeque::with_capacity(connections as usize),
        }
    }

    /// A write came back short.
    pub fn blocked(&mut self, id: StreamId, now_ns: u64) {
        let Some(since) = self.since.get_mut(id.slot as usize) else { return };
        since.get_or_insert((now_ns, id));
        if !std::mem::replace(&mut self.watched[id.slot as usize], true) {
            self.queue.push_back((now_ns, id));
        }
    }

    /// There was room again, or the connection has ended.
    pub fn moved(&mut self, id: StreamId) {
        if let Some(since) = self.since.get_mut(id.slot as usize) {
            *since = None;
        }
    }

    /// The next that is too slow. One that made progress in the meantime is looked at again after another limit.
    pub fn due(&mut self, now_ns: u64) -> Option<StreamId> {
        while let Some(&(since, watched)) = self.queue.front() {
            if now_ns < since.saturating_add(self.limit_ns) {
                return None;
            }
            self.queue.pop_front();
            let slot = watched.slot as usize;
            self.watched[slot] = false;
            // By now it may be another connection's slot.
            match self.since[slot] {
                Some((blocked, id)) if blocked <= since => {
                    self.since[slot] = None;
                    return Some(id);
                }
                Some((blocked, id)) => {
                    self.watched[slot] = true;
                    self.queue.push_back((blocked, id));
                }
                None => {}
            }
        }
        None
    }

    /// When to look again.
    pub fn next_deadline(&self) -> Option<u64> {
        self.queue.front().map(|(since, _)| since.saturating_add(self.limit_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_is_spared_and_who_does_not_is_found_once() {
        let mut slow = SlowReaders::new(2, 100);
        let [a, b] = [0, 1].map(|slot| StreamId { slot, generation: 0 });
        slow.blocked(a, 10);
        slow.blocked(a, 20);
        slow.blocked(b, 20);
        assert_eq!((slow.next_deadline(), slow.due(109)), (Some(110), None));
        slow.moved(a);
        slow.blocked(a, 60);
        assert_eq!(slow.due(120), Some(b));
        assert_eq!((slow.due(120), slow.next_deadline()), (None, Some(160)));
        assert_eq!((slow.due(160), slow.due(1000), slow.next_deadline()), (Some(a), None, None));
    }

    #[test]
    fn the_next_connection_of_a_slot_is_watched_for_itself() {
        let mut slow = SlowReaders::new(1, 100);
        let [first, second] = [0, 1].map(|generation| StreamId { slot: 0, generation });
        slow.blocked(first, 10);
        slow.moved(first);
        slow.blocked(second, 50);
        assert_eq!((slow.due(110), slow.due(149)), (None, None));
        assert_eq!((slow.due(150), slow.due(1000)), (Some(second), None));
    }
}
