//! A bad link: packets lost, duplicated, delayed and so reordered, with probabilities that can be changed at any time.
//!
//! ```text
//!   engine ◄── veth ── [egress] client     AF_XDP takes frames before the engine's end can touch them, and sends past its
//!   engine ─── veth ──► [ingress] client   qdisc: so both directions are impaired at the client's end
//! ```
//!
//! A classifier (`xdp-prog/ebpf/src/bin/impair.rs`) decides packet by packet. What is to be late it redirects to a TAP device
//! of this process, which holds each frame for the configured time and sends it back; so a packet is overtaken by those behind
//! it, and a link that holds all of them has a delay. It is no emulator: no queue, no bottleneck, no bursts of loss, and a
//! delay is kept only as well as a busy machine wakes a thread.
//!
//! A kernel's TCP hands the classifier super-packets also where all offloads are off (they are cut behind it), so an impaired
//! interface allows one segment in each. That holds for connections made from then on: impair first, connect then.

use crate::netns::Netns;
use crate::tun::{Kind, Tun};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, tc};
use aya::util::KernelVersion;
use aya::{Ebpf, include_bytes_aligned};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Built by `xdp-prog/build-object` and committed, as the engine's own.
static OBJECT: &[u8] = include_bytes_aligned!("../../../xdp-prog/object/impair.bpf.o");

/// The first kernel where a classifier hangs on a link instead of a qdisc.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// Frames that are held at most; what comes beyond is lost, as in a queue that is full.
const HELD_MAX: usize = 8192;
/// Longest sleep of the thread that holds frames: how late it sees that it is to end.
const NAP: Duration = Duration::from_millis(20);

/// Which packets, seen from the client, at whose end all of this happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    FromClient,
    /// What the client receives.
    ToClient,
}

/// What happens to packets: probabilities, 0 to 1, each drawn on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Lost.
    pub loss: f64,
    /// Arrives twice.
    pub duplicate: f64,
    /// Held back by [`Impair::set_delay`] and thereby overtaken.
    pub reorder: f64,
}

/// What has happened to the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IP packets looked at, without clones and those that were held already.
    pub seen: u64,
    /// Lost.
    pub lost: u64,
    /// Sent on twice.
    pub duplicated: u64,
    /// Held back.
    pub held: u64,
}

