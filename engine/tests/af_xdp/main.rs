//! AF_XDP ports over a real veth pair, in network namespaces of their own. Needs root.
#![cfg(target_os = "linux")]

mod redirect;

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
