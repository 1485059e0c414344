//! Listeners: local addresses that take connections, and the connections that wait to be accepted.

use crate::address::{Address, address, is_v4};
use crate::buffer::NIL;
use crate::config::ListenOptions;
use std::net::SocketAddr;

/// Names a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

pub(crate) struct Listener {
    pub local: Address,
    pub port: u16,
    pub open: bool,
    pub generation: u32,
    pub options: ListenOptions,
    /// Connections that wait, first and last.
    pub waiting: (u32, u32),
    pub count: u32,
}

/// All listeners. There are few; only SYNs and segments of no connection look here.
pub(crate) struct Listeners {
    pub all: Vec<Listener>,
}

const ANY: Address = [0; 4];

impl Listeners {
    /// A listener for segments to this address and port: an exact one before a wildcard.
    pub(crate) fn find(&self, local: &Address, port: u16) -> Option<u32> {
        let takes = |l: &Listener| {
            l.open
                && l.port == port
                && (l.local == *local || l.local == ANY || (any_v4(&l.local) && is_v4(local)))
        };
        let best = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, l)| takes(l))
            .max_by_key(|(_, l)| (l.local == *local, l.local != ANY));
        best.map(|(at, _)| at as u32)
    }

    /// Adds a listener, unless there is one for exactly this address and port.
    pub(crate) fn add(&mut self, local: SocketAddr, options: ListenOptions) -> Option<ListenerId> {
        let (bytes, port) = (address(local.ip()), local.port());
        if port == 0 || self.all.iter().any(|l| l.open && l.local == bytes && l.port == port) {
            return None;
        }
        let generation = self.all.iter().map(|l| l.generation).max().unwrap_or(0) + 1;
        let listener =
            Listener { local: bytes, port, open: true, generation, options, waiting: (NIL, NIL), count: 0 };
        let slot = match self.all.iter().position(|l| !l.open) {
            Some(slot) => {
                self.all[slot] = listener;
                slot
            }
            None => {
                self.all.push(listener);
                self.all.len() - 1
            }
        };
        Some(ListenerId { slot: slot as u32, generation })
    }

    pub(crate) fn slot(&self, id: ListenerId) -> Option<u32> {
        let listener = self.all.get(id.slot as usize)?;
        (listener.open && listener.generation == id.generation).then_some(id.slot)
    }

    pub(crate) fn id(&self, slot: u32) -> Option<ListenerId> {
        let listener = self.all.get(slot as usize).filter(|l| l.open)?;
        Some(ListenerId { slot, generation: listener.generation })
    }
}

fn any_v4(local: &Address) -> bool {
    is_v4(local) && local[3] == 0
}
