//! AF_XDP ports over a real veth pair, in network namespaces of their own. Needs root.
#![cfg(target_os = "linux")]

mod checksum;
mod redirect;
mod standalone;

use redirect::Redirect;
use std::time::{Duration, Instant};
use volley::frame::{BURST, Burst, flag};
use volley::port::Port;
use volley::port::af_xdp::{AfXdp, AfXdpConfig, AfXdpError, ZeroCopy};
use volley_testlab::{Lab, LabOptions, Netns, require_root};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// An ethertype no stack answers to (IEEE: local experimental), so nothing but these tests' packets is on the wire.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A port at one end of the lab, with the program that feeds it.
struct End {
    port: AfXdp,
    redirect: Redirect,
}

impl End {
    fn open(netns: &Netns, config: &AfXdpConfig) -> End {
        End::try_open(netns, config).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_open(netns: &Netns, config: &AfXdpConfig) -> Result<End, AfXdpError> {
        netns.run(|| {
            let port = AfXdp::open(config)?;
            let redirect = Redirect::attach(&config.interface);
            port.sockets().for_each(|(queue, socket)| redirect.bind(queue, socket));
            Ok(End { port, redirect })
        })
    }

    /// Receives a burst without what is not ours (router solicitations of the stack behind the wire).
    fn receive(&mut self, burst: &mut Burst) {
        self.port.rx(burst);
        let mut foreign = Burst::new();
        let mut ours = Burst::new();
        let mut inside = false;
        for frame in burst.drain(..) {
            let continues = inside;
            inside = frame.has(flag::MORE);
            match continues || frame.bytes().get(12..14) == Some(&ETHERTYPE) {
                true => ours.push(frame),
                false => foreign.push(frame),
            }
        }
        self.port.free(&mut foreign);
        burst.extend(ours);
    }

    /// Sends back what arrived.
    fn echo(&mut self) -> usize {
        let mut burst = Burst::new();
        self.receive(&mut burst);
        let echoed = self.port.tx(&mut burst);
        self.port.free(&mut burst);
        self.port.flush();
        echoed
    }

    /// Sends packets of `len` bytes with the numbers `numbers` on `queue`; returns how many were accepted.
    fn send(&mut self, queue: u16, numbers: std::ops::Range<u32>, len: usize) -> usize {
        let mut burst = Burst::new();
        self.port.alloc(&mut burst, numbers.len().min(BURST));
        for (frame, number) in burst.iter_mut().zip(numbers) {
            frame.set_queue(queue);
            assert!(frame.set_len(len));
            let bytes = frame.bytes_mut();
            bytes[..6].fill(0xff);
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            bytes[12..14].copy_from_slice(&ETHERTYPE);
            bytes[14..18].copy_from_slice(&number.to_be_bytes());
            bytes[18..].fill(number as u8);
        }
        let sent = self.port.tx(&mut burst);
        self.port.free(&mut burst);
        self.port.flush();
        sent
    }

    /// Takes what arrived and returns each packet's number, having checked its bytes.
    fn numbers(&mut self, len: usize) -> Vec<u32> {
        let mut burst = Burst::new();
        self.receive(&mut burst);
        let numbers = burst.iter().map(|frame| {
            let bytes = frame.bytes();
            let number = u32::from_be_bytes(bytes[14..18].try_into().unwrap());
            assert_eq!(bytes.len(), len);
            assert!(bytes[18..].iter().all(|byte| *byte == number as u8), "packet {number} is damaged");
            number
        });
        let numbers = numbers.collect();
        self.port.free(&mut burst);
        self.port.flush();
        numbers
    }

    /// Waits until nothing is under way, and asserts that every frame is in its place.
    fn settle(&mut self) {
        wait(|| {
            self.port.flush();
            let ledger = self.port.ledger();
            assert!(ledger.balances(), "{ledger}");
            ledger.kernel_tx == 0
        });
        let (ledger, stats) = (self.port.ledger(), self.port.stats());
        assert_eq!((ledger.app, ledger.held, ledger.abandoned), (0, 0, 0), "{ledger}");
        assert_eq!(stats.tx_frames, stats.tx_completed, "{stats:?}");
        assert_eq!(stats.invalid_descriptors, 0, "{stats:?}");
    }
}

/// Repeats `step` until it says true, at most [`PATIENCE`].
#[track_caller]
fn wait(mut step: impl FnMut() -> bool) {
    let began = Instant::now();
    while !step() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

fn config(interface: &str, queues: &[u16]) -> AfXdpConfig {
    AfXdpConfig::new(interface, queues)
}

/// Both ends of a lab, one port each.
fn pair(lab: &Lab, queues: &[u16]) -> (End, End) {
    let engine = End::open(lab.engine(), &config(lab.engine_if(), queues));
    let peer = End::open(lab.peer(), &config(lab.peer_if(), queues));
    (engine, peer)
}

/// Sends `total` packets from `peer` on `queue` and asserts that `engine` echoes each exactly once.
fn echo_all(engine: &mut End, peer: &mut End, queue: u16, total: u32, len: usize) {
    let mut seen = vec![false; total as usize];
    let (mut sent, mut back) = (0, 0);
    wait(|| {
        // At most a few bursts under way, so that nothing overruns.
        if sent < total && sent - back < 256 {
            sent += peer.send(queue, sent..total.min(sent + 32), len) as u32;
        }
        engine.echo();
        for number in peer.numbers(len) {
            assert!(!std::mem::replace(&mut seen[number as usize], true), "packet {number} twice");
            back += 1;
        }
        back == total
    });
    engine.settle();
    peer.settle();
}

#[test]
fn one_queue_echoes_every_packet_once() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (mut engine, mut peer) = pair(&lab, &[0]);
    echo_all(&mut engine, &mut peer, 0, 5_000, 60);
    assert_eq!(engine.port.stats().tx_frames, 5_000);
    assert!(!engine.port.is_zero_copy() && engine.port.info().name.ends_with("queue 0 (copy)"));
}

#[test]
fn several_queues_over_one_umem_each_answer_on_their_own() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(4);
    let (mut engine, mut peer) = pair(&lab, &[3, 0, 1]);
    for queue in [0, 1, 3] {
        // The peer's socket of that queue is the only one the answer reaches.
        echo_all(&mut engine, &mut peer, queue, 1_000, 200);
    }
    // All at once, fairly shared.
    let mut back = [0u32; 4];
    let mut sent = 0;
    wait(|| {
        if sent < 3_000 && back.iter().sum::<u32>() + 256 > sent {
            sent += [0, 1, 3].map(|queue| peer.send(queue, 0..16, 64) as u32).iter().sum::<u32>();
        }
        engine.echo();
        let mut burst = Burst::new();
        peer.receive(&mut burst);
        burst.iter().for_each(|frame| back[usize::from(frame.queue())] += 1);
        peer.port.free(&mut burst);
        peer.port.flush();
        sent >= 3_000 && back.iter().sum::<u32>() == sent
    });
    assert_eq!((back[0], back[1], back[2], back[3]), (sent / 3, sent / 3, 0, sent / 3));
    engine.settle();
    peer.settle();
    assert_eq!(engine.port.info().queues, [3, 0, 1]);
    assert!(engine.port.info().name.ends_with("queues 0-1,3 (copy)"), "{}", engine.port.info().name);
}

