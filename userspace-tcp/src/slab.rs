//! The slab: every connection's two halves, by slot; free slots are linked, and each use of one has its own generation.

use crate::buffer::NIL;
use crate::config::ConnectionOptions;
use crate::tcb::{Cold, ConnectionId, Hot, f};

/// All connections.
pub(crate) struct Slab {
    pub hot: Vec<Hot>,
    pub cold: Vec<Cold>,
    free: u32,
    used: u32,
    max: u32,
}

impl Slab {
    pub(crate) fn new(max: u32) -> Slab {
        Slab {
            hot: Vec::with_capacity(max as usize),
            cold: Vec::with_capacity(max as usize),
            free: NIL,
            used: 0,
            max,
        }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == self.max
    }

    /// Takes a slot; its generation is new.
    pub(crate) fn take(&mut self, options: &ConnectionOptions) -> Option<u32> {
        let slot = if self.free != NIL {
            let slot = self.free;
            self.free = self.hot[slot as usize].timer_at;
            self.cold[slot as usize] = Cold::new(options);
            slot
        } else if self.hot.len() < self.max as usize {
            self.hot.push(Hot::FREE);
            self.cold.push(Cold::new(options));
            self.hot.len() as u32 - 1
        } else {
            return None;
        };
        let hot = &mut self.hot[slot as usize];
        let generation = hot.generation.wrapping_add(1);
        *hot = Hot { generation, flags: f::USED, ..Hot::FREE };
        hot.put(f::NO_DELAY, options.no_delay);
        self.used += 1;
        Some(slot)
    }

    /// Gives a slot back. The generation stays, and is counted on when the slot is taken again.
    pub(crate) fn give(&mut self, slot: u32) {
        let hot = &mut self.hot[slot as usize];
        *hot = Hot { generation: hot.generation, timer_at: self.free, ..Hot::FREE };
        self.free = slot;
        self.used -= 1;
    }

    pub(crate) fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.hot[slot as usize].generation }
    }

    /// The slot of a name that is still good.
    #[inline]
    pub(crate) fn slot(&self, id: ConnectionId) -> Option<u32> {
        let hot = self.hot.get(id.slot as usize)?;
        (hot.generation == id.generation && hot.has(f::USED)).then_some(id.slot)
    }

    /// Bytes of one connection, and of all there is room for.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let each = size_of::<Hot>() + size_of::<Cold>();
        (each, each * self.max as usize)
    }
}
