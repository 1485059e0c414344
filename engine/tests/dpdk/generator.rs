//! `volley gen --tcp` over DPDK: our own TCP at the client's end, against our own and a kernel's.

use crate::kernel::{OURS, PEERS, eventually};
use crate::peers::socket;
use crate::process::{Running, VOLLEY, traces};
use crate::tcp::{any_length, at, lab, output};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use volley_testlab::require_root;

/// A running `volley gen --tcp`, over DPDK. Killed when dropped.
struct Generating(Option<Child>);

impl Generating {
    fn start(target: SocketAddr, what: &str, device: &str, more: &[&str]) -> Generating {
        let mut command = Command::new(VOLLEY);
        command.args(["gen", &target.to_string(), "--tcp", what, "--mode", "dpdk", "--vdev", device]);
        command.args(["--no-huge", "--memory", "64", "--linger", "60", "--fail-on-loss", "--json", "-"]);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Generating(Some(command.spawn().unwrap()))
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Waits for its end, which must be a good one, and gives its report: nothing lost, and nothing left behind.
    #[track_caller]
    fn end(mut self) -> Value {
        let child = self.0.take().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for counter in ["failed", "unanswered", "corrupted"] {
            assert_eq!(report[counter], 0, "{counter}: {report:#}");
        }
        assert_eq!(traces(pid), Vec::<std::path::PathBuf>::new());
        report
    }

    /// Ends it as a user does, before its time.
    #[track_caller]
    fn stop(self) -> Value {
        let pid = nix::unistd::Pid::from_raw(self.pid() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.end()
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_generator_exchanges_every_byte_with_the_engine_over_memif() {
    let socket = socket("tcp.memif");
    let common = format!("id=0,socket-abstract=no,socket={}", socket.display());
    let (near, far) =
        (format!("net_memif0,role=server,{common}"), format!("net_memif0,role=client,{common}"));
    let start = |app: &str| {
        let fixed =
            ["--vdev", &near, "--address", "10.0.0.2/24", "--address", "fd00::2/64", "--frames", "8192"];
        Running::start(&[&fixed[..], &["--tcp-port", "7777", "--tcp-app", app]].concat())
    };
    let streams = |engine: Running| engine.stop()["total"]["streams"].take();
    let generated =
        |target: &str, what: &str, more: &[&str]| Generating::start(at(target), what, &far, more).end();
    let engine = start("tcp-echo");
    let echo = ["--connections", "8", "--message", "5000", "--window", "4", "--duration", "1"];
    for (target, way) in
        [("10.0.0.2", &[][..]), ("fd00::2", &["--source", "fd00::9", "--source", "fd00::a"])]
    {
        let report = generated(target, "echo", &[&echo[..], way].concat());
        assert_eq!((&report["opened"], &report["closed"]), (&8.into(), &0.into()), "{report:#}");
        assert!(report["messages"].as_u64() > Some(0), "{report:#}");
        let report = generated(target, "connect", &["--connections", "8", "--duration", "1"]);
        assert!(report["closed"].as_u64() > Some(0), "{report:#}");
    }
    let totals = streams(engine);
    assert_eq!(totals["accepted"], totals["closed"], "{totals:#}");
    assert_eq!(totals["received_bytes"], totals["sent_bytes"], "{totals:#}");

    let bulk = ["--connections", "2", "--bytes", "8M", "--duration", "60"];
    let engine = start("tcp-discard");
    let report = generated("10.0.0.2", "send", &bulk);
    assert_eq!((&report["bytes_sent"], &report["closed"]), (&8_000_000.into(), &2.into()), "{report:#}");
    assert_eq!(streams(engine)["received_bytes"], 8_000_000);
    let engine = start("tcp-chargen");
    let report = generated("fd00::2", "receive", &bulk);
    assert!(report["bytes_received"].as_u64() >= Some(8_000_000), "{report:#}");
    streams(engine);
    assert!(!socket.exists());
}

/// Echoes what comes over connections to `listener`, and counts it, until all of them are closed by their peers.
fn echo(listener: &TcpListener, connections: usize, echoed: &AtomicU64) {
    std::thread::scope(|scope| {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            scope.spawn(move || {
                let mut bytes = [0; 16 << 10];
                while let Ok(len @ 1..) = stream.read(&mut bytes) {
                    stream.write_all(&bytes[..len]).unwrap();
                    echoed.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    });
}

#[test]
fn a_kernel_echoes_the_generator_and_finds_it_again() {
    if !require_root() {
        return;
    }
    for (family, n, mtu) in [("-4", 0, "1500"), ("-6", 1, "9000")] {
        let (ours, peer) = (OURS[n], PEERS[n]);
        let lab = lab(mtu);
        let device = match mtu {
            "1500" => format!("net_af_packet0,iface={}", lab.engine_if()),
            _ => any_length(&lab),
        };
        let listener = lab.peer().run(|| TcpListener::bind(at(peer)).unwrap());
        let more = ["--netns", lab.engine_ns(), "--source", ours, "--mtu", mtu, "--connections", "4"];
        let more = [&more[..], &["--message", "30000", "--duration", "600"]].concat();
        let generating = Generating::start(at(peer), "echo", &device, &more);
        let echoed = AtomicU64::new(0);
        let goes_on = || {
            let before = echoed.load(Ordering::Relaxed);
            eventually("echoes", || (echoed.load(Ordering::Relaxed) > before + 100_000).then_some(()));
        };
        let report = std::thread::scope(|scope| {
            scope.spawn(|| echo(&listener, 4, &echoed));
            goes_on();
            // The kernel forgets where the generator is, and asks again. It is pinged, too.
            lab.peer().exec(["ip", family, "neigh", "flush", "dev", lab.peer_if()]);
            goes_on();
            output(&lab, "ping", &["-c", "2", "-i", "0.2", "-W", "10", ours]);
            generating.stop()
        });
        assert_eq!((&report["opened"], &report["mode"]), (&4.into(), &"dpdk".into()), "{report:#}");
        let number = |value: &Value| value.as_u64().unwrap();
        let (received, sent) = (number(&report["segments"][0]), number(&report["segments"][1]));
        let jumbo = mtu == "9000";
        // Those without data count as well: there are longer ones.
        assert_eq!(number(&report["bytes_received"]) / received > 1500, jumbo, "{report:#}");
        assert_eq!(number(&report["bytes_sent"]) / sent > 1500, jumbo, "{report:#}");
    }
}