#[test]
fn jumbo_packets_travel_as_whole_chains() {
    if !require_root() {
        return;
    }
    let lab = Lab::with(LabOptions { mtu: 9000, ..LabOptions::default() });
    for chunk in [2048, 4096] {
        let open = |netns: &Netns, interface: &str| {
            let mut config = config(interface, &[0]);
            config.chunk = chunk;
            End::open(netns, &config)
        };
        let (mut engine, mut peer) = (open(lab.engine(), lab.engine_if()), open(lab.peer(), lab.peer_if()));
        assert_eq!(engine.port.info().max_segments, 17);
        let room = chunk as usize - 256;
        for len in [60, room, room + 1, 2 * room, 9014] {
            let mut burst = Burst::new();
            let parts = len.div_ceil(room);
            assert_eq!(peer.port.alloc(&mut burst, parts), parts);
            for (n, frame) in burst.iter_mut().enumerate() {
                assert!(frame.set_len(room.min(len - n * room)));
                frame.bytes_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = (n * 7 + at) as u8);
                frame.set_flags(if n + 1 < parts { flag::MORE } else { 0 });
            }
            burst[0].bytes_mut()[12..14].copy_from_slice(&ETHERTYPE);
            let packet = |burst: &Burst| burst.iter().flat_map(|f| f.bytes().to_vec()).collect::<Vec<u8>>();
            let original = packet(&burst);
            assert_eq!(original.len(), len);
            assert_eq!(peer.port.tx(&mut burst), parts);
            let mut back = Burst::new();
            wait(|| {
                peer.port.flush();
                engine.echo();
                peer.receive(&mut back);
                !back.is_empty()
            });
            assert!(packet(&back) == original, "{len} bytes came back changed");
            let more = back.iter().filter(|frame| frame.has(flag::MORE)).count();
            assert_eq!(more, back.len() - 1, "one chain, delivered whole");
            peer.port.free(&mut back);
        }
        engine.settle();
        peer.settle();
        assert_eq!(engine.port.stats().chains_dropped, 0);
    }
}

