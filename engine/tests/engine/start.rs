//! What may be in the way of a start.

use crate::peer::{FAMILIES, PORT, assert_answers, echoes, socket};
use crate::running::{Ended, Running, VOLLEY};
use std::net::UdpSocket;
use std::process::Command;
use volley_testlab::{Lab, require_root};

/// `volley run` that must fail; what it said.
fn refused(lab: &Lab, arguments: &[&str]) -> Ended {
    let mut command = Command::new(VOLLEY);
    command.args(["run", "--netns", lab.engine_ns()]).args(arguments);
    let ended = Running::spawn(command).ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let link = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
    assert!(!link.contains("xdp"), "a failed start left a program: {link}");
    ended
}

#[test]
fn a_port_that_is_taken_is_named_with_who_has_it() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for (engine, _) in FAMILIES {
        let _holder = lab.engine().run(|| UdpSocket::bind((engine, PORT)).unwrap());
        for arguments in [vec![lab.engine_if()], vec!["--io", "mmsg"]] {
            let said = refused(&lab, &arguments).said;
            let pid = std::process::id().to_string();
            assert!(said.contains("7777") && said.contains(&pid), "{said}");
        }
    }
    let engine = Running::start(&lab, &[]);
    assert!(refused_port_of(&lab, &engine));
    assert_answers(&lab);
    engine.stop();
}

/// A second engine on the port of a running one.
fn refused_port_of(lab: &Lab, engine: &Running) -> bool {
    let mut command = Command::new(VOLLEY);
    command.args(["run", lab.engine_if(), "--netns", lab.engine_ns()]);
    let ended = Running::spawn(command).ended();
    ended.code == Some(1) && ended.said.contains(&engine.pid().to_string())
}

#[test]
fn a_wrong_interface_queue_core_or_ring_is_named_with_what_there_is() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let name = lab.engine_if();
    let said = refused(&lab, &["nosuchnic0"]).said;
    assert!(said.contains("nosuchnic0") && said.contains(name), "{said}");
    for (arguments, part) in [
        (["--queues", "0-4"], "queue 2"),
        (["--cores", "999"], "core 999"),
        (["--workers", "3"], "3 workers"),
        (["--rx-ring", "1000"], "1000"),
        (["--chunk", "3072"], "3072"),
        (["--zero-copy", "require"], "zero-copy"),
    ] {
        let said = refused(&lab, &[&[name], &arguments[..]].concat()).said;
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let usage = Command::new(VOLLEY).args(["run", name, "--queues", "x"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2), "wrong usage has a code of its own");
}

/// `volley run` with exactly `capabilities` (of setpriv(1): "-all,+net_admin").
fn with_capabilities(lab: &Lab, capabilities: &str, arguments: &[&str]) -> Running {
    let mut command = lab.engine().command("setpriv");
    command.args(["--inh-caps", "-all", "--ambient-caps", "-all", "--bounding-set", capabilities]);
    command.args([VOLLEY, "run", lab.engine_if()]).args(arguments);
    Running::spawn(command)
}

#[test]
fn the_least_privileges_are_enough() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let least = "-all,+net_admin,+bpf,+net_raw,+ipc_lock";
    let engine = with_capabilities(&lab, least, &["--require", "xdp"]).ready();
    assert_answers(&lab);
    let ended = engine.stop();
    assert_eq!((ended.total("via_kernel"), ended.report["io"].as_str()), (0, Some("af-xdp")));
}

#[test]
fn without_privileges_it_says_so_and_serves_over_kernel_sockets_or_fails_if_told_to() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = with_capabilities(&lab, "-all", &[]).ready();
    assert_answers(&lab);
    let ended = engine.stop();
    assert!(ended.said.contains("CAP_NET_ADMIN"), "{}", ended.said);
    assert!(ended.report["fallback"].as_str().unwrap().contains("CAP_BPF"), "{:#}", ended.report);
    assert_eq!(ended.report["io"], "mmsg");

    // Enough for the program, not for its sockets: what was attached is taken off again.
    let engine = with_capabilities(&lab, "-net_raw", &[]).ready();
    let link = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
    assert!(!link.contains("xdp"), "{link}");
    assert_answers(&lab);
    let ended = engine.stop();
    assert!(ended.report["fallback"].as_str().unwrap().contains("CAP_NET_RAW"), "{:#}", ended.report);

    let ended = with_capabilities(&lab, "-all", &["--require", "xdp"]).ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("CAP_NET_ADMIN"), "{}", ended.said);
}

#[test]
fn another_program_on_the_interface_is_named_and_left_alone_unless_told_otherwise() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    // Another engine, on another port, is as good a stranger as any.
    let stranger = Running::start(&lab, &["--port", "9999", "--queues", "1", "--require", "xdp"]);
    let engine = Running::start(&lab, &[]);
    assert_answers(&lab);
    let ended = engine.stop();
    assert!(ended.said.contains("XDP program") && ended.said.contains(lab.engine_if()), "{}", ended.said);
    assert_eq!(ended.report["io"], "mmsg");

    let mut command = Command::new(VOLLEY);
    command.args(["run", lab.engine_if(), "--netns", lab.engine_ns(), "--require", "xdp"]);
    let ended = Running::spawn(command).ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("native mode"), "{}", ended.said);

    let engine = Running::start(&lab, &["--replace", "--queues", "0", "--require", "xdp"]);
    assert!(engine.said().contains("without a program"), "{}", engine.said());
    assert_answers(&lab);
    assert_eq!(engine.stop().report["io"], "af-xdp");
    // The stranger's packets are the kernel's since; its kernel sockets answer them.
    for family in FAMILIES {
        assert!(echoes(&socket(&lab, family, 9999), b"still there?"));
    }
    stranger.stop();
}

#[test]
fn every_way_of_io_answers() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for (arguments, io) in [
        (&["--io", "mmsg"][..], "mmsg"),
        (&["--io", "mmsg", "--offload"], "mmsg"),
        (&["--io", "mmsg", "--workers", "2"], "mmsg"),
        (&["--io", "epoll"], "epoll"),
        (&["--mode", "generic"], "af-xdp"),
        (&["--idle", "spin"], "af-xdp"),
        (&["--idle", "sleep", "--address", "10.77.0.1", "--address", "fd77::1"], "af-xdp"),
        (&["--chunk", "4096", "--frames", "1024", "--rx-ring", "256", "--tx-ring", "256"], "af-xdp"),
        (&["--busy-poll", "20"], "af-xdp"),
    ] {
        let engine = Running::start(&lab, arguments);
        assert_answers(&lab);
        let ended = engine.stop();
        assert_eq!(ended.report["io"], io, "{arguments:?}");
        assert!(ended.total("answered") >= 4, "{arguments:?}: {:#}", ended.report);
    }
}