/// An interface that is impaired until this is dropped.
pub struct Impair {
    netns: Netns,
    name: String,
    /// Taken by `drop`, inside the namespace.
    object: Option<Ebpf>,
    plans: Array<MapData, [u32; 5]>,
    counts: PerCpuArray<MapData, [u64; 4]>,
    interface: u32,
    helper: u32,
    delay_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impair {
    /// Takes an interface in hand, harmlessly at first. In its namespace a device of the name `helper` comes up beside it.
    ///
    /// # Panics
    /// When programs cannot be loaded or attached, or the device cannot be made.
    pub fn attach(netns: &Netns, interface: &str, helper: &str) -> Impair {
        netns.run(|| Self::attach_here(netns, interface, helper))
    }

    fn attach_here(netns: &Netns, interface: &str, helper: &str) -> Impair {
        let tap =
            Tun::new(helper, Kind::Tap).unwrap_or_else(|error| panic!("TAP device {helper}: {error}"));
        let mac = netns.mac(interface).map(|byte| format!("{byte:02x}")).join(":");
        // No address of any kind, or it would solicit.
        netns.exec([
            "ip",
            "link",
            "set",
            helper,
            "address",
            &mac,
            "mtu",
            "9200",
            "addrgenmode",
            "none",
            "up",
        ]);
        netns.exec(["ip", "link", "set", interface, "gso_max_segs", "1"]);
        let index = |name: &str| nix::net::if_::if_nametoindex(name).expect(name);
        let (interface_index, helper_index) = (index(interface), index(helper));

        let mut object = Ebpf::load(OBJECT).expect("impair.bpf.o loads: CAP_BPF and CAP_NET_ADMIN");
        let plans = object.take_map("impair_plans").expect("map").try_into().expect("an array");
        let counts = object.take_map("impair_counts").expect("map").try_into().expect("an array per CPU");
        let (delay_us, stop) = (Arc::new(AtomicU64::new(2_000)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (delay_us, stop) = (delay_us.clone(), stop.clone());
            move || hold(&tap, &delay_us, &stop)
        });
        let mut impair = Impair {
            netns: netns.clone(),
            name: interface.to_owned(),
            object: None,
            plans,
            counts,
            interface: interface_index,
            helper: helper_index,
            delay_us,
            stop,
            thread: Some(thread),
        };
        impair.set_both(Impairment::default());
        for (program, device, side) in [
            ("impair_return", helper, TcAttachType::Ingress),
            ("impair_ingress", interface, TcAttachType::Ingress),
            ("impair_egress", interface, TcAttachType::Egress),
        ] {
            if KernelVersion::current().is_ok_and(|kernel| kernel < TCX_SINCE) {
                // It may be there already: the second program of the interface finds it.
                let _ = tc::qdisc_add_clsact(device);
            }
            let program: &mut SchedClassifier =
                object.program_mut(program).expect(program).try_into().expect("a classifier");
            program.load().unwrap_or_else(|error| panic!("impair.bpf.o: {error:?}"));
            program.attach(device, side).unwrap_or_else(|error| panic!("{device}: {error:?}"));
        }
        impair.object = Some(object);
        impair
    }

    /// From now on, for the packets of one direction.
    ///
    /// # Panics
    /// When a probability is none, or the map cannot be written.
    pub fn set(&mut self, direction: Direction, impairment: Impairment) {
        let plan = [
            chance(impairment.loss),
            chance(impairment.duplicate),
            chance(impairment.reorder),
            self.interface,
            self.helper,
        ];
        self.plans.set(direction as u32, plan, 0).expect("a map of two");
    }

    /// From now on, for the packets of both directions.
    ///
    /// # Panics
    /// As [`Impair::set`].
    pub fn set_both(&mut self, impairment: Impairment) {
        self.set(Direction::FromClient, impairment);
        self.set(Direction::ToClient, impairment);
    }

    /// How long packets are held that are; 2 ms at first.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// What has happened so far.
    ///
    /// # Panics
    /// When the map cannot be read.
    pub fn counts(&self, direction: Direction) -> Counts {
        let cpus = self.counts.get(&(direction as u32), 0).expect("a map of two");
        cpus.iter().fold(Counts::default(), |sum, [seen, lost, duplicated, held]| Counts {
            seen: sum.seen + seen,
            lost: sum.lost + lost,
            duplicated: sum.duplicated + duplicated,
            held: sum.held + held,
        })
    }
}

impl Debug for Impair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Impair")
            .field("netns", &self.netns)
            .field("interface", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Impair {
    fn drop(&mut self) {
        // On older kernels a filter is taken off by the name of its interface, which means something only in there. Where the
        // namespace has gone first, so has the filter.
        if self.netns.path().exists() {
            let object = self.object.take();
            self.netns.run(move || drop(object));
            // The kernel's own default (GSO_MAX_SEGS); a failure leaves a slower lab and no more.
            let _ = self
                .netns
                .command("ip")
                .args(["link", "set", &self.name, "gso_max_segs", "65535"])
                .status();
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A probability as the program reads it: times 2³², all ones for certainty.
fn chance(probability: f64) -> u32 {
    assert!((0.0..=1.0).contains(&probability), "a probability is 0 to 1, not {probability}");
    (probability * 2f64.powi(32)) as u32 // saturates
}

/// Holds what comes from the device, and sends it back.
fn hold(tap: &Tun, delay_us: &AtomicU64, stop: &AtomicBool) {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let wait =
            held.front().map_or(NAP, |(due, _)| due.saturating_duration_since(Instant::now()).min(NAP));
        // Rounded up, or the last millisecond would be spent spinning.
        let wait = PollTimeout::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(tap.as_fd(), PollFlags::POLLIN)], wait);
        let due = Instant::now() + Duration::from_micros(delay_us.load(Ordering::Relaxed));
        // An error means that the device has gone with its namespace: nothing comes any more.
        while let Ok(Some(len)) = tap.receive(&mut buffer) {
            if held.len() < HELD_MAX {
                held.push_back((due, buffer[..len].to_vec()));
            }
        }
        let now = Instant::now();
        // A delay that was shortened lets later frames out first only once those before them are due: still in order.
        while held.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, frame)) = held.pop_front() {
                let _ = tap.send(&frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, require_root};
    use std::io::{Read, Write};
    use std::net::UdpSocket;

    const PACKETS: u32 = 2_000;

    /// Sends numbered datagrams from the client and back by the other end; what arrived at each, in order.
    fn exchange(lab: &Lab) -> (Vec<u32>, Vec<u32>) {
        // Any port: a child that another test is just starting may still hold a socket of the last exchange.
        let at = |netns: &Netns, address: &str| {
            let socket = netns.run(|| UdpSocket::bind(address).unwrap());
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket
        };
        let there = at(lab.engine(), "10.77.0.1:0");
        let here = at(lab.peer(), "10.77.0.2:0");
        let one_way = |from: &UdpSocket, to: &UdpSocket| {
            let mut got = Vec::new();
            let receive = |got: &mut Vec<u32>| {
                let mut number = [0; 4];
                let received = to.recv(&mut number).is_ok();
                if received {
                    got.push(u32::from_be_bytes(number));
                }
                received
            };
            let address = to.local_addr().unwrap();
            for number in 0..PACKETS {
                from.send_to(&number.to_be_bytes(), address).unwrap();
                // A socket holds some hundred small datagrams: take them out while there are more to come.
                if number % 50 == 49 {
                    to.set_nonblocking(true).unwrap();
                    while receive(&mut got) {}
                    to.set_nonblocking(false).unwrap();
                }
            }
            while receive(&mut got) {}
            got
        };
        let forth = one_way(&here, &there);
        (forth, one_way(&there, &here))
    }

    fn in_order(numbers: &[u32]) -> bool {
        numbers.is_sorted()
    }

    #[test]
    fn packets_are_lost_duplicated_and_reordered_as_asked_in_either_direction() {
        if !require_root() {
            return;
        }
        let lab = Lab::new(1);
        let mut impair = lab.impair();
        let all: Vec<u32> = (0..PACKETS).collect();
        assert_eq!(exchange(&lab), (all.clone(), all.clone()));

        impair.set(Direction::FromClient, Impairment { loss: 0.1, ..Impairment::default() });
        let (forth, back) = exchange(&lab);
        // Three hundred are lost with a probability of 10^-12, and a hundred.
        assert!((1_700..1_900).contains(&forth.len()) && in_order(&forth), "{}", forth.len());
        assert_eq!(back, all);
        // The namespaces solicit routers, too.
        let strays = 0..20;
        let counted = impair.counts(Direction::FromClient).lost;
        assert!(strays.contains(&(counted + forth.len() as u64 - u64::from(PACKETS))), "{counted}");

        impair.set(Direction::FromClient, Impairment::default());
        impair.set(Direction::ToClient, Impairment { duplicate: 0.5, ..Impairment::default() });
        let (forth, back) = exchange(&lab);
        assert_eq!(forth, all);
        assert!((2_700..3_300).contains(&back.len()), "{}", back.len());
        let mut distinct = back.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, all);
        let counted = impair.counts(Direction::ToClient).duplicated;
        assert!(strays.contains(&(counted + u64::from(PACKETS) - back.len() as u64)), "{counted}");

        impair.set_both(Impairment { reorder: 0.1, ..Impairment::default() });
        for mut got in <[Vec<u32>; 2]>::from(exchange(&lab)) {
            assert!(!in_order(&got));
            got.sort_unstable();
            assert_eq!(got, all);
        }
        for direction in [Direction::FromClient, Direction::ToClient] {
            assert!((100..320).contains(&impair.counts(direction).held), "{:?}", impair.counts(direction));
        }

        impair.set_both(Impairment { loss: 1.0, ..Impairment::default() });
        assert_eq!(exchange(&lab), (vec![], vec![]));
        drop(impair);
        assert_eq!(exchange(&lab), (all.clone(), all));
        // Nothing is left but the lab itself.
        assert!(!lab.peer().exec(["ip", "-brief", "link"]).contains(&format!("{}i", lab.name())));
    }

    /// What the namespace's kernel counts as sent again.
    fn retransmitted(ns: &crate::Netns) -> u64 {
        let snmp = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
        let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
        names.zip(values).find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
    }

    /// A kernel that is told of what its own interface drops lowers its window, and has nothing to send again.
    #[test]
    fn a_kernel_that_sends_does_not_know_what_is_lost() {
        if !require_root() {
            return;
        }
        let lab = Lab::new(1);
        let mut impair = lab.impair();
        for (direction, sender, receiver, to) in [
            (Direction::FromClient, lab.peer(), lab.engine(), "10.77.0.1:0"),
            (Direction::ToClient, lab.engine(), lab.peer(), "10.77.0.2:0"),
        ] {
            let listener = receiver.run(|| std::net::TcpListener::bind(to).unwrap());
            let at = listener.local_addr().unwrap();
            let mut stream = sender.run(|| std::net::TcpStream::connect(at).unwrap());
            let mut other = listener.accept().unwrap().0;
            other.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
            let before = (retransmitted(sender), impair.counts(direction).lost);
            impair.set(direction, Impairment { loss: 0.05, ..Impairment::default() });
            let writer = std::thread::spawn(move || stream.write_all(&vec![7; 2_000_000]).unwrap());
            let mut received = Vec::new();
            other.read_to_end(&mut received).unwrap();
            writer.join().unwrap();
            impair.set(direction, Impairment::default());
            assert_eq!(received.len(), 2_000_000);
            let lost = impair.counts(direction).lost - before.1;
            let again = retransmitted(sender) - before.0;
            // Not every loss is one of data, and offloads make one packet of many segments.
            assert!(lost > 0 && again >= lost / 2, "{direction:?}: {lost} lost, {again} sent again");
        }
    }

    #[test]
    fn a_link_that_holds_every_packet_has_a_delay() {
        if !require_root() {
            return;
        }
        let lab = Lab::new(1);
        let mut impair = lab.impair();
        impair.set_delay(Duration::from_millis(40));
        impair.set_both(Impairment { reorder: 1.0, ..Impairment::default() });
        let there = lab.engine().run(|| UdpSocket::bind("10.77.0.1:0").unwrap());
        let here = lab.peer().run(|| UdpSocket::bind("10.77.0.2:0").unwrap());
        for socket in [&there, &here] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        let began = Instant::now();
        for (from, to) in [(&here, &there), (&there, &here)] {
            from.send_to(b"late", to.local_addr().unwrap()).unwrap();
            assert_eq!(to.recv(&mut [0; 16]).unwrap(), 4);
        }
        assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    }
}
