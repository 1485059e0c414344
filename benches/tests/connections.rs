//! `volley-bench connections`, as many of them as a test can wait for. Over the loopback; no privilege.
#![cfg(target_os = "linux")]

mod program;

use program::volley;
use std::process::{Command, Output};

fn bench(limit: &str, arguments: &str, out: &std::path::Path) -> Output {
    let free = volley_testlab::free_port();
    let program = env!("CARGO_BIN_EXE_volley-bench");
    let script = format!(
        "{limit} exec {program} connections --port {free} {arguments} --volley \"$0\" --out \"$1\""
    );
    Command::new("sh").args(["-c", &script]).arg(volley()).arg(out).output().unwrap()
}

#[test]
fn two_thousand_connections_over_two_servers_and_two_clients_are_echoed() {
    let out = tempfile::tempdir().unwrap();
    let output = bench("", "--connections 2000 --servers 2 --clients 2", out.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = std::fs::read(out.path().join("connections.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let models = report["models"].as_array().unwrap();
    assert_eq!(
        models.iter().map(|row| row["io"].as_str().unwrap()).collect::<Vec<_>>(),
        ["epoll", "io-uring"]
    );
    for row in models {
        let count = |what: &str| row[what].as_u64().unwrap();
        assert_eq!((count("connections"), count("echoed"), count("refused")), (2000, 2000, 0), "{row}");
        assert!(row["servers"]["descriptors"].as_u64().unwrap() >= 2000, "{row}");
        assert!(row["kernel_slab_bytes"].as_f64().is_some(), "{row}");
    }
}

#[test]
fn too_few_descriptors_or_processes_are_named_before_anything_starts() {
    let out = tempfile::tempdir().unwrap();
    let output = bench("ulimit -n 1000;", "--connections 2000 --servers 2", out.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("RLIMIT_NOFILE is 1000"), "{said}");
    assert!(said.contains("at least --servers 3"), "{said}");
    assert!(!out.path().join("connections.json").exists());
}
