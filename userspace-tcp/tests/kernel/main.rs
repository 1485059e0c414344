//! The stack against the Linux kernel's TCP, over a TUN device in a network namespace of the test's own. Privileged.
#![cfg(target_os = "linux")]

mod forge;
mod fuzz;
mod game;
mod ip;
mod wire;
