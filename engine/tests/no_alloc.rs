//! The way of a packet does not allocate: a counting allocator over a worker's turns.

use std::sync::Arc;
use volley::app::{App, Ctx, WorkerId};
use volley::datagram::{Datagram, DatagramPort};
use volley::net::neighbours::{Neighbour, Reached, Route, Update, address, subscription};
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig, Path, Tag};
use volley::port::{MemoryConfig, MemoryPort, MemoryWire, Port};
use volley::time::Now;
use volley::worker::{Board, Helpers, Mailboxes, Waker, Worker, WorkerConfig};
use volley_count_alloc::allocations;

/// Answers, sends unasked to where it heard from and to where it has not, sets timers, posts to itself.
struct Busy {
    timers: u64,
    posts: u64,
    unasked: u64,
}

impl App for Busy {
    type Msg = u64;

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, u64>) {
        let len = datagram.payload().len();
        match datagram.payload().first() {
            Some(0) => datagram.consume(),
            Some(1) => {
                datagram.room_mut()[0] = 7;
                datagram.reply(len);
            }
            Some(2) => {
                let path = datagram.path();
                self.unasked += u64::from(ctx.send(&path, &[9; 40]).is_ok());
                let local = "10.1.0.1:7777".parse().expect("an address");
                let other =
                    Path::to(0, local, "10.1.0.99:7".parse().expect("an address")).expect("one family");
                self.unasked += u64::from(ctx.send(&other, &[9; 40]).is_ok());
            }
            Some(3) => {
                ctx.timer(ctx.now().ns + 5, 1);
                let _ = ctx.post(WorkerId(0), 5);
            }
            _ => datagram.reply(len),
        }
    }
    fn on_timer(&mut self, _key: u64, _ctx: &mut Ctx<'_, u64>) {
        self.timers += 1;
    }
    fn on_post(&mut self, _msg: u64, _ctx: &mut Ctx<'_, u64>) {
        self.posts += 1;
    }
}

fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (source, destination) in [("10.1.0.2:5000", "10.1.0.1:7777"), ("[fd00::2]:5000", "[fd00::1]:7777")]
    {
        for kind in 0..6 {
            let mut packet =
                Packet::new(source.parse().unwrap(), destination.parse().unwrap(), &[kind; 22]);
            packets.push(packet.build());
            packet.options = vec![1, 1, 1, 0];
            packet.tags = vec![Tag { tpid: 0x8100, tci: 5 }];
            packet.payload = vec![kind; 4000];
            packets.push(packet.build());
            let mut broken = packet.build();
            broken[60] ^= 1;
            packets.push(broken);
        }
    }
    packets.push(b"a runt".to_vec());
    packets
}

fn round(worker: &mut Worker<Busy>, wire: &mut MemoryWire, packets: &[Vec<u8>], now: &mut Now) {
    for packet in packets {
        wire.inject(0, packet).expect("frames are posted");
    }
    for _ in 0..4 {
        now.ns += 1000;
        worker.turn(*now);
        wire.collect(|_| {});
    }
}

#[test]
fn a_worker_in_full_swing_does_not_allocate() {
    let (port, mut wire) = MemoryPort::new(&MemoryConfig {
        mtu: 9000,
        max_segments: 8,
        ring: 512,
        frames: 2048,
        ..MemoryConfig::default()
    });
    let (links, mut control) = subscription(Arc::new(Waker::new(|| {})));
    let peer = |text: &str| address(text.parse().unwrap());
    let route = Route {
        prefix: peer("10.1.0.0"),
        prefix_len: 120,
        metric: 0,
        gateway: None,
        source: None,
        tag: Tag::default(),
    };
    let link = volley::net::neighbours::Link::Present { up: true, mac: [2; 6], mtu: 9000 };
    for update in [
        Update::Link(link),
        Update::Route(route, true),
        Update::Address(peer("10.1.0.1"), true),
        Update::Complete,
    ] {
        control.updates.push(update).unwrap();
    }
    let port: Box<dyn Port> = Box::new(port);
    let net: Net = Net::new(port, NetConfig { links: Some(links), ..NetConfig::default() });
    let ports: Vec<Box<dyn DatagramPort>> = vec![Box::new(net)];
    let waker = Arc::new(Waker::new(|| {}));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
    let helpers = Helpers::new(4, waker);
    let app = Busy { timers: 0, posts: 0, unasked: 0 };
    let config = WorkerConfig { tick_ns: Some(1000), ..WorkerConfig::new(WorkerId(0)) };
    let mut worker = Worker::new(&config, app, ports, mailboxes, helpers);
    let board = Board::new(1, 0);
    let mut now = Now { ns: 1_000_000, unix_secs: 0 };
    worker.start(now);
    let packets = packets();

    // Whatever is set up on first use: scratch memory for chains.
    round(&mut worker, &mut wire, &packets, &mut now);
    let mut news = (0u32..).map(|n| {
        let neighbour = Neighbour { tag: Tag::default(), address: u128::from(n % 6000).to_be_bytes() };
        Update::Neighbour(neighbour, (n % 3 != 0).then_some(Reached { mac: [2; 6], stale: false }))
    });
    let count = allocations(|| {
        for _ in 0..2000 {
            for update in news.by_ref().take(8) {
                let _ = control.updates.push(update);
            }
            while control.asks.pop().is_ok() {}
            round(&mut worker, &mut wire, &packets, &mut now);
            worker.publish(&board);
        }
    });
    assert_eq!(count, 0, "allocations and frees in 2,000 rounds");
    // It was in full swing.
    let app = worker.app();
    assert!(board.turns.get().ticks > 2000, "no ticks");
    assert!(app.timers > 2000 && app.posts > 2000 && app.unasked > 2000, "nothing happened");
    assert_eq!(allocations(|| drop(vec![1])), 2, "the counter counts");
}

