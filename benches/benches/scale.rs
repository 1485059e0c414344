//! What a packet costs with 10,000 rules and 100,000 neighbours, beside one of each:
//! `cargo bench -p volley-bench --features dpdk --bench scale`.
//!
//! *Rules*: packets are steered in software, as over DPDK, parsed, and echoed. They are for all ports in no order, each for the last of
//! the four addresses its rule has, and no two of a thousand rules have the same ones.
//! *Neighbours*: datagrams are sent to peers never heard from, in no order, over a port without a kernel.
//! *Both*: one packet of either kind.
//!
//! Rounds are interleaved, and a ratio is taken within one; the figure is the median, with the range. Checksums are taken as verified,
//! which makes the ratios larger.

mod echo;

use echo::{Carousel, echo};
use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Instant;
use volley::datagram::{Batch, DatagramPort, Datagrams, Verdicts};
use volley::frame::{BURST, Burst, Ledger, flag};
use volley::net::standalone::{LocalAddress, StandaloneConfig};
use volley::net::{Net, NetConfig, Path};
use volley::port::dpdk::steering::{Steerer, Steering};
use volley::port::{MemoryConfig, MemoryPort, MemoryWire, Port, PortInfo, PortStats};
use volley::time::Now;
use volley_steer::Verdict;
use volley_xdp::{Action, Protocol, Rule, Unbound};

const RULES: u16 = 10_000;
const NEIGHBOURS: u32 = 100_000;
/// Rules with different addresses.
const LISTS: u16 = 1_000;
/// The first rule's port.
const FIRST: u16 = 10_000;
/// What each ratio should be at most.
const WANTED: f64 = 1.5;

fn main() {
    // `cargo test` runs this too, and has no use for figures.
    let (rounds, bursts) =
        if std::env::args().any(|word| word == "--bench") { (31, 4_000) } else { (1, 40) };
    let (mut one_rule, mut rules) = (Steered::net(1), Steered::net(RULES));
    let (mut one_neighbour, mut neighbours) = (Sender::new(1), Sender::new(NEIGHBOURS));
    let mut costs: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        costs[0].push(one_rule.cost(bursts));
        costs[1].push(rules.cost(bursts));
        costs[2].push(one_neighbour.cost(bursts));
        costs[3].push(neighbours.cost(bursts));
    }
    let [one_rule, rules, one_neighbour, neighbours] = costs;
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
    say(&format!("{RULES} rules, received and echoed"), &one_rule, &rules);
    say(&format!("{NEIGHBOURS} neighbours, sent to"), &one_neighbour, &neighbours);
    say("both", &sum(&one_rule, &one_neighbour), &sum(&rules, &neighbours));
}

fn say(what: &str, one: &[f64], many: &[f64]) {
    let ratios: Vec<f64> = many.iter().zip(one).map(|(many, one)| many / one).collect();
    let (low, ratio, high) = middle(&ratios);
    let verdict = if ratio <= WANTED { "met" } else { "missed" };
    println!(
        "{what}: {:.1} ns a packet, {:.1} with one: {ratio:.2} times ({low:.2} to {high:.2}), wanted {WANTED} at most: {verdict}",
        middle(many).1,
        middle(one).1
    );
}

