//! Recorded packets through net_pcap: the same verdicts as the XDP program's, the same answers as without DPDK.

use crate::fixtures::{self, Fixture};
use crate::{alone, assert_all_free, options, receive};
use std::path::Path;
use std::time::{Duration, Instant};
use volley::datagram::{Batch, DatagramPort, Datagrams, Verdict, Verdicts};
use volley::engine::config::Dpdk as Options;
use volley::frame::{Burst, flag};
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig, Tag};
use volley::port::dpdk::{DeviceTime, Dpdk, Probed};
use volley::port::{MemoryConfig, MemoryPort, Port};
use volley::time::Now;
use volley_steer::Verdict as Steered;
use volley_steer::abi::Counter;

/// Writes packets as a capture file.
fn capture(path: &Path, packets: &[Vec<u8>]) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = pcap_file::pcap::PcapWriter::new(file).unwrap();
    for packet in packets {
        let packet = pcap_file::pcap::PcapPacket::new(Duration::ZERO, packet.len() as u32, packet);
        writer.write_packet(&packet).unwrap();
    }
}

/// The packets of a capture file.
fn recorded(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = pcap_file::pcap::PcapReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

#[test]
fn every_fixture_gets_the_verdict_of_the_xdp_program() {
    alone("replay::every_fixture_gets_the_verdict_of_the_xdp_program", || {
        // A capture cannot hold a packet without a byte; and here the bucket of the limited rule is not empty from the start.
        let fits = |fixture: &Fixture| !fixture.frame.is_empty() && fixture.bound.1 != Counter::SynLimited;
        let fixtures: Vec<Fixture> = fixtures::all().into_iter().filter(fits).collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fixtures.pcap");
        capture(&file, &fixtures.iter().map(|fixture| fixture.frame.clone()).collect::<Vec<_>>());
        let device = format!("net_pcap0,rx_pcap={}", file.display());
        let dpdk =
            Probed::new(&options(&[&device])).unwrap().start(&[None], Some(fixtures::rules())).unwrap();
        let mut port = dpdk.port(0, 0).unwrap();

        let mut expected = fixtures.iter();
        let mut counters = [0u64; Counter::COUNT];
        let mut count = |fixture: &Fixture| counters[fixture.bound.1 as usize] += 1;
        let until = Instant::now() + Duration::from_secs(60);
        let mut seen = 0;
        while seen < fixtures.len() && Instant::now() < until {
            let mut burst = Burst::new();
            port.rx(&mut burst);
            for frame in &burst {
                // Dropped ones are missing here; they are counted below.
                let fixture = loop {
                    let fixture = expected.next().expect("no more frames than fixtures");
                    count(fixture);
                    seen += 1;
                    if fixture.bound.0 != Steered::Drop {
                        break fixture;
                    }
                };
                assert_eq!(frame.bytes(), fixture.frame, "{}", fixture.name);
                let verdict = if frame.has(flag::NOT_STEERED) { Steered::Pass } else { Steered::Redirect };
                assert_eq!(verdict, fixture.bound.0, "{}", fixture.name);
            }
            let counted = port.steerer().expect("there are rules");
            let total: u64 = Counter::ALL.iter().map(|counter| counted.counted(*counter)).sum();
            if burst.is_empty() && total == fixtures.len() as u64 {
                // The last ones were dropped.
                expected.by_ref().for_each(|fixture| {
                    count(fixture);
                    assert_eq!(fixture.bound.0, Steered::Drop, "{} is missing", fixture.name);
                    seen += 1;
                });
            }
            port.free(&mut burst);
        }
        assert_eq!(seen, fixtures.len());
        let counted = port.steerer().expect("there are rules");
        for counter in Counter::ALL {
            assert_eq!(counted.counted(*counter), counters[*counter as usize], "{counter}");
        }
        port.stats();
        assert_eq!(dpdk.steered().total(), fixtures.len() as u64, "published for reports");
        assert_all_free(&port);
        drop(port);
        assert_eq!(dpdk.close(), 0);
    });
}

#[test]
fn a_frame_says_when_the_device_got_it() {
    alone("replay::a_frame_says_when_the_device_got_it", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("timed.pcap");
        let times: Vec<Duration> = (1..=10).map(|n| Duration::from_micros(n * 1_000_003)).collect();
        let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
        for time in &times {
            writer.write_packet(&pcap_file::pcap::PcapPacket::new(*time, 60, &[1; 60])).unwrap();
        }
        drop(writer);
        let device = format!("net_pcap0,rx_pcap={}", path.display());
        let options = Options { timestamps: true, ..options(&[&device]) };
        let dpdk = Dpdk::open(&options, 1).unwrap();
        let mut port = dpdk.port(0, 0).unwrap();
        let mut burst = Burst::new();
        receive(&mut port, &mut burst, times.len());
        // net_pcap's clock counts microseconds.
        let got: Vec<_> = burst.iter().map(|frame| port.arrived(frame)).collect();
        let wanted: Vec<_> = times.iter().map(|time| Some(DeviceTime(time.as_micros() as u64))).collect();
        assert_eq!(got, wanted);
        port.free(&mut burst);
        drop(port);
        assert_eq!(dpdk.close(), 0);
    });
}

