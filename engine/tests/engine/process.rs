//! How the process ends, and what it leaves behind.

use crate::peer::{FAMILIES, PORT, assert_answers, assert_kernel_has_the_rest, socket};
use crate::running::{Running, VOLLEY};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};
use volley_testlab::{Lab, require_root};

fn volley(arguments: &[&str]) -> String {
    let output = Command::new(VOLLEY).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names under /run/volley.
fn leftovers() -> Vec<String> {
    let entries = std::fs::read_dir("/run/volley").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A kernel socket gets the game port, and gets the game's packets.
#[track_caller]
fn assert_kernel_has_the_port(lab: &Lab) {
    for family in FAMILIES {
        let server =
            lab.engine().run(|| UdpSocket::bind((family.0, PORT)).expect("the port is free at once"));
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let client = socket(lab, family, PORT);
        let until = Instant::now() + Duration::from_secs(5);
        // The first packet may wait for a neighbour.
        loop {
            let _ = client.send(b"to the kernel");
            if server.recv_from(&mut [0; 32]).is_ok() {
                break;
            }
            assert!(Instant::now() < until, "{}: the kernel does not get the game's packets", family.0);
        }
    }
}

#[test]
fn a_signal_drains_reports_and_leaves_nothing() {
    if !require_root() {
        return;
    }
    for signal in [nix::libc::SIGINT, nix::libc::SIGTERM] {
        let lab = Lab::new(1);
        let engine = Running::start(&lab, &[]);
        assert_answers(&lab);
        assert_kernel_has_the_rest(&lab);
        let pid = engine.pid();
        engine.signal(signal);
        let ended = engine.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        ended.assert_balanced();
        assert_eq!(ended.total("answered"), ended.total("received"));
        assert_eq!(ended.report["workers"][0]["state"], "drained");
        assert_kernel_has_the_port(&lab);
        let link = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
        assert!(!link.contains("xdp"), "{link}");
        assert!(!leftovers().iter().any(|name| name.contains(&format!(".{pid}."))), "{:?}", leftovers());
    }
}

#[test]
fn a_killed_engine_leaves_the_interface_to_the_kernel_and_a_second_starts_at_once() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    for _ in 0..2 {
        let engine = Running::start(&lab, &["--require", "xdp"]);
        assert_answers(&lab);
        engine.signal(nix::libc::SIGKILL);
        assert_eq!(engine.ended().code, None);
        assert_kernel_has_the_port(&lab);
    }
    let engine = Running::start(&lab, &["--require", "xdp"]);
    assert_answers(&lab);
    assert_kernel_has_the_rest(&lab);
    engine.stop();
}

#[test]
fn with_a_pinned_program_too() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let at = [lab.engine_if(), "--netns", lab.engine_ns()];
    volley(&[&["load"], &at[..]].concat());
    let status = volley(&[&["status"], &at[..]].concat());
    assert!(status.contains("pinned at") && status.contains("volley_steer"), "{status}");
    // Without rules everything is the kernel's.
    assert_kernel_has_the_port(&lab);
    for _ in 0..2 {
        let engine = Running::start(&lab, &["--require", "xdp"]);
        assert_answers(&lab);
        engine.signal(nix::libc::SIGKILL);
        assert_eq!(engine.ended().code, None);
        // Its rules are still there, its sockets are not: without a socket the packets pass.
        assert_kernel_has_the_port(&lab);
    }
    let engine = Running::start(&lab, &["--require", "xdp"]);
    assert_answers(&lab);
    let ended = engine.stop();
    assert_eq!(ended.report["xdp"]["pinned"], true);
    assert_kernel_has_the_port(&lab);
    volley(&[&["unload"], &at[..]].concat());
    let link = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
    assert!(!link.contains("xdp"), "{link}");
}

#[test]
fn status_shows_a_running_engine_and_not_a_dead_one() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = Running::start(&lab, &[]);
    assert_answers(&lab);
    let arguments = ["status", lab.engine_if(), "--netns", lab.engine_ns()];
    let text = volley(&arguments);
    for part in ["af_xdp", "redirect", "ledger balances", lab.engine_if()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = volley(&[&arguments[..], &["--json"]].concat());
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let one = &status["engines"][0];
    assert_eq!(
        (one["pid"].as_u64(), &one["running"]),
        (Some(engine.pid().into()), &true.into()),
        "{one:#}"
    );
    assert!(one["xdp"]["counters"]["redirected"].as_u64().unwrap() >= 4, "{one:#}");
    engine.signal(nix::libc::SIGKILL);
    let pid = engine.pid();
    engine.ended();
    let output = Command::new(VOLLEY).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("and no engine"), "{said}");
    assert!(!leftovers().iter().any(|name| name.contains(&format!(".{pid}."))), "status tidies up");
}

#[test]
fn a_duration_ends_the_engine_by_itself() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = Running::start(&lab, &["--duration", "0.2"]);
    let ended = engine.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    ended.assert_balanced();
}
