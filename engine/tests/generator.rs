//! The generator end to end over loopback, against servers that misbehave in a known way: what it counts
//! must be exactly what they did.
#![cfg(target_os = "linux")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volley::generator::live::Live;
use volley::generator::plan::Plan;
use volley::generator::run::Limits;
use volley::generator::schedule::Rate;
use volley::generator::session::Outcome;
use volley::generator::socket::SocketLink;
use volley::generator::{Generator, Load};

/// A server on loopback that runs `answer` for each datagram, for as long as `work` takes.
fn with_server<T>(
    address: &str,
    mut answer: impl FnMut(&UdpSocket, SocketAddr, &mut [u8]) + Send,
    work: impl FnOnce(SocketAddr) -> T,
) -> T {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (target, stop) = (socket.local_addr().unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    answer(&socket, from, &mut buffer[..len]);
                }
            }
        });
        let outcome = work(target);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

const PACKETS: u64 = 3_000;

/// Sends `count` packets at a rate that any machine's loopback carries without loss.
fn load(plan: Plan, count: u64) -> Load {
    let limits = Limits {
        warmup: Duration::ZERO,
        duration: Duration::from_secs(60),
        count: Some(count),
        linger: Duration::from_millis(500),
    };
    Load { plan, rate: Rate::Fixed(3_000.0), burst: 16, limits }
}

fn open(target: SocketAddr, plan: &Plan) -> SocketLink {
    let any: SocketAddr = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    SocketLink::open(target, std::iter::repeat_n(any, plan.flows()), plan.longest()).unwrap()
}

fn send(target: SocketAddr, plan: Plan) -> Outcome {
    let mut generator = Generator::new(open(target, &plan));
    generator.measure(&load(plan, PACKETS), &Live::default(), &AtomicBool::new(false)).unwrap()
}

#[test]
fn an_honest_echo_has_no_fault() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let outcome = with_server(
            address,
            |socket, from, payload| {
                socket.send_to(payload, from).unwrap();
            },
            |target| send(target, Plan::new(5, 1, 18..=1400)),
        );
        let counts = outcome.counts;
        assert_eq!((counts.sent, counts.received, counts.lost), (PACKETS, PACKETS, 0), "{address}");
        assert_eq!((counts.duplicated, counts.reordered, counts.corrupted, counts.stale), (0, 0, 0, 0));
        assert_eq!((outcome.latency.count, outcome.lateness.count), (PACKETS, PACKETS));
        assert!(outcome.latency.min_ns >= outcome.latency_uncorrected.min_ns);
        assert!(outcome.latency.p50_ns <= outcome.latency.p99_ns);
    }
}

/// What a server has done to its datagrams.
#[derive(Default)]
struct Faults {
    seen: u64,
    dropped: u64,
    duplicated: u64,
    corrupted: u64,
    swapped: u64,
    held: Option<(Vec<u8>, SocketAddr)>,
}

#[test]
fn what_a_misbehaving_server_does_is_counted_exactly() {
    let mut faults = Faults::default();
    let outcome = with_server(
        "127.0.0.1:0",
        |socket, from, payload| {
            faults.seen += 1;
            let send = |payload: &[u8]| {
                socket.send_to(payload, from).unwrap();
            };
            match faults.seen % 100 {
                10 => faults.dropped += 1,
                20 | 21 => {
                    send(payload);
                    send(payload);
                    faults.duplicated += 1;
                }
                30 => {
                    let at = (faults.seen as usize * 31) % payload.len();
                    payload[at] ^= 0x40;
                    send(payload);
                    faults.corrupted += 1;
                }
                31 => {
                    send(&payload[..payload.len() - 1]);
                    faults.corrupted += 1;
                }
                32 => {
                    send(&[&*payload, b"!"].concat());
                    faults.corrupted += 1;
                }
                // Held back until the next one of the (only) flow has been answered.
                40 => faults.held = Some((payload.to_vec(), from)),
                41 => {
                    send(payload);
                    send(&faults.held.take().unwrap().0);
                    faults.swapped += 1;
                }
                _ => send(payload),
            }
        },
        |target| send(target, Plan::new(1, 1, 18..=300)),
    );
    let counts = outcome.counts;
    assert_eq!((counts.sent, faults.seen), (PACKETS, PACKETS), "loopback lost packets on the way there");
    assert!(faults.dropped == 30 && faults.swapped == 30 && faults.corrupted == 90);
    assert_eq!(counts.duplicated, faults.duplicated);
    assert_eq!(counts.reordered, faults.swapped);
    assert_eq!(counts.corrupted, faults.corrupted);
    assert_eq!(counts.lost, faults.dropped + faults.corrupted);
    assert_eq!(counts.received, PACKETS - counts.lost);
}