/// Packets of every kind, whole and broken in each byte of their headers.
fn traffic() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (source, destination) in [("10.1.0.2:5000", "10.1.0.1:7777"), ("[fd00::2]:5000", "[fd00::1]:7777")]
    {
        let mut packet = Packet::new(source.parse().unwrap(), destination.parse().unwrap(), &[7; 30]);
        packets.push(packet.build());
        packet.tags = vec![Tag { tpid: 0x88a8, tci: 9 }, Tag { tpid: 0x8100, tci: 5 }];
        packets.push(packet.build());
        packet.options = vec![1, 1, 1, 0];
        packet.checksum = false;
        packets.push(packet.build());
        let whole = Packet::new(source.parse().unwrap(), destination.parse().unwrap(), &[1; 22]).build();
        for at in 0..62.min(whole.len()) {
            for change in [1, 0x40, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= change;
                packets.push(broken);
            }
        }
        for len in 1..whole.len() {
            packets.push(whole[..len].to_vec());
        }
    }
    packets
}

/// Turns the wheel once: what an echo does.
fn turn(net: &mut Net, batch: &mut Batch) -> usize {
    let frames = net.recv(batch, Now { ns: 1, unix_secs: 0 });
    if frames > 0 {
        let mut datagrams = Datagrams::new();
        net.open(batch, &mut datagrams);
        let mut verdicts = Verdicts::new();
        for datagram in &mut datagrams {
            datagram.reply(datagram.payload().len());
            verdicts.push(datagram.verdict());
        }
        drop(datagrams);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Reply { .. })));
        net.settle(batch, &verdicts);
    }
    net.flush();
    frames
}

#[test]
fn answers_and_drops_are_those_of_a_port_without_dpdk() {
    alone("replay::answers_and_drops_are_those_of_a_port_without_dpdk", || {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from.pcap"), directory.path().join("to.pcap"));
        let packets = traffic();
        capture(&from, &packets);

        let (memory, mut wire) = MemoryPort::new(&MemoryConfig::default());
        let memory: Box<dyn Port> = Box::new(memory);
        let mut plain: Net = Net::new(memory, NetConfig::default());
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        for packet in &packets {
            wire.inject(0, packet).unwrap();
            turn(&mut plain, &mut batch);
            wire.collect(|sent| wanted.push(sent.bytes.to_vec()));
        }
        assert!(wanted.len() > 6 && plain.stats().dropped_total() > 300, "{:?}", plain.stats());

        let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display());
        // The device has a MAC of its own, the packets are for another; as over memory, all are ours.
        let options = Options { promiscuous: true, ..options(&[&device]) };
        let dpdk = Probed::new(&options).unwrap().start(&[None], None).unwrap();
        let port: Box<dyn Port> = Box::new(dpdk.port(0, 0).unwrap());
        let mut net: Net = Net::new(port, NetConfig::default());
        let until = Instant::now() + Duration::from_secs(60);
        let mut seen = 0;
        while seen < packets.len() && Instant::now() < until {
            seen += turn(&mut net, &mut batch);
        }
        assert_eq!(seen, packets.len());
        assert_eq!(net.stats(), plain.stats());
        assert!(net.ledger().balances() && net.ledger().free == 1024, "{}", net.ledger());
        drop(net);
        assert_eq!(dpdk.close(), 0);
        let answers = recorded(&to);
        assert_eq!(answers.len(), wanted.len());
        for (n, (answer, wanted)) in answers.iter().zip(&wanted).enumerate() {
            assert_eq!(answer, wanted, "answer {n}");
        }
    });
}