#[test]
fn overload_drops_are_counted_and_all_recovers() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut small = config(lab.engine_if(), &[0]);
    (small.frames, small.tx_reserve, small.rx_ring) = (512, 64, 128);
    let mut engine = End::open(lab.engine(), &small);
    let mut peer = End::open(lab.peer(), &config(lab.peer_if(), &[0]));

    // Nobody takes anything out: the receive ring fills.
    let blast = |peer: &mut End, count: u32| {
        let mut sent = 0;
        wait(|| {
            sent += peer.send(0, 0..BURST as u32, 60) as u32;
            sent >= count
        });
        peer.settle();
    };
    blast(&mut peer, 2_000);
    assert!(engine.port.stats().rx_ring_full > 0, "{:?}", engine.port.stats());

    // The app keeps every frame: no frame is left to receive into, but there is the reserve to send from.
    let mut kept: Vec<Burst> = Vec::new();
    wait(|| {
        let mut burst = Burst::new();
        engine.port.rx(&mut burst);
        engine.port.flush();
        if !burst.is_empty() {
            kept.push(burst);
        }
        blast(&mut peer, 64);
        engine.port.stats().fill_ring_empty > 0 && engine.port.ledger().kernel_rx == 0
    });
    let ledger = engine.port.ledger();
    assert!(ledger.balances() && ledger.free == 64 && ledger.kernel_rx == 0, "{ledger}");
    assert_eq!(engine.send(0, 0..64, 60), 64, "the reserve can be sent from");
    kept.iter_mut().for_each(|burst| engine.port.free(burst));
    engine.port.flush();
    let ledger = engine.port.ledger();
    assert_eq!((ledger.app, ledger.kernel_rx), (0, 448), "{ledger}");

    // What waited is thrown away, then everything works as at first.
    let mut burst = Burst::new();
    wait(|| {
        let count = engine.port.rx(&mut burst);
        engine.port.free(&mut burst);
        engine.port.flush();
        count == 0
    });
    wait(|| peer.numbers(60).is_empty());
    echo_all(&mut engine, &mut peer, 0, 2_000, 60);
}

#[test]
fn a_queue_that_is_still_bound_is_waited_for_within_a_bound() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let mut both = config(lab.engine_if(), &[0, 1]);
    both.bind_patience = Duration::from_millis(50);
    let first = End::open(lab.engine(), &config(lab.engine_if(), &[1]));
    let error = lab.engine().run(|| AfXdp::open(&both)).map(|_| ()).unwrap_err();
    assert!(matches!(error, AfXdpError::QueueBusy { queue: 1, waited_ms: 50.., .. }), "{error}");

    both.bind_patience = PATIENCE;
    let (mut engine, mut peer) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.engine().run(|| AfXdp::open(&both).unwrap()));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished(), "it waits for the queue");
        let End { port, redirect } = first;
        drop(port);
        let port = waiting.join().unwrap();
        port.sockets().for_each(|(queue, socket)| redirect.bind(queue, socket));
        (End { port, redirect }, End::open(lab.peer(), &config(lab.peer_if(), &[0, 1])))
    });
    echo_all(&mut engine, &mut peer, 1, 500, 60);
    echo_all(&mut engine, &mut peer, 0, 500, 60);
}

