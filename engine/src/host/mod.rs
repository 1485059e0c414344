//! The machine around us: what its devices can do. Linux only; it asks and never changes anything.

pub mod link;
pub mod netdev;
