//! `volley load` and `volley unload` as an administrator types them. Needs root.
#![cfg(target_os = "linux")]

use std::process::Command;

use volley_testlab::{Lab, require_root};

/// Runs `volley` and returns success, standard output and standard error.
fn volley(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_volley")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_program_is_loaded_upgraded_and_unloaded() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (nic, netns) = (lab.engine_if(), lab.engine_ns());
    let shown = || lab.engine().exec(["ip", "link", "show", "dev", nic]).contains("volley_steer");

    let (done, out, err) = volley(&["load", nic, "--netns", netns]);
    assert!(done && out.contains("attached in native mode") && shown(), "{out}{err}");
    let (done, out, err) = volley(&["load", nic, "--netns", netns]);
    assert!(done && out.contains("already loaded"), "{out}{err}");
    let (done, out, err) = volley(&["load", nic, "--netns", netns, "--upgrade"]);
    assert!(done && out.contains("without a gap") && shown(), "{out}{err}");
    let (done, _, err) = volley(&["load", nic, "--netns", netns, "--mode", "generic"]);
    assert!(!done && err.contains("`volley unload` it first"), "{err}");
    let (done, out, err) = volley(&["unload", nic, "--netns", netns]);
    assert!(done && out.contains("taken off") && !shown(), "{out}{err}");
    let (done, _, err) = volley(&["unload", nic, "--netns", netns]);
    assert!(!done && err.contains(&format!("no volley program is pinned for {nic}")), "{err}");
    let (done, _, err) = volley(&["load", "eht0", "--netns", netns]);
    assert!(!done && err.contains("no interface eht0"), "{err}");
    let (done, _, err) = volley(&["load", nic, "--netns", "no-such-namespace"]);
    assert!(!done && err.contains("no network namespace no-such-namespace"), "{err}");
}