#[test]
fn what_cannot_be_opened_says_why_and_what_to_do() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let refused = |config: &AfXdpConfig| {
        lab.engine().run(|| AfXdp::open(config).map(|_| ()).unwrap_err()).to_string()
    };
    let text = refused(&config("volley-none", &[0]));
    assert!(text.contains("volley-none") && text.contains(lab.engine_if()), "{text}");
    let text = refused(&config(lab.engine_if(), &[0, 2]));
    assert!(text.contains("no queue 2") && text.contains("it has 2"), "{text}");
    let mut zero_copy = config(lab.engine_if(), &[0]);
    zero_copy.zero_copy = ZeroCopy::Require;
    let text = refused(&zero_copy);
    assert!(text.contains("zero-copy") && text.contains("rx-sg"), "{text}");
}

#[test]
fn a_link_that_goes_down_and_up_is_survived() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (mut engine, mut peer) = pair(&lab, &[0]);
    echo_all(&mut engine, &mut peer, 0, 500, 60);
    let link = |state: &str| lab.engine().exec(["ip", "link", "set", lab.engine_if(), state]);
    link("down");
    // Accepted, not sent, not lost: they wait in the ring.
    assert_eq!(engine.send(0, 0..32, 60), 32);
    for _ in 0..5_000 {
        engine.port.flush();
    }
    let ledger = engine.port.ledger();
    assert!(ledger.balances() && ledger.kernel_tx == 32, "{ledger}");
    assert_eq!(engine.port.failure(), None, "down is not gone");
    link("up");
    engine.settle();
    // What was waiting may arrive at the peer; then the ends talk as before.
    wait(|| peer.numbers(60).is_empty());
    echo_all(&mut engine, &mut peer, 0, 500, 60);
    assert_eq!(engine.port.failure(), None);
}

#[test]
fn an_interface_removed_while_running_is_reported() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let (mut engine, mut peer) = pair(&lab, &[0, 1]);
    echo_all(&mut engine, &mut peer, 1, 500, 60);
    let mut held = Burst::new();
    assert_eq!(engine.port.alloc(&mut held, 8), 8);
    lab.engine().exec(["ip", "link", "delete", lab.engine_if()]);
    for end in [&mut engine, &mut peer] {
        wait(|| {
            end.port.flush();
            end.port.failure().is_some()
        });
        let text = end.port.failure().unwrap();
        assert!(text.contains("gone"), "{text}");
    }
    // Whatever is still asked of it has a clear outcome.
    assert_eq!(engine.send(0, 0..32, 60), 32);
    engine.port.free(&mut held);
    let ledger = engine.port.close();
    assert!(ledger.balances() && ledger.abandoned == 32 && ledger.app == 0, "{ledger}");
}

#[test]
fn stopped_and_unbound_the_interface_is_the_kernels_again() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut engine = End::open(lab.engine(), &config(lab.engine_if(), &[0]));
    let ping = ["ping", "-c1", "-W5", "10.77.0.1"];
    engine.port.stop_rx();
    engine.redirect.unbind(0);
    lab.peer().exec(ping);
    assert_eq!(engine.send(0, 0..4, 60), 4, "transmit goes on");
    engine.settle();
    let ledger = engine.port.close();
    assert_eq!((ledger.free, ledger.abandoned), (ledger.total, 0), "{ledger}");
    // Even without unbinding: a closed socket leaves the map by itself.
    let port = lab.engine().run(|| AfXdp::open(&config(lab.engine_if(), &[0])).unwrap());
    port.sockets().for_each(|(queue, socket)| engine.redirect.bind(queue, socket));
    drop(port);
    lab.peer().exec(ping);
}

#[test]
fn every_option_together_still_echoes() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut all = config(lab.engine_if(), &[0]);
    (all.chunk, all.headroom, all.frames) = (4096, 128, 2048);
    (all.rx_ring, all.tx_ring, all.fill_ring, all.completion_ring) = (256, 512, 1024, 512);
    all.busy_poll = Some(Default::default());
    all.zero_copy = ZeroCopy::Never;
    all.huge_pages = false;
    all.numa_node = Some(0);
    all.tx_budget = 1;
    let mut engine = End::open(lab.engine(), &all);
    let mut peer = End::open(lab.peer(), &config(lab.peer_if(), &[0]));
    echo_all(&mut engine, &mut peer, 0, 2_000, 1514);
    let mut burst = Burst::new();
    engine.port.alloc(&mut burst, 1);
    assert_eq!(burst[0].headroom(), 256 + 128);
    engine.port.free(&mut burst);
}
