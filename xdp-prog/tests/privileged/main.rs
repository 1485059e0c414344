//! The loader on real interfaces: each test in network namespaces of its own. They need root.
#![cfg(target_os = "linux")]

mod attach;
mod foreign;
mod pins;
mod rules;
mod stage;
