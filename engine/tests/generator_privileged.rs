//! The generator over AF_XDP, in a lab of its own: needs root.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use volley::generator::af_xdp::{AfXdpLink, OpenError};
use volley::generator::approach::{ApproachError, Wanted};
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
    let mut generator = Generator::new(AfXdpLink::open(&wanted(target, flows as usize), None).unwrap());
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
    let error = lab.peer().run(|| AfXdpLink::open(&wanted("10.77.0.2", 1), None).err().unwrap());
    assert!(matches!(error, OpenError::Approach(ApproachError::Local(_))), "{error}");
    let unreachable = lab.peer().run(|| AfXdpLink::open(&wanted("192.0.2.1", 1), None).err().unwrap());
    assert!(unreachable.to_string().contains("no route to 192.0.2.1"), "{unreachable}");
}
