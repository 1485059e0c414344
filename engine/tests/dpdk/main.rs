//! The port over DPDK, on virtual devices and without huge pages, so that they run on any machine.
//!
//! EAL starts once per process, so each test runs itself again in a process of its own ([`alone`]).
#![cfg(target_os = "linux")]

mod alloc;
#[path = "../../../xdp-prog/fixtures/mod.rs"]
#[allow(dead_code, reason = "the whole table of fixtures; each test crate uses its part")]
mod fixtures;
mod frames;
mod generator;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/http.rs"]
mod http;
mod kernel;
mod peers;
mod process;
mod replay;
mod tcp;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use volley::engine::config::{Dpdk as Options, Memory};
use volley::frame::Burst;
use volley::port::Port;

/// Names the test that a process is to run.
const ALONE: &str = "VOLLEY_DPDK_TEST";

/// Longest a test may take in its process. It takes seconds; a busy machine may need many times as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `body` in a process of its own: in this one, when it is that.
#[track_caller]
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(ALONE).is_ok_and(|asked| asked == name) {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().expect("a test has a path"));
    child.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ALONE, name);
    let mut child = child.stdin(Stdio::null()).spawn().expect("this program can be started again");
    let until = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => {
                assert!(status.success(), "{name}, in a process of its own: {status}");
                return;
            }
            None if Instant::now() > until => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{name} takes longer than {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Virtual devices, ordinary pages, few mbufs.
pub fn options(vdev: &[&str]) -> Options {
    Options {
        vdev: vdev.iter().map(|device| (*device).to_owned()).collect(),
        memory: Memory::NoHuge,
        megabytes: Some(64),
        frames: 1024,
        ..Options::default()
    }
}

/// Receives until `wanted` frames are there, or nothing more comes for a second.
pub fn receive(port: &mut dyn Port, burst: &mut Burst, wanted: usize) {
    let mut until = Instant::now() + Duration::from_secs(1);
    while burst.len() < wanted && Instant::now() < until {
        if port.rx(burst) > 0 {
            until = Instant::now() + Duration::from_secs(1);
        }
        port.flush();
    }
}

/// Asserts that every frame is in one place, and that place is right.
#[track_caller]
pub fn assert_all_free(port: &dyn Port) {
    let ledger = port.ledger();
    assert!(ledger.balances(), "{ledger}");
    assert_eq!((ledger.app, ledger.held, ledger.kernel_tx), (0, 0, 0), "{ledger}");
}
