//! Both ends of memif and vhost, each a process of its own: answers, and what happens when one end goes.
//!
//! The other end is `volley gen`, which verifies every byte of every answer.

use crate::process::{Running, VOLLEY};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// The engine's MAC, so that the peer need not ask for it.
const MAC: &str = "02:00:00:00:00:02";
/// Longest that answers may take to come (again).
const PATIENCE: Duration = Duration::from_secs(60);

/// The process at the other end. Killed when dropped, by SIGKILL.
pub struct Peer {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Peer {
    fn start(device: &str, rate: &str) -> Peer {
        Peer::with(device, rate, "10.0.0.2:7777", &["--source", "10.0.0.1", "--mac", MAC])
    }

    pub fn with(device: &str, rate: &str, target: &str, way: &[&str]) -> Peer {
        let fixed = ["--mode", "dpdk", "--no-huge", "--memory", "64", "--vdev", device];
        let mut command = Command::new(VOLLEY);
        command.args(["gen", target]).args(fixed).args(way).args(["--rate", rate, "--duration", "600"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Peer { child, said }
    }

    /// Waits until it sends: it says how much, once a second.
    #[track_caller]
    pub fn sends(&mut self) {
        let mut line = String::new();
        while !line.contains(" sent ") {
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the peer has ended: {line}");
        }
    }

    /// Waits until it is answered, each byte right: a second in which hundreds of answers came.
    #[track_caller]
    pub fn is_answered(&mut self) {
        let until = Instant::now() + PATIENCE;
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the peer has ended");
            let number = |name: &str| -> Option<u64> {
                line.split(name).nth(1)?.split_whitespace().next()?.parse().ok()
            };
            if let (Some(answered), Some(wrong)) = (number(" answered "), number(" wrong ")) {
                assert_eq!(wrong, 0, "{line}");
                if answered > 200 {
                    return;
                }
            }
            assert!(Instant::now() < until, "no answers: {line}");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("volley-test-{}-{name}", std::process::id()))
}

/// Peers come, one after the other, and are killed at full rate, so that the engine's worker is in the middle of what goes.
fn memif_peers_are_killed(engine: &str, peer: &str) {
    let socket = socket(&format!("{engine}.memif"));
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    let running = Running::start(&["--vdev", &format!("net_memif0,role={engine},mac={MAC},{common}")]);
    for _ in 0..3 {
        Peer::start(&format!("net_memif0,role={peer},{common}"), "max").is_answered();
    }
    let (report, said) = running.stop_and_hear();
    assert!(report["total"]["answered"].as_u64() >= Some(600), "{report}");
    // Its link came and went with each.
    let times = |state: &str| said.matches(&format!("net_memif0: the link is {state}")).count();
    assert!(times("up") >= 3 && times("down") >= 2, "{said}");
    // A server that was killed could not remove it.
    if engine == "server" {
        assert!(!socket.exists());
    }
    let _ = std::fs::remove_file(socket);
}

#[test]
fn memif_clients_are_killed_and_others_come() {
    memif_peers_are_killed("server", "client");
}

#[test]
fn memif_servers_are_killed_and_others_come() {
    memif_peers_are_killed("client", "server");
}

#[test]
fn the_generator_finds_the_engine_on_the_link() {
    let socket = socket("found.memif");
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    let device = format!("net_memif0,role=server,mac={MAC},{common}");
    let addresses = ["--address", "10.0.0.2/24", "--address", "fd00::2/64"];
    let engine = Running::start(&[&["--vdev", &device][..], &addresses].concat());
    let device = format!("net_memif0,role=client,mac=02:00:00:00:00:03,{common}");
    // From nothing but the target: the source beside it, the MAC by ARP or neighbour discovery. Or over a router, which it is, too.
    for (target, way) in [
        ("10.0.0.2:7777", &[][..]),
        ("[fd00::2]:7777", &["--source", "fd00::9"]),
        ("10.0.0.2:7777", &["--source", "10.0.0.7", "--gateway", "10.0.0.2"]),
    ] {
        Peer::with(&device, "5000", target, way).is_answered();
    }
    // Nobody there: said, with what to do.
    let mut command = Command::new(VOLLEY);
    command.args(["gen", "10.0.0.9:7777", "--mode", "dpdk", "--no-huge", "--memory", "64", "--quiet"]);
    let output = command.args(["--vdev", &device]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("10.0.0.9 does not answer") && said.contains("--mac"), "{said}");
    let report = engine.stop();
    let link = &report["total"]["standalone"];
    assert!(link["arp_answered"].as_u64() >= Some(2) && link["ndp_answered"].as_u64() >= Some(1), "{link}");
}

#[test]
fn the_generator_finds_the_engine_in_its_vlan_and_not_beside_it() {
    let socket = socket("vlan.memif");
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    let device = format!("net_memif0,role=server,mac={MAC},{common}");
    let in_vlan = ["--address", "10.0.0.2/24@5", "--address", "fd00::2/64@5"];
    let engine = Running::start(&[&["--vdev", &device][..], &in_vlan].concat());
    let device = format!("net_memif0,role=client,mac=02:00:00:00:00:03,{common}");
    for (target, way) in [("10.0.0.2:7777", &[][..]), ("[fd00::2]:7777", &["--source", "fd00::9"])] {
        Peer::with(&device, "5000", target, &[way, &["--vlan", "5"]].concat()).is_answered();
    }
    let mut command = Command::new(VOLLEY);
    command.args(["gen", "10.0.0.2:7777", "--mode", "dpdk", "--no-huge", "--memory", "64", "--quiet"]);
    let output = command.args(["--vdev", &device, "--vlan", "6"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("10.0.0.2 does not answer"), "{said}");
    let report = engine.stop();
    let link = &report["total"]["standalone"];
    assert!(link["arp_answered"].as_u64() >= Some(1) && link["ndp_answered"].as_u64() >= Some(1), "{link}");
}

#[test]
fn a_vhost_peer_goes_and_comes_back() {
    let socket = socket("vhost.sock");
    let engine =
        Running::start(&["--vdev", &format!("net_vhost0,iface={}", socket.display()), "--promiscuous"]);
    let device = format!("net_virtio_user0,path={},queue_size=256", socket.display());
    for _ in 0..2 {
        Peer::start(&device, "5000").is_answered();
    }
    let report = engine.stop();
    assert!(report["total"]["answered"].as_u64() >= Some(400), "{report}");
    assert!(!socket.exists(), "the vhost socket is still there");
}

#[test]
fn a_virtio_user_engine_outlives_its_vhost() {
    let socket = socket("user.sock");
    let path = socket.display();
    let vhost = format!("net_vhost0,iface={path},client=1");
    // A virtio-user that listens does not start before somebody has come.
    let mut peer = Peer::start(&vhost, "5000");
    let engine = Running::start(&[
        "--vdev",
        &format!("net_virtio_user0,path={path},server=1,mac={MAC},queue_size=256"),
    ]);
    peer.is_answered();
    drop(peer);
    Peer::start(&vhost, "5000").is_answered();
    engine.stop();
    assert!(!socket.exists(), "the socket is still there");
}

/// `dpdk-testpmd` over one memif. Killed when dropped, with what it leaves in the runtime directory.
struct Testpmd {
    child: Child,
    prefix: String,
}

impl Testpmd {
    fn start(device: &str, forward: &[&str]) -> Testpmd {
        let prefix = format!("volley-test-{}-{}", std::process::id(), device.len());
        let mut command = Command::new("dpdk-testpmd");
        command.args(["--lcores", "0@0,1@(0-1)", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry"]);
        command.args(["--file-prefix", &prefix, "--vdev", device, "--", "--no-mlockall", "--nb-cores=1"]);
        command.args(["--total-num-mbufs=4096", "--stats-period=1"]).args(forward);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Testpmd { child: child.expect("hw-setup/deps dpdk installs it"), prefix }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(std::path::Path::new("/var/run/dpdk").join(&self.prefix));
    }
}

#[test]
fn testpmd_circulates_packets_with_the_engine() {
    let socket = socket("pmd-far.memif");
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    // What testpmd makes itself goes to this MAC, and to this port.
    let device = format!("net_memif0,role=server,mac=02:00:00:00:00:00,{common}");
    let engine = Running::start(&["--vdev", &device, "--port", "9"]);
    let answered = || {
        let output = Command::new(VOLLEY).args(["status", "--json"]).output().unwrap();
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let all = all["engines"].as_array()?.clone();
        all.iter().find(|report| report["pid"] == engine.pid())?["total"]["answered"].as_u64()
    };
    let circulates = || {
        let _far = Testpmd::start(
            &format!("net_memif0,role=client,mac=02:00:00:00:00:02,{common}"),
            &["--forward-mode=macswap", "--tx-first"],
        );
        let (until, before) = (Instant::now() + PATIENCE / 3, answered().unwrap_or(0));
        while Instant::now() < until {
            if answered() > Some(before + 10_000) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    };
    // Testpmd sends its packets once: after nine seconds also over a link that is not up yet, and then they are gone.
    assert!(
        (1..=3).any(|attempt| {
            circulates() || {
                eprintln!("attempt {attempt}: {:?} answered: the link was up too late", answered());
                false
            }
        }),
        "nothing circulates"
    );
    engine.stop();
    assert!(!socket.exists());
}

#[test]
fn testpmd_answers_the_generator() {
    let socket = socket("pmd-near.memif");
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    let _near = Testpmd::start(
        &format!("net_memif0,role=server,mac={MAC},{common}"),
        // It polls once its link is up, or after nine seconds: polled while it connects, the driver (22.11) has been seen to die.
        &["--forward-mode=5tswap", "--auto-start"],
    );
    let until = Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(Instant::now() < until, "testpmd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Peer::start(&format!("net_memif0,role=client,mac=02:00:00:00:00:03,{common}"), "5000").is_answered();
    let _ = std::fs::remove_file(socket);
}
