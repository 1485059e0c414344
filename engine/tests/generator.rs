//! The generator end to end over loopback, against servers that misbehave in a known way: what it counts must be exactly what
//! they did.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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
