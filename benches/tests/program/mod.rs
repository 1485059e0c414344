//! The programs that the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The `volley` command of this build: another package's binary, which cargo builds here when it is not there yet.
pub fn volley() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_volley-bench")).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "-p", "volley", "--bin", "volley"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // The same features as the rest of this build, whose binary it is.
    if cfg!(feature = "dpdk") {
        build.args(["--features", "dpdk"]);
    }
    if beside.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    beside.join("volley")
}
