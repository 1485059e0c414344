//! The lab of the privileged tests: two network namespaces of their own with a veth pair between them.
//!
//! ```text
//!    namespace LAB-eng                        namespace LAB-lab
//!   ┌──────────────────────────┐             ┌──────────────────────────┐
//!   │ LAB0  10.77.0.1  fd77::1 │◄───────────►│ LAB1  10.77.0.2  fd77::2 │
//!   └──────────────────────────┘             └──────────────────────────┘
//! ```
//!
//! `hw-setup/veth-lab` makes and removes them, so tests, benches and demo stand on one set-up. A [`Lab`] is removed when it is
//! dropped, also by a panic; one whose test was killed is removed by the next [`Lab::new`] on this machine. It never touches
//! the namespace the test runs in, so any number of tests run side by side.
//!
//! ```no_run
//! use volley_testlab::{Lab, require_root};
//! if !require_root() {
//!     return;
//! }
//! let lab = Lab::new(2);
//! lab.peer().exec(["ping", "-c1", "10.77.0.1"]);
//! let socket = lab.engine().run(|| std::net::UdpSocket::bind("10.77.0.1:7777").unwrap());
//! # drop(socket);
//! ```
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod flood;
mod impair;
mod machine;
mod netns;
mod ports;
mod tun;

pub use flood::Flood;
pub use impair::{Counts, Direction, Impair, Impairment};
pub use machine::{Turn, turn_at};
pub use netns::{Netns, in_fresh_ns, in_ns};
pub use ports::free_port;
pub use tun::{Kind, Tun};

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where `hw-setup/veth-lab` is.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hw-setup/veth-lab");
/// Where that script notes the labs it made.
const STATE_DIR: &str = "/run/volley/lab";

/// The engine's addresses in every lab.
pub const ENGINE_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The engine's addresses in every lab.
pub const ENGINE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The peer's addresses in every lab.
pub const PEER_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The peer's addresses in every lab.
pub const PEER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// True when this process may make namespaces. Otherwise [`cannot_run`]: says why, and panics under CI.
#[track_caller]
pub fn require_root() -> bool {
    nix::unistd::geteuid().is_root() || cannot_run("it needs root to make network namespaces")
}

/// For a test that cannot run here: prints why and returns false, so that the test returns. Under CI (the variable `CI` is
/// set) a skipped test would be a lie, so it panics.
#[track_caller]
pub fn cannot_run(why: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run, and CI is set: {why}");
    eprintln!("{test} SKIPPED: {why}");
    false
}

/// What a lab is made with.
#[derive(Clone, Copy, Debug)]
pub struct LabOptions {
    /// Receive and transmit queues of each end.
    pub queues: u32,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Permanent neighbour entries at both ends.
    pub neighbours: bool,
    /// GRO at the peer's end: it then takes frames sent by XDP without a program attached there.
    pub peer_gro: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        LabOptions { queues: 1, mtu: 1500, neighbours: false, peer_gro: false }
    }
}

/// Two namespaces and the veth pair between them.
#[derive(Debug)]
pub struct Lab {
    name: String,
    engine: Netns,
    peer: Netns,
    engine_if: String,
    peer_if: String,
    /// Namespaces behind the peer.
    behind: Vec<Netns>,
}

impl Lab {
    /// A lab with `queues` queues at each end, MTU 1500.
    ///
    /// # Panics
    /// When it cannot be made; the message is the script's.
    pub fn new(queues: u32) -> Lab {
        Lab::with(LabOptions { queues, ..LabOptions::default() })
    }