#[test]
#[cfg(target_os = "linux")]
fn a_worker_over_kernel_sockets_does_not_allocate() {
    use std::net::{SocketAddr, UdpSocket};
    use volley::datagram::{SocketConfig, SocketModel};

    let own: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let any: [SocketAddr; 2] = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let (mut ports, mut bound) = (Vec::<Box<dyn DatagramPort>>::new(), Vec::new());
    for model in SocketModel::ALL {
        for addresses in [own, any].iter().take(if model.tells_local_address() { 2 } else { 1 }) {
            let config = SocketConfig { port: ports.len() as u8, ..SocketConfig::default() };
            let open = model.open(addresses, &config).unwrap();
            ports.push(open.port);
            bound.extend(open.addresses);
        }
    }
    let servers: Vec<_> =
        bound.iter().map(|at| SocketAddr::new(own[usize::from(at.is_ipv6())].ip(), at.port())).collect();
    let clients = own.map(|address| UdpSocket::bind(address).unwrap());
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());

    let waker = Arc::new(Waker::new(|| {}));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
    let app = Busy { timers: 0, posts: 0, unasked: 0 };
    let helpers = Helpers::new(4, waker);
    let mut worker = Worker::new(&WorkerConfig::new(WorkerId(0)), app, ports, mailboxes, helpers);
    let mut now = Now { ns: 1_000_000, unix_secs: 0 };
    worker.start(now);

    let mut answers = 0;
    let count = allocations(|| {
        let mut buffer = [0; 2048];
        for _ in 0..200 {
            for server in &servers {
                for kind in 0..6 {
                    clients[usize::from(server.is_ipv6())].send_to(&[kind; 700], server).unwrap();
                }
            }
            for _ in 0..4 {
                now.ns += 1000;
                worker.turn(now);
            }
            for client in &clients {
                while client.recv(&mut buffer).is_ok() {
                    answers += 1;
                }
            }
        }
    });
    assert_eq!(count, 0, "allocations and frees in 200 rounds over kernel sockets");
    // Of six datagrams four are answered (one of them unasked), on every socket.
    assert!(answers > 200 * servers.len() * 3, "only {answers} answers");
}

