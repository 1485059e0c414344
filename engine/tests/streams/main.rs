//! Streams end to end: the engine's TCP apps, with kernel sockets, curl, Python and wrk as their clients.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/http.rs"]
mod http;

mod client;
mod faults;
mod flood;
mod generator;
mod kernel;
mod options;
mod own;

#[allow(dead_code, reason = "the engine's own tests use more of it")]
#[path = "../engine/running.rs"]
mod running;
