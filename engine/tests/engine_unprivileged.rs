//! The engine over kernel sockets on loopback: what a laptop without privileges can run.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::time::Duration;
use volley::app::{App, Ctx, Echo};
use volley::datagram::Datagram;
use volley::engine::config::{Io, OnPanic, Ports};
use volley::engine::{Config, Engine, Notice, StartError};

const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration for a port of loopback that was free a moment ago.
fn config(io: Io) -> Config {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Config {
        io,
        ports: Ports(port..=port),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..Config::default()
    }
}

fn client(config: &Config) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", *config.ports.0.start())).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).unwrap();
    let mut answer = [0; 2048];
    let len = client.recv(&mut answer).unwrap();
    answer[..len].to_vec()
}

#[test]
fn every_kind_of_kernel_socket_echoes_and_reports() {
    for io in [Io::Mmsg, Io::Epoll] {
        for workers in [1, 2] {
            let config = Config { workers: Some(workers), pin: false, ..config(io) };
            let engine = Engine::start(config.clone(), |_| Echo).unwrap();
            for n in 0..20u8 {
                assert_eq!(ask(&client(&config), &[n; 100]), [n; 100]);
            }
            let running = engine.report().unwrap();
            assert!(running.running && running.workers.len() == usize::from(workers));
            let report = engine.stop().unwrap();
            assert_eq!((report.total.received, report.total.answered), (20, 20), "{report}");
            assert!(report.total.ledger_balances && report.total.ledger.app == 0, "{report}");
            assert!(report.workers.iter().all(|worker| worker.state == "drained"), "{report}");
        }
    }
}

#[test]
fn a_taken_port_is_refused_also_where_workers_share_ports() {
    let config = config(Io::Mmsg);
    let _holder = UdpSocket::bind(("127.0.0.1", *config.ports.0.start())).unwrap();
    for workers in [1, 2] {
        let config = Config { workers: Some(workers), ..config.clone() };
        let Err(error) = Engine::start(config, |_| Echo) else { panic!("the port was taken") };
        assert!(matches!(error, StartError::Socket(_)), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
}

#[test]
fn without_an_interface_it_falls_back_unless_told_not_to() {
    let config = config(Io::AfXdp);
    let engine = Engine::start(config.clone(), |_| Echo).unwrap();
    assert!(engine.fallback().is_some_and(|why| why.contains("no interface")));
    assert_eq!(ask(&client(&config), b"hello"), b"hello");
    assert_eq!(engine.stop().unwrap().io, "mmsg");
    let Err(error) = Engine::start(Config { require_xdp: true, ..config }, |_| Echo) else {
        panic!("it ran")
    };
    assert!(matches!(error, StartError::XdpRequired { .. }), "{error}");
}

struct Fragile;

impl App for Fragile {
    type Msg = ();
    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, _: &mut Ctx<'_, ()>) {
        assert!(datagram.payload() != b"panic", "asked to panic");
        datagram.reply(datagram.payload().len());
    }
}

#[test]
fn a_panic_restarts_the_worker_eight_times_and_then_no_more() {
    let config = Config { on_panic: OnPanic::Restart, ..config(Io::Mmsg) };
    let engine = Engine::start(config.clone(), |_| Fragile).unwrap();
    for time in 0..=8 {
        assert_eq!(ask(&client(&config), b"alive"), b"alive");
        client(&config).send(b"panic").unwrap();
        let again = time < 8;
        let said = "asked to panic".to_owned();
        assert_eq!(engine.wait(PATIENCE), Some(Notice::Panicked { worker: 0, message: said, again }));
        if again {
            assert_eq!(engine.wait(PATIENCE), Some(Notice::Restarted { worker: 0 }));
        }
    }
    let report = engine.stop().unwrap();
    assert_eq!((report.workers[0].restarts, report.workers[0].state), (8, "panicked"));
    assert_eq!((report.total.answered, report.total.dropped_by_reason["app_panicked"]), (9, 9), "{report}");
    assert!(report.total.ledger_balances, "{report}");
}

#[test]
fn an_app_that_cannot_be_made_is_a_panic_too() {
    let config = config(Io::Mmsg);
    let engine = Engine::start::<Echo>(config, |_| panic!("no map of the world")).unwrap();
    let Some(Notice::Panicked { message, again: false, .. }) = engine.wait(PATIENCE) else {
        panic!("silence")
    };
    assert_eq!(message, "no map of the world");
    assert_eq!(engine.stop().unwrap().workers[0].state, "panicked");
}

#[test]
fn dropping_the_engine_stops_it() {
    let config = config(Io::Epoll);
    drop(Engine::start(config.clone(), |_| Echo).unwrap());
    UdpSocket::bind(("127.0.0.1", *config.ports.0.start())).expect("the port is free again");
}