#[test]
fn an_answer_to_another_flow_is_a_fault() {
    let mut last = None;
    let outcome = with_server(
        "127.0.0.1:0",
        |socket, from, payload| {
            // Every answer goes to the flow that sent the packet before.
            let to = last.replace(from).unwrap_or(from);
            socket.send_to(payload, to).unwrap();
        },
        |target| send(target, Plan::new(2, 1, 18..=18)),
    );
    assert_eq!(outcome.counts.received, 1);
    assert_eq!(outcome.counts.corrupted, PACKETS - 1);
}

#[test]
fn nobody_there_is_all_lost_and_said() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = Plan::new(1, 1, 18..=18);
    let mut generator = Generator::new(open(closed, &plan));
    let outcome = generator.measure(&load(plan, 50), &Live::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!((outcome.counts.sent, outcome.counts.lost), (50, 50));
    assert!(generator.link().refused() > 0);
}

/// `volley gen` as a user runs it.
fn command(target: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
    command.args(["gen", &target.to_string(), "--json", "-"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn echo(socket: &UdpSocket, from: SocketAddr, payload: &mut [u8]) {
    socket.send_to(payload, from).unwrap();
}

#[test]
fn the_command_reports_and_exits_by_what_it_saw() {
    let arguments = ["--count", "200", "--rate", "2k", "--fail-on-loss"];
    let fine = with_server("127.0.0.1:0", echo, |target| command(target, &arguments).output().unwrap());
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    assert_eq!((json(&fine)["sent"].as_u64(), json(&fine)["received"].as_u64()), (Some(200), Some(200)));

    let spoil = |socket: &UdpSocket, from, payload: &mut [u8]| {
        payload[0] ^= 1;
        echo(socket, from, payload);
    };
    let spoilt = with_server("127.0.0.1:0", spoil, |target| command(target, &arguments).output().unwrap());
    assert_eq!(spoilt.status.code(), Some(1));
    assert_eq!(json(&spoilt)["corrupted"].as_u64(), Some(200));
    assert!(String::from_utf8_lossy(&spoilt.stderr).contains("200 answers were corrupted"), "{spoilt:?}");

    let silent = |_: &UdpSocket, _, _: &mut [u8]| {};
    let lost = with_server("127.0.0.1:0", silent, |target| command(target, &arguments).output().unwrap());
    assert_eq!((lost.status.code(), json(&lost)["lost"].as_u64()), (Some(1), Some(200)));

    let wrong = command("127.0.0.1:1".parse().unwrap(), &["--rate", "fast"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn the_command_reports_when_it_is_interrupted() {
    let output = with_server("127.0.0.1:0", echo, |target| {
        let mut child = command(target, &["--duration", "600"]).spawn().unwrap();
        // Its progress line says that it is at work.
        let mut progress = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        progress.read_line(&mut line).unwrap();
        assert!(line.contains("answered"), "{line}");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(progress);
        output
    });
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert!(report["sent"].as_u64() > Some(0));
    assert_eq!(report["sent"], report["received"]);
}

#[test]
fn the_ceiling_is_below_what_a_server_answers() {
    // At most twenty answers in ten milliseconds.
    let (mut window, mut answered) = (Instant::now(), 0);
    let slow = |socket: &UdpSocket, from, payload: &mut [u8]| {
        if window.elapsed() > Duration::from_millis(10) {
            (window, answered) = (Instant::now(), 0);
        }
        answered += 1;
        if answered <= 20 {
            echo(socket, from, payload);
        }
    };
    let found = with_server("127.0.0.1:0", slow, |target| {
        let plan = Plan::new(1, 1, 18..=18);
        let mut generator = Generator::new(open(target, &plan));
        let mut load = load(plan, PACKETS);
        load.limits.linger = Duration::from_millis(50);
        let probe = Duration::from_millis(100);
        generator.find_ceiling(&load, probe, &Live::default(), &AtomicBool::new(false)).unwrap()
    });
    assert!(found.rate_pps < 4_000.0, "twenty answers in ten ms are 2,000 pps: {found:?}");
    assert!(found.probes.iter().any(|probe| probe.lost > 0), "{found:?}");
}
