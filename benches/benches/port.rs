//! What a packet costs in a worker over DPDK when no other core is in it:
//! `cargo bench -p volley-bench --features dpdk --bench port`.
//!
//! A burst goes round over net_ring, whose driver moves pointers and nothing else, and is echoed each time: received, steered, parsed,
//! answered, sent. So what is measured is ours but for some 5 ns, and does not depend on what another core does to shared memory,
//! as it does over memif and vhost. Rounds with every checksum verified and with none are interleaved; the figures are the median and
//! the least of them.
//!
//! Huge pages are used when 48 of 2 MiB are free (`sysctl vm.nr_hugepages=48`); on others, looking addresses up takes a third longer.
//!
//! With a number as argument it makes so many turns and says nothing, for an instruction counter.

use std::sync::Arc;
use std::time::Instant;
use volley::app::{Echo, WorkerId};
use volley::datagram::DatagramPort;
use volley::engine::config::{Dpdk as Options, Memory};
use volley::frame::{BURST, Burst};
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig};
use volley::port::Port;
use volley::port::dpdk::{Dpdk, Probed};
use volley::time::Now;
use volley::worker::{Helpers, Mailboxes, Waker, Worker, WorkerConfig};
use volley_xdp::{Action, Protocol, Rule, Unbound};

/// Turns of a round: some milliseconds, so that the scheduler is in few of them.
const TURNS: usize = 2_000;
/// Rounds of each kind.
const ROUNDS: usize = 201;
/// Bytes of a payload: a frame of 64, its check sequence included.
const PAYLOAD: usize = 18;

fn main() {
    let number = std::env::args().find_map(|argument| argument.parse().ok());
    // `cargo test` runs this too, and has no use for figures.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let huge = huge_pages();
    let dpdk = start(huge);
    let mut workers = [false, true].map(|trusting| worker(&dpdk, trusting));
    if let Some(turns) = number {
        go_round(&mut workers[0], turns);
        return;
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (worker, times) in workers.iter_mut().zip(&mut times) {
            let began = Instant::now();
            go_round(worker, TURNS);
            times.push(began.elapsed().as_nanos() as f64 / (TURNS * BURST) as f64);
        }
    }
    println!("{}", if huge { "on huge pages" } else { "not on huge pages" });
    for (name, times) in ["checksums verified", "checksums trusted"].into_iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{name}: {:.2} ns a packet (least {:.2})", times[times.len() / 2], times[0]);
    }
}

fn huge_pages() -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free =
        text.lines().find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse::<u32>().ok());
    free >= Some(48)
}

/// Two rings: EAL starts once, and a packet that goes round on one is not on the other.
fn start(huge: bool) -> Dpdk {
    let rule = Rule {
        protocol: Protocol::Udp,
        ports: 5000..=7777,
        addresses: Vec::new(),
        action: Action::Redirect { unbound: Unbound::Pass },
        syn_limit: None,
    };
    let rules = volley_xdp::rule_table([&rule].into_iter()).expect("the rule is one");
    let options = Options {
        vdev: vec!["net_ring0".into(), "net_ring1".into()],
        memory: if huge { Memory::Huge } else { Memory::NoHuge },
        megabytes: Some(64),
        frames: 2048,
        ..Options::default()
    };
    Probed::new(&options).and_then(|probed| probed.start(&[None], Some(rules))).expect("DPDK starts")
}

/// A worker on one of the rings, with a burst that goes round on it for ever: the echo answers its own answers.
fn worker(dpdk: &Dpdk, trusting: bool) -> Worker<Echo> {
    let mut port = dpdk.port(usize::from(trusting), 0).expect("nobody has that queue");
    if trusting {
        port.trust_checksums();
    }
    let packet =
        Packet::new("10.0.0.2:5000".parse().unwrap(), "10.0.0.1:7777".parse().unwrap(), &[7; PAYLOAD])
            .build();
    let mut burst = Burst::new();
    assert_eq!(port.alloc(&mut burst, BURST), BURST);
    for frame in &mut burst {
        assert!(frame.set_len(packet.len()));
        frame.bytes_mut().copy_from_slice(&packet);
    }
    assert_eq!(port.tx(&mut burst), BURST);
    let port: Box<dyn Port> = Box::new(port);
    let ports: Vec<Box<dyn DatagramPort>> =
        vec![Box::new(Net::<dyn Port>::new(port, NetConfig::default()))];
    let waker = Arc::new(Waker::new(|| {}));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().expect("one of one");
    let mut worker =
        Worker::new(&WorkerConfig::new(WorkerId(0)), Echo, ports, mailboxes, Helpers::new(4, waker));
    worker.start(Now { ns: 1, unix_secs: 0 });
    worker
}

fn go_round(worker: &mut Worker<Echo>, turns: usize) {
    let before = worker.ports()[0].stats().answered;
    for turn in 0..turns {
        worker.turn(Now { ns: 2 + turn as u64, unix_secs: 0 });
    }
    assert_eq!(worker.ports()[0].stats().answered - before, (turns * BURST) as u64);
}
