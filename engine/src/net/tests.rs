//! Net over a port made of two lists.

use super::packet::Packet;
use super::*;
use crate::datagram::Datagram;
use crate::frame::FramePool;
use std::collections::VecDeque;
use volley_wire::ethernet::Mac;

/// Receives what a test put in, keeps what it is given to send.
struct Lists {
    info: PortInfo,
    pool: FramePool,
    incoming: VecDeque<Vec<Vec<u8>>>,
    outgoing: Vec<Vec<Vec<u8>>>,
    rx_flags: u8,
    /// How many frames `tx` still takes.
    tx_room: usize,
}

const MTU: usize = 1500;
const CHUNK: u32 = 2048;

fn lists() -> Lists {
    Lists {
        info: PortInfo {
            name: "lists".into(),
            mtu: MTU,
            mac: Some([2, 0, 0, 0, 0, 2]),
            queues: vec![3],
            tx_checksum: false,
            max_segments: 1,
        },
        pool: FramePool::new(256, CHUNK, 256),
        incoming: VecDeque::new(),
        outgoing: Vec::new(),
        rx_flags: 0,
        tx_room: usize::MAX,
    }
}

impl Port for Lists {
    fn info(&self) -> &PortInfo {
        &self.info
    }
    fn rx(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while self.incoming.front().is_some_and(|chain| chain.len() <= burst.remaining_capacity()) {
            let chain = self.incoming.pop_front().unwrap();
            let last = chain.len() - 1;
            for (n, bytes) in chain.iter().enumerate() {
                let mut frame = self.pool.take(3).unwrap();
                assert!(frame.set_len(bytes.len()));
                frame.bytes_mut().copy_from_slice(bytes);
                frame.set_flags(self.rx_flags | if n < last { flag::MORE } else { 0 });
                burst.push(frame);
            }
        }
        burst.len() - before
    }
    fn tx(&mut self, burst: &mut Burst) -> usize {
        let mut taken = 0;
        loop {
            let chain = burst.iter().take_while(|frame| frame.has(flag::MORE)).count() + 1;
            if chain > burst.len() || chain > self.tx_room {
                return taken;
            }
            self.tx_room -= chain;
            taken += chain;
            self.outgoing.push(
                burst
                    .drain(..chain)
                    .map(|frame| {
                        let bytes = frame.bytes().to_vec();
                        self.pool.give(frame);
                        bytes
                    })
                    .collect(),
            );
        }
    }
    fn flush(&mut self) {}
    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        self.pool.fill(burst, want, 3)
    }
    fn free(&mut self, burst: &mut Burst) {
        burst.drain(..).for_each(|frame| self.pool.give(frame));
    }
    fn ledger(&self) -> Ledger {
        self.pool.ledger()
    }
    fn stats(&self) -> PortStats {
        PortStats::default()
    }
    fn stop_rx(&mut self) {}
}

const V4: (&str, &str) = ("10.1.0.2:5000", "10.1.0.1:7777");
const V6: (&str, &str) = ("[fd00::2]:5000", "[fd00::1]:7777");

fn packet(ends: (&str, &str), payload: &[u8]) -> Packet {
    Packet::new(ends.0.parse().unwrap(), ends.1.parse().unwrap(), payload)
}

fn net(lists: Lists) -> Net<Lists> {
    Net::new(Box::new(lists), NetConfig::default())
}

/// Everything that has arrived through `app`; afterwards no frame is out.
fn run(net: &mut Net<Lists>, mut app: impl FnMut(&mut Datagram<'_>)) {
    let mut batch = Batch::default();
    let mut verdicts = Verdicts::new();
    while net.recv(&mut batch, Now::default()) > 0 {
        loop {
            let mut views = Datagrams::new();
            if net.open(&mut batch, &mut views) == 0 {
                break;
            }
            verdicts.clear();
            for mut view in views {
                app(&mut view);
                verdicts.push(view.verdict());
            }
            net.settle(&mut batch, &verdicts);
        }
        assert!(batch.frames.is_empty());
        net.flush();
    }
    let ledger = net.ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
}

fn echo(view: &mut Datagram<'_>) {
    view.reply(view.payload().len());
}

/// Sends one packet through an echo; its answer, or the reason why there is none.
fn answer(packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut net = net(lists());
    net.port_mut().incoming.push_back(vec![packet.to_vec()]);
    run(&mut net, echo);
    let stats = net.stats();
    assert_eq!(stats.answered + stats.dropped_total(), 1);
    match net.port_mut().outgoing.pop() {
        Some(mut chain) => Ok(chain.pop().unwrap()),
        None => Err(DropReason::ALL[stats.dropped.iter().position(|n| *n == 1).unwrap()]),
    }
}

#[test]
fn an_echo_is_the_packet_with_sides_swapped() {
    for ends in [V4, V6] {
        for len in [0, 1, 17, 18, 22, 1400] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut there = packet(ends, &payload);
            let back = Packet {
                macs: (there.macs.1, there.macs.0),
                source: there.destination,
                destination: there.source,
                ..there.clone()
            };
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 0x2005), (0x8100, 7)]] {
                let tags: Vec<Tag> = tags.into_iter().map(|(tpid, tci)| Tag { tpid, tci }).collect();
                there.tags = tags.clone();
                let answered = answer(&there.build()).unwrap();
                let expected = Packet { tags, ..back.clone() }.build();
                assert_eq!(answered, expected[..answered.len()]);
                assert!(expected[answered.len()..].iter().all(|padding| *padding == 0));
                let again = answer_as([2, 0, 0, 0, 0, 1], &answered).unwrap();
                assert_eq!(again, there.build()[..again.len()]);
            }
        }
    }
}

fn answer_as(mac: Mac, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut lists = lists();
    lists.info.mac = Some(mac);
    let mut net = net(lists);
    net.port_mut().incoming.push_back(vec![packet.to_vec()]);
    run(&mut net, echo);
    net.port_mut().outgoing.pop().map(|mut chain| chain.pop().unwrap()).ok_or(DropReason::NotForUs)
}
