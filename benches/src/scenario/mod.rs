//! The scenarios: each measures one thing, in interleaved rounds, and leaves JSON and a table.

pub mod echo;
pub mod latency;
pub mod steer_cost;
