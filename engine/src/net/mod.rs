//! The net layer: Ethernet, VLAN, IP and UDP in and out.

mod path;

pub use path::{Path, Tag};