#[test]
#[cfg(target_os = "linux")]
fn a_worker_over_kernel_streams_does_not_allocate() {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use volley::app::tcp::TcpEcho;
    use volley::stream::{EpollStreams, StreamConfig, StreamPort, UringStreams};

    const MESSAGE: usize = 700;
    let any: [SocketAddr; 1] = ["127.0.0.1:0".parse().unwrap()];
    let config = StreamConfig { connections: Some(64), ..StreamConfig::default() };
    let epoll = EpollStreams::open(&any, &config, 2).unwrap();
    let uring = UringStreams::open(&any, &config, 2).unwrap();
    let servers = [epoll.addresses().next().unwrap(), uring.addresses().next().unwrap()];
    let ports: Vec<Box<dyn StreamPort>> = vec![Box::new(epoll), Box::new(uring)];

    let waker = Arc::new(Waker::new(|| {}));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
    let helpers = Helpers::new(4, waker);
    let config = WorkerConfig::new(WorkerId(0));
    let mut worker =
        Worker::new(&config, TcpEcho::default(), vec![], mailboxes, helpers).with_streams(ports);
    let mut now = Now { ns: 1_000_000, unix_secs: 0 };
    worker.start(now);

    let mut clients: Vec<_> = servers
        .iter()
        .flat_map(|server| (0..8).map(move |_| TcpStream::connect(server).unwrap()))
        .collect();
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    let mut echo = |rounds: usize| {
        let (mut buffer, mut answered) = ([0; 4096], 0);
        for _ in 0..rounds {
            for client in &mut clients {
                assert_eq!(client.write(&[7; MESSAGE]).unwrap(), MESSAGE);
            }
            for _ in 0..4 {
                now.ns += 1000;
                worker.turn(now);
            }
            for client in &mut clients {
                while let Ok(n @ 1..) = client.read(&mut buffer) {
                    answered += n;
                }
            }
        }
        answered
    };
    // Memory for what is received and sent is made when it is first needed, and kept.
    echo(100);
    let mut answered = 0;
    let count = allocations(|| answered = echo(200));
    assert_eq!(count, 0, "allocations and frees in 200 rounds over kernel streams");
    assert!(answered > 190 * 16 * MESSAGE, "only {answered} bytes came back");
}

#[test]
fn a_port_without_a_kernel_does_not_allocate() {
    use volley::datagram::{Batch, Datagrams, Verdicts};
    use volley::net::standalone::{Gateway, LocalAddress, StandaloneConfig};

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let (port, mut wire) = MemoryPort::new(&MemoryConfig { mac: Some(OURS), ..MemoryConfig::default() });
    let (kernel, mut behind) = MemoryPort::new(&MemoryConfig::default());
    let local =
        |text: &str, prefix_len| LocalAddress { address: text.parse().unwrap(), prefix_len, vlan: None };
    let standalone = StandaloneConfig {
        addresses: vec![local("10.1.0.1", 16), local("fd00::1", 64)],
        gateways: vec![Gateway("10.1.255.254".parse().unwrap())],
        neighbours: 64,
        pending: 16,
        exception: Some(Box::new(kernel)),
        ..StandaloneConfig::default()
    };
    let port: Box<dyn Port> = Box::new(port);
    let mut net: Net = Net::new(port, NetConfig { standalone: Some(standalone), ..NetConfig::default() });
    let arp = |operation: u8, host: [u8; 2]| {
        let mac = [2, 9, 9, 9, host[0], host[1]];
        let kind = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
        [&OURS[..], &mac, &kind, &mac, &[10, 1, host[0], host[1]], &OURS, &[10, 1, 0, 1]].concat()
    };
    let hosts: Vec<[u8; 2]> = (0..400u16).map(|n| (n + 256).to_be_bytes()).collect();
    let frames: Vec<_> = hosts.iter().flat_map(|host| [arp(1, *host), arp(2, *host)]).collect();
    let ssh = [&OURS[..], &[2, 0, 0, 0, 0, 9, 0x88, 0xcc], &[1; 50]].concat();
    let path = |host: &[u8; 2]| {
        let peer = std::net::SocketAddr::from(([10, 1, host[0], host[1]], 9));
        Path::to(0, "10.1.0.1:7".parse().unwrap(), peer).unwrap()
    };
    let paths: Vec<_> = hosts.iter().map(path).collect();
    let (mut batch, none) = (Batch::default(), Verdicts::new());
    let mut sent = 0;
    let count = allocations(|| {
        for n in 0..20_000usize {
            let now = Now { ns: n as u64 * 10_000_000, unix_secs: 0 };
            let _ = wire.inject(0, &frames[n * 7 % frames.len()]);
            let _ = wire.inject(0, &frames[2 * (n / 9 % hosts.len()) + 1]);
            let _ = wire.inject(0, &ssh);
            let _ = behind.inject(0, &ssh);
            net.recv(&mut batch, now);
            net.open(&mut batch, &mut Datagrams::new());
            net.settle(&mut batch, &none);
            sent += u32::from(net.send(&paths[n / 9 % paths.len()], 900, &mut |room| room.fill(1)).is_ok());
            net.flush();
            wire.collect(|_| {});
            behind.collect(|_| {});
        }
    });
    assert_eq!(count, 0, "allocations and frees in 20,000 rounds without a kernel");
    let (alone, stats) = (net.standalone_stats().unwrap(), net.stats());
    assert!(alone.evicted > 100 && alone.solicited > 1000 && alone.arp_answered > 1000, "{alone:?}");
    assert!(sent > 1000 && stats.passed > 1000 && alone.forwarded > 1000, "{sent} sent, {stats:?}");
}
