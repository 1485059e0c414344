//! Work per packet above the port: parse, verify, answer. `cargo bench -p volley-bench --bench net`.
//!
//! `port` is what moving the tokens costs without Net; what Net costs is the rest. `dyn` and `generic` differ in how Net calls the
//! port. `memory` has the rings of the memory port (and both its ends) in it.
#![allow(missing_docs)] // criterion_group! makes a public function without any.

mod echo;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use echo::{Carousel, echo, packet};
use std::hint::black_box;
use volley::datagram::{Batch, DatagramPort, Verdicts};
use volley::frame::{BURST, Burst};
use volley::net::{Net, NetConfig};
use volley::port::{MemoryConfig, MemoryPort, Port};
use volley_wire::checksum::Sum;

fn per_packet(criterion: &mut Criterion) {
    for (name, len, ipv4) in
        [("ipv4 64 B", 60, true), ("ipv6 84 B", 80, false), ("ipv4 1500 B", 1496, true)]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BURST as u64));
        let mut port: Box<dyn Port> = Box::new(Carousel::new(len, ipv4));
        let mut burst = Burst::new();
        group.bench_function("port", |b| {
            b.iter(|| {
                black_box(&mut port).rx(&mut burst);
                black_box(&mut port).tx(&mut burst)
            });
        });
        let erased: Box<dyn Port> = Box::new(Carousel::new(len, ipv4));
        bench_echo(&mut group, "dyn", Net::<dyn Port>::new(erased, NetConfig::default()));
        bench_echo(
            &mut group,
            "generic",
            Net::new(Box::new(Carousel::new(len, ipv4)), NetConfig::default()),
        );
        bench_memory(&mut group, len, ipv4);
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_echo(group: &mut Group<'_>, name: &str, mut net: impl DatagramPort) {
    let (mut batch, mut verdicts) = (Batch::default(), Verdicts::new());
    group.bench_function(name, |b| b.iter(|| echo(&mut net, &mut batch, &mut verdicts)));
    assert_eq!(net.stats().answered, net.stats().received);
    assert_eq!(net.stats().dropped_total(), 0);
}

fn bench_memory(group: &mut Group<'_>, len: usize, ipv4: bool) {
    let (port, mut wire) = MemoryPort::new(&MemoryConfig::default());
    let port: Box<dyn Port> = Box::new(port);
    let mut net: Net = Net::new(port, NetConfig::default());
    let packet = packet(len, ipv4, 1);
    let (mut batch, mut verdicts) = (Batch::default(), Verdicts::new());
    group.bench_function("memory", |b| {
        b.iter(|| {
            for _ in 0..BURST {
                wire.inject(0, &packet).expect("a frame is posted");
            }
            echo(&mut net, &mut batch, &mut verdicts);
            wire.collect(|shown| _ = black_box(shown.bytes))
        });
    });
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    let bytes: Vec<u8> = (0..9000).map(|n| n as u8).collect();
    for len in [22, 64, 256, 1472, 8972] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} B"), |b| {
            b.iter(|| Sum::ZERO.bytes(black_box(&bytes[..len])).fold())
        });
    }
}

criterion_group!(benches, per_packet, checksum);
criterion_main!(benches);
