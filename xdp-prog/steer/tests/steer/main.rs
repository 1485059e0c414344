//! `steer` on the host: every fixture, and what must hold for every packet.

mod each_fixture;
#[path = "../../../fixtures/mod.rs"]
mod fixtures;
mod properties;