/// The least, the median and the greatest.
fn middle(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// A carousel whose packets are addressed anew each time they come, and steered.
struct Steered {
    carousel: Carousel,
    steerer: Steerer,
    /// Destination address and port.
    sequence: Vec<([u8; 4], u16)>,
    next: usize,
}

/// The addresses of a rule: four, of which packets are for the last.
fn addresses(rule: u16) -> [[u8; 4]; 4] {
    let [high, low] = (rule % LISTS).to_be_bytes();
    [1, 2, 3, 4].map(|host| [10, high, low, host])
}

/// A net layer, with what an echo over it needs.
struct Echo {
    net: Net,
    batch: Batch,
    verdicts: Verdicts,
}

impl Steered {
    fn net(rules: u16) -> Echo {
        let rule = |n: u16| Rule {
            protocol: Protocol::Udp,
            ports: FIRST + n..=FIRST + n,
            addresses: addresses(n).map(|address| std::net::IpAddr::from(address).into()).into(),
            action: Action::Redirect { unbound: Unbound::Pass },
            syn_limit: None,
        };
        let all: Vec<Rule> = (0..rules).map(rule).collect();
        let table = volley_xdp::rule_table(all.iter()).expect("the rules fit the table");
        let to = |n: u32| {
            let n = (n * 7_919 % u32::from(rules)) as u16;
            (addresses(n)[3], FIRST + n)
        };
        let steered = Steered {
            carousel: Carousel::new(60, true),
            steerer: Steering::new(table).steerer(),
            sequence: (0..100_000).map(to).collect(),
            next: 0,
        };
        let port: Box<dyn Port> = Box::new(steered);
        Echo {
            net: Net::new(port, NetConfig::default()),
            batch: Batch::default(),
            verdicts: Verdicts::new(),
        }
    }
}

impl Echo {
    /// Nanoseconds a packet.
    fn cost(&mut self, bursts: u32) -> f64 {
        let begun = Instant::now();
        for _ in 0..bursts {
            assert_eq!(echo(&mut self.net, &mut self.batch, &mut self.verdicts), BURST);
        }
        begun.elapsed().as_nanos() as f64 / (f64::from(bursts) * BURST as f64)
    }
}

impl Port for Steered {
    fn info(&self) -> &PortInfo {
        self.carousel.info()
    }
    fn rx(&mut self, burst: &mut Burst) -> usize {
        let received = self.carousel.rx(burst);
        for frame in burst.iter_mut() {
            let (address, port) = self.sequence[self.next];
            self.next = (self.next + 1) % self.sequence.len();
            let packet = frame.bytes_mut();
            packet[26..30].copy_from_slice(&[10, 200, 0, 1]);
            packet[30..34].copy_from_slice(&address);
            packet[34..36].copy_from_slice(&5_000u16.to_be_bytes());
            packet[36..38].copy_from_slice(&port.to_be_bytes());
            frame.set_flags(flag::CHECKSUM_VERIFIED);
            assert_eq!(self.steerer.steer(frame.bytes()), Verdict::Redirect);
        }
        received
    }
    fn tx(&mut self, burst: &mut Burst) -> usize {
        self.carousel.tx(burst)
    }
    fn flush(&mut self) {}
    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        self.carousel.alloc(burst, want)
    }
    fn free(&mut self, burst: &mut Burst) {
        self.carousel.free(burst);
    }
    fn ledger(&self) -> Ledger {
        self.carousel.ledger()
    }
    fn stats(&self) -> PortStats {
        self.carousel.stats()
    }
    fn stop_rx(&mut self) {}
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

/// The MAC of the port.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Sends to neighbours, of which it knows so many.
struct Sender {
    net: Net,
    wire: MemoryWire,
    /// As many either way: what they cost to read is the app's.
    paths: Vec<Path>,
    next: usize,
}

impl Sender {
    fn new(count: u32) -> Sender {
        let (port, mut wire) =
            MemoryPort::new(&MemoryConfig { mac: Some(OURS), ..MemoryConfig::default() });
        let port: Box<dyn Port> = Box::new(port);
        let address = LocalAddress { address: [10, 0, 0, 1].into(), prefix_len: 8, vlan: None };
        let standalone = StandaloneConfig {
            addresses: vec![address],
            neighbours: NEIGHBOURS as usize,
            ..StandaloneConfig::default()
        };
        let mut net: Net =
            Net::new(port, NetConfig { standalone: Some(standalone), ..NetConfig::default() });
        let mut batch = Batch::default();
        let now = Now { ns: 1, unix_secs: 0 };
        let local = SocketAddr::from(([10, 0, 0, 1], 7777));
        let path = |n: u32| {
            let [_, a, b, c] = (n + 256).to_be_bytes();
            Path::to(0, local, SocketAddr::from(([10, a, b, c], 5000))).expect("one family")
        };
        for n in 0..count {
            assert!(net.send(&path(n), 8, &mut |_| {}).is_err(), "not known yet");
            let [_, a, b, c] = (n + 256).to_be_bytes();
            let (mac, kind) = ([2, 1, 1, a, b, c], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            let frame = [&OURS[..], &mac, &kind, &mac, &[10, a, b, c], &OURS, &[10, 0, 0, 1]].concat();
            wire.inject(0, &frame).expect("a frame is posted");
            net.recv(&mut batch, now);
            net.open(&mut batch, &mut Datagrams::new());
            net.settle(&mut batch, &Verdicts::new());
            net.flush();
            wire.collect(|_| {});
        }
        let any = |n: u64| path((n * 70_001 % u64::from(count)) as u32);
        Sender { net, wire, paths: (0..u64::from(NEIGHBOURS)).map(any).collect(), next: 0 }
    }

    /// Nanoseconds a datagram.
    fn cost(&mut self, bursts: u32) -> f64 {
        let begun = Instant::now();
        for _ in 0..bursts {
            for _ in 0..BURST {
                let path = &self.paths[self.next];
                self.next = (self.next + 1) % self.paths.len();
                self.net.send(path, 22, &mut |room| room.fill(1)).expect("it is known");
            }
            self.net.flush();
            self.wire.collect(|shown| _ = black_box(shown.bytes));
        }
        begun.elapsed().as_nanos() as f64 / (f64::from(bursts) * BURST as f64)
    }
}
