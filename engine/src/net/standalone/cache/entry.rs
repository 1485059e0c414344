//! An entry of the cache, and the words that are spoken about neighbours.

use crate::net::Tag;
use crate::net::neighbours::Address;
use volley_wire::ethernet::Mac;

/// A neighbour, untagged or in one VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub address: Address,
    pub tag: Tag,
}

/// What kind of message says where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer to a question of ours.
    Solicited,
    /// The same, of somebody who would not replace what is known.
    Confirmation,
    /// Nobody asked.
    Claim,
    /// Nobody asked, and it would not replace what is known.
    Hint,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Everyone,
    At(Mac),
}

/// What is known of a neighbour; the picture is in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Empty,
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
}

/// A slot of the table.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Entry {
    pub address: Address,
    pub mac: Mac,
    pub vlan: u16,
    /// When it was confirmed, in ms (wraps).
    pub since_ms: u32,
    pub state: State,
    /// A gateway: stays, whatever happens.
    pub pinned: bool,
    /// Used since the eviction hand last came by.
    pub used: bool,
}

const _: () = assert!(size_of::<Entry>() == 32, "two entries a cache line");

pub const EMPTY: Entry = Entry {
    address: [0; 16],
    mac: [0; 6],
    vlan: 0,
    since_ms: 0,
    state: State::Empty,
    pinned: false,
    used: false,
};