    /// A lab made to measure.
    ///
    /// # Panics
    /// As [`Lab::new`].
    pub fn with(options: LabOptions) -> Lab {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        sweep();
        // Interface names have at most 15 letters: "vt", six of the pid, a dash, the counter, the end's digit.
        let name = format!("vt{:x}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let engine_ns = format!("{name}-eng");
        let lab = Lab {
            engine: Netns::named(&engine_ns),
            peer: Netns::named(&format!("{name}-lab")),
            engine_if: format!("{name}0"),
            peer_if: format!("{name}1"),
            behind: Vec::new(),
            name,
        };
        let mut up = Command::new(SCRIPT);
        up.args(["up", "--name", &lab.name, "--engine-netns", &engine_ns]);
        up.args(["--queues", &options.queues.to_string(), "--mtu", &options.mtu.to_string()]);
        up.args(["--peer-gro", if options.peer_gro { "on" } else { "off" }]);
        if options.neighbours {
            up.arg("--neighbours");
        }
        netns::run(up);
        lab
    }

    /// The lab's name, unique on this machine; a good prefix for whatever else a test makes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the engine's end.
    pub fn engine(&self) -> &Netns {
        &self.engine
    }

    /// The namespace of the peer's end.
    pub fn peer(&self) -> &Netns {
        &self.peer
    }

    /// The name of the engine's namespace, as `--netns` takes it.
    pub fn engine_ns(&self) -> &str {
        self.engine.name()
    }

    /// The name of the peer's namespace.
    pub fn peer_ns(&self) -> &str {
        self.peer.name()
    }

    /// The engine's interface.
    pub fn engine_if(&self) -> &str {
        &self.engine_if
    }

    /// The peer's interface.
    pub fn peer_if(&self) -> &str {
        &self.peer_if
    }

    /// A host behind the peer, which becomes a router: the first has 10.78.0.2 and fd78::2, the next 10.79.0.2, and so on. Its
    /// gateway, the router's end of the link, is .1; the router's interface towards it is [`Host::router_if`].
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn host_behind_peer(&mut self) -> Host {
        let n = self.behind.len();
        assert!(n < 10, "names and addresses are for ten");
        let (net, far_if, router_if) = (78 + n, format!("{}h{n}", self.name), format!("{}r{n}", self.name));
        let netns = Netns::named(&format!("{}-h{n}", self.name));
        let run = |words: &str| {
            let mut words = words.split(' ');
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            netns::run(command);
        };
        run(&format!("ip netns add {}", netns.name()));
        self.behind.push(netns.clone());
        run(&format!(
            "ip link add {router_if} netns {} type veth peer name {far_if} netns {}",
            self.peer.name(),
            netns.name()
        ));
        for (inside, name, last) in [(&self.peer, &router_if, 1), (&netns, &far_if, 2)] {
            for words in [
                // What is forwarded must have its checksum.
                format!("ethtool -K {name} tx off tso off gso off gro off"),
                format!("ip address add 10.{net}.0.{last}/24 dev {name}"),
                format!("ip address add fd{net}::{last}/64 dev {name} nodad"),
                format!("ip link set {name} up"),
            ] {
                inside.exec(words.split(' '));
            }
        }
        netns.exec(["ip", "link", "set", "lo", "up"]);
        netns.exec(["ip", "route", "add", "default", "via", &format!("10.{net}.0.1")]);
        netns.exec(["ip", "-6", "route", "add", "default", "via", &format!("fd{net}::1")]);
        self.peer.exec(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
        self.engine.exec([
            "ip",
            "route",
            "add",
            &format!("10.{net}.0.0/24"),
            "via",
            &PEER_IPV4.to_string(),
        ]);
        self.engine.exec([
            "ip",
            "-6",
            "route",
            "add",
            &format!("fd{net}::/64"),
            "via",
            &PEER_IPV6.to_string(),
        ]);
        Host {
            netns,
            interface: far_if,
            router_if,
            ipv4: Ipv4Addr::new(10, net as u8, 0, 2),
            // The hexadecimal digits are the decimal ones of the IPv4 network.
            ipv6: format!("fd{net}::2").parse().unwrap_or(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Takes the link in hand, at the peer's end and for both directions; it does nothing until it is told what.
    ///
    /// # Panics
    /// As [`Impair::attach`].
    pub fn impair(&self) -> Impair {
        Impair::attach(&self.peer, &self.peer_if, &format!("{}i", self.name))
    }

    /// The MAC of the engine's interface.
    pub fn engine_mac(&self) -> [u8; 6] {
        self.engine.mac(&self.engine_if)
    }

    /// The MAC of the peer's interface.
    pub fn peer_mac(&self) -> [u8; 6] {
        self.peer.mac(&self.peer_if)
    }
}

/// A host behind the peer of a lab; it goes with the lab.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Netns,
    /// Its interface.
    pub interface: String,
    /// The router's interface on the link to it, in the namespace of the lab's peer.
    pub router_if: String,
    /// Its addresses.
    pub ipv4: Ipv4Addr,
    /// Its addresses.
    pub ipv6: Ipv6Addr,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.behind.iter().for_each(|netns| delete(netns.name()));
        down(&self.name);
    }
}

fn down(name: &str) {
    let outcome = Command::new(SCRIPT).args(["down", "--name", name]).output();
    match outcome {
        Ok(output) if output.status.success() => {}
        other => eprintln!("lab {name} could not be removed: {other:?}"),
    }
}

fn delete(netns: &str) {
    let outcome = Command::new("ip").args(["netns", "delete", netns]).output();
    if !outcome.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("namespace {netns} could not be removed: {outcome:?}");
    }
}

/// Removes the labs of test processes that are gone: a killed one cannot clean up after itself.
fn sweep() {
    orphans(STATE_DIR).iter().for_each(|name| down(name));
    // What stood behind their peers.
    for name in orphans("/run/netns") {
        if name.rsplit_once("-h").is_some_and(|(_, number)| number.parse::<u8>().is_ok()) {
            delete(&name);
        }
    }
}

/// Names in a directory that begin with the mark of a test process that is gone.
fn orphans(directory: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_orphan = |name: &String| {
        let pid = name.strip_prefix("vt").and_then(|rest| rest.split_once('-'));
        let pid = pid.and_then(|(pid, _)| u32::from_str_radix(pid, 16).ok());
        pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    names.filter(is_orphan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_lab_carries_both_families_and_vanishes() {
        if !require_root() {
            return;
        }
        let lab = Lab::new(2);
        for (engine, peer) in [("10.77.0.1:7777", "10.77.0.2:0"), ("[fd77::1]:7777", "[fd77::2]:0")] {
            let engine_socket = lab.engine().run(|| UdpSocket::bind(engine).unwrap());
            let peer_socket = lab.peer().run(|| UdpSocket::bind(peer).unwrap());
            peer_socket.send_to(b"over the wire", engine).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = engine_socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"over the wire");
            assert_eq!(from, peer_socket.local_addr().unwrap());
        }
        assert_ne!(lab.engine_mac(), lab.peer_mac());
        let (state, engine) = (format!("{STATE_DIR}/{}", lab.name()), lab.engine().path());
        assert!(engine.exists());
        drop(lab);
        assert!(!engine.exists() && !std::path::Path::new(&state).exists());
    }

    #[test]
    fn a_panic_in_the_lab_cleans_up_and_arrives() {
        if !require_root() {
            return;
        }
        let lab = Lab::new(1);
        let path = lab.engine().path();
        let outcome = std::thread::spawn(move || lab.engine().run(|| panic!("inside")));
        assert_eq!(outcome.join().unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
        assert!(!path.exists());
    }

    #[test]
    #[should_panic(expected = "no-such-device")]
    fn a_failing_command_panics_with_its_own_message() {
        if !require_root() {
            panic!("skipped: no-such-device");
        }
        Lab::new(1).engine().exec(["ip", "link", "set", "no-such-device", "up"]);
    }
}
