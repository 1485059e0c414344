//! The way of a packet through the port does not allocate: a worker's turns over a ring that leads back to itself.

use crate::{alone, options};
use std::sync::Arc;
use volley::app::{Echo, WorkerId};
use volley::datagram::DatagramPort;
use volley::frame::Burst;
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig};
use volley::port::Port;
use volley::port::dpdk::Probed;
use volley::time::Now;
use volley::worker::{Board, Helpers, Mailboxes, Waker, Worker, WorkerConfig};
use volley_count_alloc::allocations;
use volley_xdp::{Action, Protocol, Rule, Unbound};

#[test]
fn a_worker_over_dpdk_does_not_allocate() {
    alone("alloc::a_worker_over_dpdk_does_not_allocate", || {
        let rule = Rule {
            protocol: Protocol::Udp,
            ports: 5000..=7777,
            addresses: Vec::new(),
            action: Action::Redirect { unbound: Unbound::Pass },
            syn_limit: None,
        };
        let rules = volley_xdp::rule_table([&rule].into_iter()).unwrap();
        let dpdk = Probed::new(&options(&["net_ring0"])).unwrap().start(&[None], Some(rules)).unwrap();
        let mut port = dpdk.port(0, 0).unwrap();
        // What is put in once goes round for ever: the echo answers its own answers. Half of it is game traffic; of the rest,
        // some is broken and some is somebody else's, and ends in a drop.
        let mut put = |packet: Vec<u8>| {
            let mut burst = Burst::new();
            assert_eq!(port.alloc(&mut burst, 1), 1);
            assert!(burst[0].set_len(packet.len()));
            burst[0].bytes_mut().copy_from_slice(&packet);
            assert_eq!(port.tx(&mut burst), 1);
        };
        for n in 0..100u8 {
            let destination = if n % 3 == 0 { "10.0.0.1:53" } else { "10.0.0.1:7777" };
            let mut packet =
                Packet::new("10.0.0.2:5000".parse().unwrap(), destination.parse().unwrap(), &[n; 22])
                    .build();
            if n % 5 == 0 {
                packet[50] ^= 1;
            }
            put(packet);
        }
        let port: Box<dyn Port> = Box::new(port);
        let ports: Vec<Box<dyn DatagramPort>> =
            vec![Box::new(Net::<dyn Port>::new(port, NetConfig::default()))];
        let waker = Arc::new(Waker::new(|| {}));
        let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
        let mut worker =
            Worker::new(&WorkerConfig::new(WorkerId(0)), Echo, ports, mailboxes, Helpers::new(4, waker));
        let board = Board::new(1, 1);
        let mut now = Now { ns: 1, unix_secs: 0 };
        worker.start(now);
        let count = allocations(|| {
            for _ in 0..2000 {
                now.ns += 1000;
                worker.turn(now);
                worker.publish(&board);
            }
        });
        assert_eq!(count, 0, "allocations and frees in 2,000 turns");
        let counters = board.ports[0].get();
        assert!(counters.datagrams.answered > 20_000, "{:?}", counters.datagrams);
        assert!(counters.datagrams.dropped_total() >= 40, "{:?}", counters.datagrams);
        assert!(counters.ledger.balances(), "{}", counters.ledger);
        assert_eq!(allocations(|| drop(vec![1])), 2, "the counter counts");
        drop(worker);
        // What goes round was in the ring when it closed; a ring of EAL's outlives its device.
        dpdk.close();
    });
}
