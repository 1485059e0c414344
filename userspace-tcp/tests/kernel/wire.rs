//! The wire between the stack and the kernel: a TUN device, and everything that can happen to packets.

use crate::forge::{self, Flow};
use crate::ip::{Packet, Packets};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant as Clock};
use volley_tcp::{Config, Instant, Stack};
use volley_testlab::{Kind, Tun};

pub const KERNEL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1));
pub const KERNEL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1));
pub const OURS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));
pub const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2));

/// Packets remembered for who looks for what went wrong.
const PASSED: usize = 64;

/// Probabilities, for each packet of either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: f64,
    pub duplicate: f64,
    pub hold: f64,
    /// A bit is turned over, which the checksum must find.
    pub corrupt: f64,
    /// Resets, SYNs and data of somebody who knows the addresses, and more than he should of the sequence numbers.
    pub forge: f64,
}

/// What has happened on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub packets: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub held: u64,
    pub corrupted: u64,
    pub forged: u64,
    pub too_big: u64,
}

pub struct Wire {
    pub stack: Stack,
    pub weather: Weather,
    pub seen: Seen,
    /// The largest packet that fits; larger ones are answered with an ICMP error.
    pub path_mtu: usize,
    tun: Tun,
    began: Clock,
    rng: SmallRng,
    held: BTreeMap<(Clock, u64), (Way, Vec<u8>)>,
    flows: HashMap<(bool, u16, u16), Flow>,
    buffer: Vec<u8>,
    out: Packets,
    /// The last packets that passed.
    passed: VecDeque<(Duration, Way, Vec<u8>)>,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToUs,
    ToKernel,
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command}: {status:?}");
}

