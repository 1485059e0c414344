//! The engine end to end, as `volley run` over a veth pair: what it answers, and every fault that must have a clear outcome.
//!
//! Privileged: each test makes a lab of its own (two network namespaces and a veth pair), so they need root. Those over kernel
//! sockets alone (`models`) do not.
#![cfg(target_os = "linux")]

mod app;
mod bad_input;
mod checksum;
mod demotion;
mod interface;
mod models;
mod overload;
mod panic;
mod peer;
mod process;
mod queues;
mod running;
mod start;
