//! The scenarios: each measures one thing, in interleaved rounds, and leaves JSON and a table.

pub mod connections;
pub mod dpdk;
pub mod echo;
pub mod latency;
pub mod matrix;
pub mod steer_cost;
pub mod syn_flood;
pub mod tcp;
pub mod tcp_memory;