impl Wire {
    /// In the namespace of this thread, which must be fresh. `sysctls` as `sysctl -w` takes them.
    pub fn new(seed: u64, config: Config, sysctls: &[String]) -> Wire {
        let tun = Tun::new("peer", Kind::Tun).unwrap();
        run("ip link set lo up");
        run(&format!("ip link set peer mtu {} gso_max_segs 1 up", config.mtu));
        run("ip address add 10.78.0.1/24 dev peer");
        if config.mtu >= 1280 {
            run("ip address add fd78::1/64 dev peer nodad");
        }
        for setting in sysctls {
            let status = Command::new("sysctl").args(["-q", "-w", setting]).status();
            assert!(status.as_ref().is_ok_and(|status| status.success()), "{setting}: {status:?}");
        }
        let began = Clock::now();
        let mut entropy = [0; 64];
        SmallRng::seed_from_u64(seed).fill(&mut entropy[..]);
        Wire {
            stack: Stack::new(config, &entropy, Instant::from_nanos(0)),
            weather: Weather::default(),
            seen: Seen::default(),
            path_mtu: config.mtu.into(),
            tun,
            began,
            rng: SmallRng::seed_from_u64(seed ^ 0x3117),
            held: BTreeMap::new(),
            flows: HashMap::new(),
            buffer: vec![0; 1 << 16],
            out: Packets::default(),
            passed: VecDeque::with_capacity(PASSED),
        }
    }

    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.began.elapsed().as_nanos() as u64)
    }

    /// Carries what waits to be carried, once each way. Waits up to `patience` when there is nothing.
    pub fn turn(&mut self, patience: Duration) {
        let mut arrived = Vec::new();
        while arrived.len() < 64
            && let Ok(Some(len)) = self.tun.receive(&mut self.buffer)
        {
            let packet = self.buffer[..len].to_vec();
            self.carry(Way::ToUs, packet, &mut arrived);
        }
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= Clock::now()) {
            let (way, packet) = entry.remove();
            self.deliver(way, packet, &mut arrived);
        }
        if arrived.is_empty() && !self.stack.wants_transmit() {
            let next = self.stack.next_deadline().map_or(patience, |at| at.since(self.now()));
            // Rounded up to whole milliseconds, as poll wants them.
            let wait = next.min(patience).as_micros().div_ceil(1000) as u16;
            let _ = poll(&mut [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)], PollTimeout::from(wait));
        }
        let now = self.now();
        let packets: Vec<_> = arrived.iter().filter_map(|bytes| Packet::parse(bytes)).collect();
        for message in packets.iter().filter_map(Packet::icmp) {
            self.stack.icmp(&message);
        }
        let segments: Vec<_> = packets.iter().filter_map(Packet::segment).collect();
        drop(self.stack.receive_burst(now, &segments));
        self.stack.timers(now);
        // Sometimes there is no room for all of it.
        self.out.limit = self.rng.random_bool(0.1).then(|| self.rng.random_range(0..4));
        self.stack.transmit(now, &mut self.out);
        let mut back = Vec::new();
        for packet in std::mem::take(&mut self.out.queued) {
            self.carry(Way::ToKernel, packet, &mut back);
        }
        // Errors about what we sent.
        for message in back.iter().filter_map(|bytes| Packet::parse(bytes)?.icmp()) {
            self.stack.icmp(&message);
        }
        self.forge();
    }

    /// One packet's fate. What arrives for us goes to `arrived`.
    fn carry(&mut self, way: Way, mut packet: Vec<u8>, arrived: &mut Vec<Vec<u8>>) {
        if !forge::observe(&mut self.flows, way, &packet) {
            return self.deliver(way, packet, arrived); // not TCP
        }
        self.seen.packets += 1;
        if packet.len() > self.path_mtu {
            self.seen.too_big += 1;
            let error = forge::too_big(&packet, self.path_mtu as u16);
            match way {
                Way::ToUs => drop(self.tun.send(&error)),
                Way::ToKernel => arrived.push(error),
            }
            return;
        }
        if self.rng.random_bool(self.weather.loss) {
            self.seen.lost += 1;
            return;
        }
        if self.rng.random_bool(self.weather.duplicate) {
            self.seen.duplicated += 1;
            self.deliver(way, packet.clone(), arrived);
        }
        if self.rng.random_bool(self.weather.corrupt) {
            self.seen.corrupted += 1;
            // In TCP's part: in IP's it would only be lost.
            let first = if packet[0] >> 4 == 4 { 20 } else { 40 };
            let at = self.rng.random_range(first..packet.len());
            packet[at] ^= 1 << self.rng.random_range(0..8);
        }
        if self.rng.random_bool(self.weather.hold) {
            self.seen.held += 1;
            let due = Clock::now() + Duration::from_micros(self.rng.random_range(100..30_000));
            self.held.insert((due, self.seen.held), (way, packet));
            return;
        }
        self.deliver(way, packet, arrived);
    }

    /// The last packets that passed, a line each.
    pub fn last_packets(&self) -> String {
        let line = |(at, way, packet): &(Duration, Way, Vec<u8>)| {
            format!("{:10.6} {}\n", at.as_secs_f64(), forge::describe(*way, packet))
        };
        self.passed.iter().map(line).collect()
    }

    fn note(&mut self, way: Way, packet: &[u8]) {
        if self.passed.len() == PASSED {
            self.passed.pop_front();
        }
        self.passed.push_back((self.began.elapsed(), way, packet[..packet.len().min(100)].to_vec()));
    }

    fn deliver(&mut self, way: Way, packet: Vec<u8>, arrived: &mut Vec<Vec<u8>>) {
        self.note(way, &packet);
        match way {
            Way::ToUs => arrived.push(packet),
            // A full queue of the device is loss.
            Way::ToKernel => drop(self.tun.send(&packet)),
        }
    }

    /// Sometimes somebody else sends in the name of a flow.
    fn forge(&mut self) {
        if !self.rng.random_bool(self.weather.forge) || self.flows.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.flows.len());
        let Some((key, flow)) = self.flows.iter().nth(at).filter(|(_, flow)| flow.is_open()) else {
            return;
        };
        let (way, packet) = forge::forged(*key, flow, &mut self.rng);
        self.seen.forged += 1;
        self.note(way, &packet);
        match way {
            Way::ToUs => {
                let now = self.now();
                let segment = Packet::parse(&packet).and_then(|packet| packet.segment());
                drop(self.stack.receive_burst(now, &[segment.expect("a segment")]));
            }
            Way::ToKernel => drop(self.tun.send(&packet)),
        }
    }
}
