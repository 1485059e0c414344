//! The generator's TCP: our own client and the kernel's, against our own server, the kernel's, and one that cheats. Privileged.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use volley::app::tcp::{TcpChargen, TcpDiscard, TcpEcho};
use volley::app::{App, Beside, Echo};
use volley::engine::config::{Io, Ports, Tcp, TcpIo};
use volley::engine::{Config, Engine};
use volley::generator::approach::Wanted;
use volley::generator::tcp::open::{OverAfXdp, over_sockets};
use volley::generator::tcp::report::Outcome;
use volley::generator::tcp::{Exchange, Load, run};
use volley::stream::StreamStats;
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, require_root};

const PORT: u16 = 7777;
const BULK: u64 = 8_000_000;

fn load(exchange: Exchange, target: IpAddr) -> Load {
    Load {
        exchange,
        target: SocketAddr::new(target, PORT),
        sources: Vec::new(),
        connections: 8,
        size: 1_000,
        window: 4,
        bytes: None,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(500),
        linger: Duration::from_secs(30),
    }
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Own,
    Kernel,
}

fn generate(lab: &Lab, client: Client, mut load: Load) -> Outcome {
    let work = || match client {
        Client::Kernel => {
            let mut streams = over_sockets(&load).unwrap();
            run::run(&load, &mut streams, &AtomicBool::new(false)).unwrap()
        }
        Client::Own => {
            let wanted = Wanted {
                target: load.target,
                interface: None,
                mac: None,
                sources: load.sources.clone(),
                first_port: 20_000,
                flows: 1,
                longest: 0,
            };
            let mut way = OverAfXdp::open(&mut load, &wanted, 20_000..=29_999, None, false).unwrap();
            run::run(&load, way.carrier(), &AtomicBool::new(false)).unwrap()
        }
    };
    lab.peer().run(work)
}

fn serve<A: App<Msg = ()>>(lab: &Lab, io: TcpIo, app: impl Fn() -> A + Send + Sync + 'static) -> Engine {
    let own = io == TcpIo::Own;
    let config = Config {
        interface: own.then(|| lab.engine_if().into()),
        io: if own { Io::AfXdp } else { Io::Mmsg },
        require_xdp: own,
        pin: false,
        tcp: Some(Tcp { ports: Ports(PORT..=PORT), io, ..Tcp::default() }),
        ..Config::default()
    };
    lab.engine().run(move || Engine::start(config, move |_| Beside(Echo, app())).unwrap())
}

fn stop(engine: Engine) -> StreamStats {
    let report = engine.stop().unwrap();
    assert!(report.total.ledger_balances, "{report}");
    report.total.streams
}

/// Nothing failed, nothing is missing, every byte was right.
#[track_caller]
fn assert_clean(outcome: &Outcome) {
    let counts = outcome.counts;
    assert_eq!((counts.failed, outcome.unanswered, counts.corrupted), (0, 0, 0), "{outcome:?}");
}

#[test]
fn each_client_exchanges_every_byte_with_each_server() {
    if !require_root() {
        return;
    }
    for (io, client) in
        [(TcpIo::Own, Client::Own), (TcpIo::Epoll, Client::Own), (TcpIo::Own, Client::Kernel)]
    {
        for target in [IpAddr::from(ENGINE_IPV4), ENGINE_IPV6.into()] {
            let lab = Lab::new(1);
            let engine = serve(&lab, io, TcpEcho::default);
            let outcome = generate(&lab, client, load(Exchange::Echo, target));
            assert_clean(&outcome);
            assert_eq!(outcome.counts.opened, 8, "{outcome:?}");
            assert!(outcome.counts.messages > 100 && outcome.latency.count >= 100, "{outcome:?}");

            let outcome = generate(&lab, client, Load { size: 64, ..load(Exchange::Connect, target) });
            assert_clean(&outcome);
            assert!(outcome.counts.closed > 20, "{io:?} {client:?} {outcome:?}");
            let stats = stop(engine);
            assert_eq!(stats.accepted, stats.closed, "{stats:?}");
            assert!(stats.accepted >= 8 + outcome.counts.closed, "{stats:?}");

            let bulk = |exchange| Load {
                bytes: Some(BULK),
                connections: 2,
                duration: Duration::from_secs(60),
                ..load(exchange, target)
            };
            let engine = serve(&lab, io, || TcpDiscard);
            let outcome = generate(&lab, client, bulk(Exchange::Send));
            assert_clean(&outcome);
            assert_eq!((outcome.counts.bytes_sent, outcome.counts.closed), (BULK, 2), "{outcome:?}");
            assert_eq!(stop(engine).received_bytes, BULK);

            let engine = serve(&lab, io, TcpChargen::default);
            let outcome = generate(&lab, client, bulk(Exchange::Receive));
            assert_clean(&outcome);
            assert!(outcome.counts.bytes_received >= BULK, "{outcome:?}");
            stop(engine);
        }
    }
}

