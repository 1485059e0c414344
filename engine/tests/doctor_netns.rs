//! `volley doctor` on a real interface: what is wrong is found, and its remedy mends it. Needs root.
#![cfg(target_os = "linux")]

use serde_json::Value;
use std::process::Command;
use volley_testlab::{Lab, require_root};

const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");

/// What the doctor says of `interface`, and its exit code. `command` is the beginning of a command line.
fn examine(mut command: Command, interface: &str) -> (Vec<Value>, i32) {
    let output = command.args(["doctor", interface, "--json"]).output().unwrap();
    let checks = serde_json::from_slice(&output.stdout);
    let checks = checks.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (checks, output.status.code().unwrap())
}

fn on(lab: &Lab, interface: &str) -> (Vec<Value>, i32) {
    examine(lab.engine().command(VOLLEY), interface)
}

fn check<'c>(checks: &'c [Value], name: &str) -> &'c Value {
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check of {name} in {checks:#?}"))
}

/// `name` is closed; runs its remedy in the engine's namespace, and then it is open.
fn mends(lab: &Lab, interface: &str, name: &str) {
    let (checks, _) = on(lab, interface);
    let closed = check(&checks, name);
    assert_eq!(closed["answer"], "closed", "{closed}");
    lab.engine().exec(["sh", "-c", closed["remedy"].as_str().unwrap()]);
    let (checks, _) = on(lab, interface);
    assert_eq!(check(&checks, name)["answer"], "open", "{}", check(&checks, name));
}

#[test]
fn the_lab_is_ready_and_exactly_the_least_privileges_are_needed() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let with = |capabilities: &str| {
        let mut command = lab.engine().command("setpriv");
        command.args([
            "--inh-caps",
            "-all",
            "--ambient-caps",
            "-all",
            "--bounding-set",
            capabilities,
            VOLLEY,
        ]);
        examine(command, lab.engine_if())
    };
    let (checks, code) = with("-all,+net_admin,+bpf,+net_raw,+ipc_lock");
    let needed: Vec<_> = checks.iter().filter(|check| check["needed"] == true).collect();
    assert!(needed.len() >= 8 && needed.iter().all(|check| check["answer"] == "open"), "{needed:#?}");
    assert_eq!((code, &check(&checks, "queues")["found"]), (0, &Value::from("2")));
    for (set, missing) in [
        ("-all,+bpf,+net_raw,+ipc_lock", "CAP_NET_ADMIN"),
        ("-all,+net_admin,+net_raw,+ipc_lock", "CAP_BPF"),
        ("-all,+net_admin,+bpf,+ipc_lock", "CAP_NET_RAW"),
    ] {
        let (checks, code) = with(set);
        let capabilities = check(&checks, "capabilities");
        assert_eq!((code, &capabilities["answer"]), (1, &Value::from("closed")), "{capabilities}");
        assert!(capabilities["found"].as_str().unwrap().contains(missing), "{capabilities}");
    }
}

#[test]
fn remedies_mend() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    // A pair as it comes: both ends here, all offloads on.
    let (one, other) = (format!("{}2", lab.name()), format!("{}3", lab.name()));
    lab.engine().exec(["ip", "link", "add", &one, "type", "veth", "peer", "name", &other]);
    let (checks, code) = on(&lab, &one);
    assert_eq!((code, &check(&checks, "interface")["answer"]), (1, &Value::from("closed")));
    mends(&lab, &one, "interface");
    mends(&lab, &one, "veth peer");
    assert_eq!(on(&lab, &one).1, 0);
}

#[test]
fn queues_without_a_worker_are_named_by_doctor_and_engine_alike() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(3);
    let (checks, _) = on(&lab, lab.engine_if());
    assert_eq!(check(&checks, "steering")["answer"], "open", "all are served by default");
    assert_eq!(check(&checks, "gro")["answer"], "open", "{}", check(&checks, "gro"));
    let mut command = lab.engine().command(VOLLEY);
    command.args(["doctor", "--queues", "1"]);
    let checks = serde_json::from_slice::<Vec<Value>>(
        &command.args([lab.engine_if(), "--json"]).output().unwrap().stdout,
    );
    let checks = checks.unwrap();
    let steering = check(&checks, "steering");
    assert_eq!(steering["answer"], "closed", "{steering}");
    let found = steering["found"].as_str().unwrap();
    assert!(found.contains("queues 0,2"), "{found}");
    // The engine says the same when it starts, and says nothing when there is nothing to say.
    let engine = |queues: &str| {
        let mut command = lab.engine().command(VOLLEY);
        command.args(["run", lab.engine_if(), "--require", "xdp", "--duration", "0.1", "--no-pin"]);
        let output = command.args(["--queues", queues]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = engine("1");
    assert!(said.contains(&format!("{}: steering: {found}", lab.engine_if())), "{said}");
    assert!(said.contains("mend it with: ethtool -N"), "{said}");
    let said = engine("0-2");
    assert!(!said.contains("mend it with"), "{said}");
}

#[test]
fn what_steered_packets_bypass_is_named() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (checks, _) = on(&lab, lab.engine_if());
    for name in ["tc ingress", "captures", "firewall"] {
        assert_eq!(check(&checks, name)["answer"], "open", "{}", check(&checks, name));
    }
    lab.engine().exec(["tc", "qdisc", "add", "dev", lab.engine_if(), "clsact"]);
    let capture = lab.engine().run(|| {
        use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
        let all = SockProtocol::EthAll;
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).unwrap()
    });
    let (checks, code) = on(&lab, lab.engine_if());
    assert_eq!((code, &check(&checks, "tc ingress")["answer"]), (0, &Value::from("closed")));
    let found = check(&checks, "captures")["found"].as_str().unwrap();
    assert!(found.contains(&format!("(pid {})", std::process::id())), "{found}");
    drop(capture);
}

#[test]
fn our_own_pinned_program_is_known_as_ours() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let volley = |arguments: &[&str]| {
        let output = lab.engine().command(VOLLEY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    volley(&["load", lab.engine_if()]);
    let (checks, code) = on(&lab, lab.engine_if());
    volley(&["unload", lab.engine_if()]);
    let program = check(&checks, "xdp program");
    assert_eq!((code, &program["answer"]), (0, &Value::from("open")), "{program}");
    assert!(program["found"].as_str().unwrap().contains("pinned by `volley load`"), "{program}");
}
