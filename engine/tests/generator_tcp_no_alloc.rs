//! Once its connections are open, the generator's TCP allocates nothing: a counting allocator over its turns.
//!
//! ```text
//!   run ─► Counted ─► Frames ─► memory port ─┐         the client's turns count from the first after the warm-up
//!             └─► server: a worker ◄─────────┘ wires   to the last; what the server and the wires do does not
//! ```
#![cfg(target_os = "linux")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use volley::app::tcp::{TcpChargen, TcpDiscard, TcpEcho};
use volley::app::{App, WorkerId};
use volley::datagram::DatagramPort;
use volley::generator::tcp::carrier::{Carrier, Frames};
use volley::generator::tcp::open::{Way, over_port, over_sockets};
use volley::generator::tcp::report::Outcome;
use volley::generator::tcp::{Exchange, Load, run};
use volley::net::neighbours::{Link, Neighbour, Publisher, Reached, Route, Update, address, subscription};
use volley::net::{Net, NetConfig, Tag};
use volley::port::{MemoryConfig, MemoryPort, MemoryWire, Port};
use volley::stream::own::{OwnConfig, OwnStreams};
use volley::stream::{EpollStreams, StreamConfig, StreamPort, StreamStats};
use volley::time::Now;
use volley::worker::clock::Clock;
use volley::worker::{Helpers, Mailboxes, Waker, Worker, WorkerConfig};
use volley_count_alloc::{allocations, so_far};

const SERVER: &str = "10.1.0.1:7777";
const CLIENT: &str = "10.1.0.2";
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// Turns until the steady phase: connections are open, and what grows on first use has grown.
const WARM: u32 = 500;
/// Turns of the steady phase.
const STEADY: u32 = 2_000;

/// What answers, once a turn of the client's.
trait Server {
    fn turn(&mut self);
}

/// A carrier that lets the server have a turn after each of the client's, and counts what is allocated in the client's.
struct Counted<'s, C, S> {
    carrier: C,
    server: S,
    stop: &'s AtomicBool,
    turns: u32,
    /// Allocated by the server so far.
    others: u64,
    from: u64,
    counted: Option<u64>,
}

impl<C: Carrier, S: Server> Carrier for Counted<'_, C, S> {
    fn receive(&mut self, now: Now) -> io::Result<()> {
        self.turns += 1;
        if self.turns == WARM {
            self.from = so_far() - self.others;
        }
        self.carrier.receive(now)
    }

    fn streams(&mut self) -> &mut dyn StreamPort {
        self.carrier.streams()
    }

    fn flush(&mut self) {
        self.carrier.flush();
        if self.turns >= WARM + STEADY && self.counted.is_none() {
            self.counted = Some(so_far() - self.others - self.from);
            self.stop.store(true, Ordering::Relaxed);
        }
        self.others += allocations(|| self.server.turn());
    }

    fn stats(&self) -> StreamStats {
        self.carrier.stats()
    }

    fn is_forgotten(&self) -> bool {
        self.carrier.is_forgotten()
    }
}

/// Runs `load` until the steady phase is over; returns what was allocated in it, and what the whole run did.
fn counted(load: &Load, carrier: impl Carrier, server: impl Server) -> (u64, Outcome) {
    let stop = AtomicBool::new(false);
    let mut counted = Counted { carrier, server, stop: &stop, turns: 0, others: 0, from: 0, counted: None };
    let outcome = run::run(load, &mut counted, &stop).unwrap();
    let Some(count) = counted.counted else { panic!("over after {} turns: {outcome:?}", counted.turns) };
    (count, outcome)
}

fn load(exchange: Exchange, target: SocketAddr) -> Load {
    Load {
        exchange,
        target,
        sources: vec![CLIENT.parse().unwrap()],
        connections: 16,
        size: 700,
        window: 4,
        bytes: None,
        warmup: Duration::from_millis(1),
        duration: Duration::from_secs(60),
        linger: Duration::from_secs(1),
    }
}

/// A worker of the engine's own, over our own TCP or the kernel's.
struct Engine<A: App> {
    worker: Worker<A>,
    clock: Clock,
    /// The server's wire and the client's, where there are any.
    wires: Option<[MemoryWire; 2]>,
    _control: Option<Publisher>,
}

impl<A: App> Engine<A> {
    fn new(
        app: A,
        ports: Vec<Box<dyn DatagramPort>>,
        streams: Vec<Box<dyn StreamPort>>,
        wires: Option<[MemoryWire; 2]>,
        control: Option<Publisher>,
    ) -> Engine<A> {
        let waker = Arc::new(Waker::new(|| {}));
        let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
        let config = WorkerConfig::new(WorkerId(0));
        let mut worker =
            Worker::new(&config, app, ports, mailboxes, Helpers::new(4, waker)).with_streams(streams);
        let mut clock = Clock::new();
        worker.start(clock.now());
        Engine { worker, clock, wires, _control: control }
    }

