//! What can go wrong with TCP clients and descriptors, over each port on the kernel's TCP.

use crate::client::{PATIENCE, assert_echoes, connect};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use volley::app::tcp::TcpEcho;
use volley::app::{Beside, Echo};
use volley::engine::config::{Io, Ports, Tcp};
use volley::engine::{Config, Engine};
use volley::stream::StreamStats;
use volley_testlab::{ENGINE_IPV4, Lab, free_port, require_root};

/// What carries UDP, and with it TCP.
const BOTH: [Io; 2] = [Io::Mmsg, Io::IoUring];

fn start(io: Io, address: Ipv4Addr, port: u16) -> Engine {
    let tcp = Tcp {
        ports: Ports(port..=port),
        connections: Some(512),
        keep_alive_secs: 1,
        slow_reader_ms: 1_000,
        ..Tcp::default()
    };
    let config = Config {
        io,
        ports: Ports(port..=port),
        addresses: vec![address.into()],
        workers: Some(1),
        pin: false,
        tcp: Some(tcp),
        ..Config::default()
    };
    Engine::start(config, |_| Beside(Echo, TcpEcho::default())).unwrap()
}

#[track_caller]
fn until(engine: &Engine, what: &str, done: impl Fn(&StreamStats) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let streams = engine.report().unwrap().total.streams;
        if done(&streams) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {streams:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}

#[test]
fn resets_at_every_point_leave_nothing_behind() {
    for io in BOTH {
        let port = free_port();
        let engine = start(io, Ipv4Addr::LOCALHOST, port);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let steady = connect(address);
        let clients = 200;
        for n in 0..clients {
            let mut stream = connect(address);
            // Half of them once they are known to be accepted, the others maybe before.
            if n % 10 >= 5 {
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut [0; 1]).unwrap();
            }
            // At once; after a piece of a message; with an echo on its way; with one that does not fit; half closed.
            match n % 5 {
                0 => {}
                1 => stream.write_all(&[40, 0, 0]).unwrap(),
                2 => {
                    stream.write_all(&[1; 3000]).unwrap();
                    stream.read_exact(&mut [0; 100]).unwrap();
                }
                3 => {
                    stream.set_nonblocking(true).unwrap();
                    while matches!(stream.write(&[2; 1 << 16]), Ok(1..)) {}
                }
                _ => {
                    stream.write_all(&[3; 10]).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                }
            }
            reset(stream);
        }
        // One that is reset before it is accepted is none.
        until(&engine, "the resets", |streams| {
            streams.accepted > clients / 2 && streams.closed == streams.accepted - 1 && streams.open == 1
        });
        assert_echoes(&steady, 1 << 20);
        let report = engine.stop().unwrap();
        let streams = report.total.streams;
        assert_eq!((streams.accepted, streams.open), (streams.closed, 0), "{report}");
        assert!(streams.reset > 0, "{report}");
    }
}

#[test]
fn a_peer_that_vanishes_is_missed_and_others_are_served() {
    if !require_root() {
        return;
    }
    for io in BOTH {
        let lab = Lab::new(1);
        let engine = lab.engine().run(|| start(io, ENGINE_IPV4, 7777));
        let address = SocketAddr::from((ENGINE_IPV4, 7777));
        let mut gone = lab.peer().run(|| connect(address));
        gone.write_all(b"x").unwrap();
        gone.read_exact(&mut [0; 1]).unwrap();
        let local = lab.engine().run(|| connect(address));
        // Nobody will tell the engine: its question whether somebody is there goes unanswered.
        lab.peer().exec(["ip", "link", "set", lab.peer_if(), "down"]);
        until(&engine, "the keep-alive", |streams| streams.closed == 1);
        assert_echoes(&local, 100_000);
        let report = engine.stop().unwrap();
        assert_eq!(report.total.streams.timed_out, 1, "{report}");
    }
}

/// A `volley run` of our own; ended when dropped.
struct Process(Child);

impl Process {
    fn start(io: Io, port: u16, log: &Path) -> Process {
        let file = std::fs::File::create(log).unwrap();
        let port = port.to_string();
        // Descriptors it inherits take most of the limit's: it cannot have as many connections as it believes.
        let script = "for n in {20..199}; do eval \"exec $n</dev/null\"; done; ulimit -n 230; exec \"$@\"";
        let child = Command::new("bash")
            .args(["-c", script, "bash", env!("CARGO_BIN_EXE_volley")])
            .args(["run", "--io", io.as_str(), "--address", "127.0.0.1", "--workers", "1", "--no-pin"])
            .args(["--port", &port, "--tcp-port", &port, "--tcp-connections", "100"])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let process = Process(child);
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(log).unwrap().contains("volley: ready") {
            let said = std::fs::read_to_string(log).unwrap();
            assert!(Instant::now() < deadline, "not ready: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The stream, when it was served.
fn served(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"x").ok()?;
    matches!(stream.read(&mut [0; 8]), Ok(1)).then_some(stream)
}

#[test]
fn without_a_descriptor_clients_are_turned_away_at_once_until_there_is_one() {
    for io in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let port = free_port();
        let _engine = Process::start(io, port, &log);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut clients: Vec<_> = (0..60).filter_map(|_| served(address)).collect();
        let count = clients.len();
        assert!((1..40).contains(&count), "{}: {count} of 60 were served", io.as_str());
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said.matches("no descriptor is left (RLIMIT_NOFILE is 230)").count(), 1, "once: {said}");
        // Who was served still is, and when they end there is room again.
        for stream in clients.drain(..) {
            assert_echoes(&stream, 10_000);
        }
        let deadline = Instant::now() + PATIENCE;
        while served(address).is_none() {
            assert!(Instant::now() < deadline, "{}: nobody is served any more", io.as_str());
        }
    }
}