#[test]
fn a_route_with_a_congestion_control_of_its_own_is_a_route() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = serve(&lab, TcpIo::Own, TcpEcho::default);
    for target in [IpAddr::from(ENGINE_IPV4), ENGINE_IPV6.into()] {
        let host = target.to_string();
        lab.peer().exec(["ip", "route", "replace", &host, "dev", lab.peer_if(), "congctl", "cubic"]);
        assert_clean(&generate(&lab, Client::Own, load(Exchange::Echo, target)));
    }
    assert_eq!(stop(engine).accepted, 16);
}

#[test]
fn connects_take_turns_among_their_source_addresses() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let sources: Vec<IpAddr> = (100..164u8).map(|n| [10, 77, 0, n].into()).collect();
    for source in &sources {
        lab.peer().exec(["ip", "address", "add", &format!("{source}/24"), "dev", lab.peer_if()]);
    }
    let listener = lab.engine().run(|| TcpListener::bind((ENGINE_IPV4, PORT)).unwrap());
    let (seen, outcome) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            // The last one comes from here and not from the generator.
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match stream.peer_addr().unwrap().ip() {
                    IpAddr::V4(address) if address == ENGINE_IPV4 => break,
                    address => seen.insert(address),
                };
                let mut message = [0; 64];
                stream.read_exact(&mut message).unwrap();
                stream.write_all(&message).unwrap();
                let _ = stream.read(&mut message);
            }
            seen
        });
        let connect = Load {
            sources: sources.clone(),
            connections: 16,
            size: 64,
            duration: Duration::from_secs(2),
            ..load(Exchange::Connect, ENGINE_IPV4.into())
        };
        let outcome = generate(&lab, Client::Own, connect);
        drop(lab.engine().run(|| std::net::TcpStream::connect((ENGINE_IPV4, PORT)).unwrap()));
        (server.join().unwrap(), outcome)
    });
    assert_clean(&outcome);
    assert!(outcome.counts.closed >= 64, "{outcome:?}");
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), sources);
}

/// Echoes one connection, with what `cheat` does to it: the position of the first byte is given, false ends it.
fn with_cheat(cheat: impl Fn(usize, &mut [u8]) -> bool + Sync) -> Outcome {
    let lab = Lab::new(1);
    let listener = lab.engine().run(|| TcpListener::bind((ENGINE_IPV4, PORT)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listener.accept().unwrap().0;
            let (mut buffer, mut position) = ([0; 4096], 0);
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if !cheat(position, &mut buffer[..n]) || stream.write_all(&buffer[..n]).is_err() {
                    break;
                }
                position += n;
            }
        });
        let load = Load {
            connections: 1,
            linger: Duration::from_secs(2),
            ..load(Exchange::Echo, ENGINE_IPV4.into())
        };
        generate(&lab, Client::Own, load)
    })
}

#[test]
fn a_byte_changed_and_a_connection_cut_are_seen() {
    if !require_root() {
        return;
    }
    let changed = with_cheat(|position, bytes| {
        if (position..position + bytes.len()).contains(&10_500) {
            bytes[10_500 - position] ^= 1;
        }
        true
    });
    assert_eq!((changed.counts.corrupted, changed.counts.failed), (1, 0), "{changed:?}");
    assert!(changed.counts.messages > 20, "{changed:?}");

    let cut = with_cheat(|position, _| position < 50_000);
    assert_eq!((cut.counts.corrupted, cut.counts.failed), (0, 1), "{cut:?}");
    assert!(cut.unanswered > 0 && cut.counts.messages >= 40, "{cut:?}");
}

#[test]
fn nobody_there_is_a_failure_of_every_connection() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for client in [Client::Own, Client::Kernel] {
        let outcome = generate(&lab, client, load(Exchange::Echo, ENGINE_IPV4.into()));
        assert_eq!((outcome.counts.opened, outcome.counts.failed, outcome.counts.reset), (0, 8, 8));
    }
}
