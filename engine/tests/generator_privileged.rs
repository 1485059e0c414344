//! The generator over AF_XDP, in a lab of its own: needs root.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use volley::generator::af_xdp::{AfXdpLink, OpenError};
use volley::generator::approach::{Approach, ApproachError, Wanted};
use volley::generator::blast;
use volley::generator::live::Live;
use volley::generator::plan::Plan;
use volley::generator::run::Limits;
use volley::generator::schedule::Rate;
use volley::generator::{Generator, Load};
use volley_testlab::{Lab, require_root};

const PORT: u16 = 7777;

/// A kernel-socket echo at the engine's end, for as long as `work` takes; `spoil` may change a payload.
fn with_echo<T: Send>(
    lab: &Lab,
    mut spoil: impl FnMut(u64, &mut [u8]) + Send,
    work: impl FnOnce() -> T + Send,
) -> T {
    let stop = AtomicBool::new(false);
    let socket = lab.engine().run(|| UdpSocket::bind(("::", PORT)).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut buffer, mut seen) = ([0; 2048], 0);
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    spoil(seen, &mut buffer[..len]);
                    seen += 1;
                    socket.send_to(&buffer[..len], from).unwrap();
                }
            }
        });
        let outcome = lab.peer().run(work);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

fn wanted(target: &str, flows: usize) -> Wanted {
    Wanted {
        target: SocketAddr::new(target.parse().unwrap(), PORT),
        interface: None,
        mac: None,
        sources: Vec::new(),
        first_port: 20_000,
        flows,
        longest: 1_000,
    }
}

const PACKETS: u64 = 2_000;

fn load(flows: u32) -> Load {
    let limits = Limits {
        warmup: Duration::ZERO,
        duration: Duration::from_secs(60),
        count: Some(PACKETS),
        linger: Duration::from_millis(500),
    };
    Load { plan: Plan::new(flows, 1, 18..=1_000), rate: Rate::Fixed(2_000.0), burst: 16, limits }
}

fn run(target: &str, flows: u32) -> (volley::generator::session::Outcome, Vec<String>) {
    let mut generator =
        Generator::new(AfXdpLink::open(&wanted(target, flows as usize), None, false).unwrap());
    let outcome = generator.measure(&load(flows), &Live::default(), &AtomicBool::new(false)).unwrap();
    (outcome, generator.link().notes())
}

#[test]
fn af_xdp_packets_come_back_whole_over_both_families_and_all_queues() {
    if !require_root() {
        return;
    }
    for queues in [1, 2] {
        let lab = Lab::with(volley_testlab::LabOptions { queues, ..Default::default() });
        for target in ["10.77.0.1", "fd77::1"] {
            let chosen = Wanted { interface: Some(lab.peer_if().into()), ..wanted(target, 1) };
            let (by_name, by_route) = lab
                .peer()
                .run(|| (Approach::find(&chosen).unwrap(), Approach::find(&wanted(target, 1)).unwrap()));
            assert_eq!(by_name.link, by_route.link);
            assert_eq!(by_route.ends.target_mac, lab.engine_mac());
            let (outcome, notes) = with_echo(&lab, |_, _| {}, || run(target, 16));
            let counts = outcome.counts;
            assert_eq!((counts.sent, counts.received), (PACKETS, PACKETS), "{target}, {queues}: {notes:?}");
            assert_eq!((counts.corrupted, counts.duplicated, counts.stale), (0, 0, 0), "{notes:?}");
        }
    }
}

#[test]
fn af_xdp_a_byte_changed_on_the_way_is_seen() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let spoil = |seen, payload: &mut [u8]| {
        if seen % 100 == 0 {
            let last = payload.len() - 1;
            payload[last] ^= 1;
        }
    };
    let (outcome, notes) = with_echo(&lab, spoil, || run("10.77.0.1", 4));
    assert_eq!(outcome.counts.corrupted, PACKETS / 100, "{notes:?}");
    assert_eq!(outcome.counts.received, PACKETS - PACKETS / 100);
}

#[test]
fn af_xdp_an_address_of_this_host_is_refused_with_the_remedy() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let error = lab.peer().run(|| AfXdpLink::open(&wanted("10.77.0.2", 1), None, false).err().unwrap());
    assert!(matches!(error, OpenError::Approach(ApproachError::Local(_))), "{error}");
    let nowhere = Wanted { interface: Some("no-such-nic".into()), ..wanted("10.77.0.1", 1) };
    let error = lab.peer().run(|| Approach::find(&nowhere).err().unwrap());
    assert!(error.to_string().starts_with("interface no-such-nic"), "{error}");
    let unreachable =
        lab.peer().run(|| AfXdpLink::open(&wanted("192.0.2.1", 1), None, false).err().unwrap());
    assert!(unreachable.to_string().contains("no route to 192.0.2.1"), "{unreachable}");
}

#[test]
fn blast_answers_are_counted_and_everything_is_taken_off_again() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for target in ["10.77.0.1", "fd77::1"] {
        let limits = Limits {
            warmup: Duration::ZERO,
            duration: Duration::from_secs(60),
            // Few enough for the echo's receive buffer.
            count: Some(50),
            linger: Duration::from_millis(500),
        };
        let work = || {
            let approach = Approach::find(&wanted(target, 4)).unwrap();
            blast::run(approach, 18, &limits, &Live::default(), &AtomicBool::new(false)).unwrap()
        };
        let counts = with_echo(&lab, |_, _| {}, work).counts;
        assert_eq!((counts.sent, counts.received), (50, 50), "{target}");
        assert_eq!((counts.lost, counts.corrupted), (0, 0));
    }
    let links = lab.peer().exec(["ip", "link", "show", "dev", lab.peer_if()]);
    assert!(!links.contains("xdp"), "{links}");
}

#[test]
fn blast_ends_on_time_and_when_told() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let forever = Limits {
        warmup: Duration::ZERO,
        duration: Duration::from_secs(3600),
        count: None,
        linger: Duration::ZERO,
    };
    let short =
        Limits { warmup: Duration::from_millis(50), duration: Duration::from_millis(200), ..forever };
    let never = AtomicBool::new(false);
    let (ended, stopped) = lab.peer().run(|| {
        let approach = Approach::find(&wanted("10.77.0.1", 1)).unwrap();
        let ended = blast::run(approach.clone(), 18, &short, &Live::default(), &never).unwrap();
        let (stop, live) = (AtomicBool::new(false), Live::default());
        let stopped = std::thread::scope(|scope| {
            let run = scope.spawn(|| blast::run(approach, 18, &forever, &live, &stop));
            while live.sent() == 0 && !run.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
            run.join().unwrap().unwrap()
        });
        (ended, stopped)
    });
    // Nobody listens, so nothing is answered.
    for outcome in [ended, stopped] {
        assert!(outcome.counts.sent > 0);
        assert_eq!((outcome.counts.received, outcome.counts.lost), (0, outcome.counts.sent));
    }
}