    /// Over our own TCP; with it the client's port.
    fn own(app: A) -> (Engine<A>, MemoryPort) {
        let memory =
            |mac| MemoryConfig { mac: Some(mac), frames: 4096, ring: 1024, ..MemoryConfig::default() };
        let (theirs, wire) = MemoryPort::new(&memory(MACS[0]));
        let (ours, far) = MemoryPort::new(&memory(MACS[1]));
        let (links, mut control) = subscription(Arc::new(Waker::new(|| {})));
        let ip = |text: &str| address(text.parse().unwrap());
        let prefix = ip("10.1.0.0");
        let route =
            Route { prefix, prefix_len: 120, metric: 0, gateway: None, source: None, tag: Tag::default() };
        let client = Neighbour { tag: Tag::default(), address: ip(CLIENT) };
        for update in [
            Update::Link(Link::Present { up: true, mac: MACS[0], mtu: 1500 }),
            Update::Route(route, true),
            Update::Address(ip("10.1.0.1"), true),
            Update::Neighbour(client, Some(Reached { mac: MACS[1], stale: false })),
            Update::Complete,
        ] {
            control.updates.push(update).unwrap();
        }
        let streams = OwnStreams::new(&OwnConfig {
            listen: vec![SERVER.parse().unwrap()],
            stack: volley_tcp::Config { max_connections: 1024, ..volley_tcp::Config::default() },
            buffer: 256 << 10,
            slow_reader_ns: 60_000_000_000,
            keep_alive_secs: 60,
            entropy: [7; 64],
        });
        let port: Box<dyn Port> = Box::new(theirs);
        let net: Net = Net::new(port, NetConfig { links: Some(links), ..NetConfig::default() });
        let ports: Vec<Box<dyn DatagramPort>> = vec![Box::new(net.with_streams(streams, None))];
        (Engine::new(app, ports, Vec::new(), Some([wire, far]), Some(control)), ours)
    }

    /// Over the kernel's; with it the address.
    fn kernel(app: A) -> (Engine<A>, SocketAddr) {
        let any: [SocketAddr; 1] = ["127.0.0.1:0".parse().unwrap()];
        let config = StreamConfig { connections: Some(1024), ..StreamConfig::default() };
        let streams = EpollStreams::open(&any, &config, 1).unwrap();
        let at = streams.addresses().next().unwrap();
        (Engine::new(app, Vec::new(), vec![Box::new(streams)], None, None), at)
    }
}

impl<A: App> Server for Engine<A> {
    fn turn(&mut self) {
        if let Some([own, far]) = &mut self.wires {
            // What finds no frame is lost, as on a wire.
            far.collect(|packet| _ = own.inject(0, packet.bytes));
        }
        self.worker.turn(self.clock.now());
        if let Some([own, far]) = &mut self.wires {
            own.collect(|packet| _ = far.inject(0, packet.bytes));
        }
    }
}

fn over_own(exchange: Exchange, app: impl App) -> (u64, Outcome) {
    let (server, port) = Engine::own(app);
    let load = load(exchange, SERVER.parse().unwrap());
    let way = Way { sources: load.sources.clone(), mac: MACS[1], hop: MACS[0], ports: 20_000..=59_999 };
    let frames: Frames = over_port(Box::new(port), &way, &load, None).unwrap();
    counted(&load, frames, server)
}

fn over_kernel(exchange: Exchange, app: impl App) -> (u64, Outcome) {
    let (server, at) = Engine::kernel(app);
    let load = Load { sources: Vec::new(), ..load(exchange, at) };
    counted(&load, over_sockets(&load).unwrap(), server)
}

#[test]
fn messages_there_and_back() {
    for (count, outcome) in
        [over_own(Exchange::Echo, TcpEcho::default()), over_kernel(Exchange::Echo, TcpEcho::default())]
    {
        assert_eq!(count, 0, "{outcome:?}");
        assert!(outcome.counts.messages > 2_000 && outcome.counts.corrupted == 0, "{outcome:?}");
    }
}

#[test]
fn connect_and_close() {
    for (count, outcome) in [
        over_own(Exchange::Connect, TcpEcho::default()),
        over_kernel(Exchange::Connect, TcpEcho::default()),
    ] {
        assert_eq!(count, 0, "{outcome:?}");
        assert!(outcome.counts.closed > 250 && outcome.counts.corrupted == 0, "{outcome:?}");
    }
}

#[test]
fn bytes_one_way() {
    for (count, outcome) in [over_own(Exchange::Send, TcpDiscard), over_kernel(Exchange::Send, TcpDiscard)]
    {
        assert_eq!(count, 0, "{outcome:?}");
        assert!(outcome.counts.bytes_sent > 1_000_000, "{outcome:?}");
    }
    for (count, outcome) in [
        over_own(Exchange::Receive, TcpChargen::default()),
        over_kernel(Exchange::Receive, TcpChargen::default()),
    ] {
        assert_eq!(count, 0, "{outcome:?}");
        assert!(outcome.counts.bytes_received > 1_000_000 && outcome.counts.corrupted == 0, "{outcome:?}");
    }
}

#[test]
fn the_counter_counts_the_client_and_not_the_server() {
    struct Wasteful;
    impl Server for Wasteful {
        fn turn(&mut self) {
            drop(std::hint::black_box(vec![0u8; 100]));
        }
    }
    struct Idle(EpollStreams, bool);
    impl Carrier for Idle {
        fn receive(&mut self, _: Now) -> io::Result<()> {
            if self.1 {
                drop(std::hint::black_box(vec![0u8; 100]));
            }
            Ok(())
        }
        fn streams(&mut self) -> &mut dyn StreamPort {
            &mut self.0
        }
        fn flush(&mut self) {}
        fn stats(&self) -> StreamStats {
            StreamPort::stats(&self.0)
        }
    }
    // Nobody listens there: it goes on trying.
    let load = Load { sources: Vec::new(), ..load(Exchange::Connect, "127.0.0.1:1".parse().unwrap()) };
    for (wasteful, wanted) in [(false, 0), (true, 2 * u64::from(STEADY))] {
        let (count, outcome) = counted(&load, Idle(over_sockets(&load).unwrap(), wasteful), Wasteful);
        // Both edges belong to one turn or the other.
        assert!(count.abs_diff(wanted) <= 2, "{count}, {wanted}: {outcome:?}");
    }
}
