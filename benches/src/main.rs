//! `volley-bench`: scenarios and peers, interleaved rounds, medians with intervals, JSON and tables.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`process`] | children that are pinned, logged, and never left behind |
//! | [`lab`] | the veth pair everything runs over |
//! | [`server`], [`generator`] | what is measured, and what measures it |
//! | [`dpdk`], [`testpmd`], [`rust_peer`] | the same over shared memory, and the peers |
//! | [`rounds`], [`stats`] | interleaving; medians and their intervals |
//! | [`scenario`] | what `make bench` runs |
//! | [`demo`] | what `make demo` runs |
//!
//! It drives `volley` and its peers as processes, through network namespaces: Linux only.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod demo;
#[cfg(target_os = "linux")]
mod dpdk;
#[cfg(target_os = "linux")]
mod generator;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod rust_peer;
#[cfg(target_os = "linux")]
mod scenario;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod setup;
#[cfg(target_os = "linux")]
mod stats;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod testpmd;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("volley-bench: AF_XDP and network namespaces are Linux's: run this there");
    std::process::exit(1);
}
