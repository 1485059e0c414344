//! The way of a packet does not allocate: a counting allocator over a worker's turns.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use volley::app::{App, Ctx, WorkerId};
use volley::datagram::{Datagram, DatagramPort};
use volley::net::neighbours::{Neighbour, Reached, Route, Update, address, subscription};
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig, Path, Tag};
use volley::port::{MemoryConfig, MemoryPort, MemoryWire, Port};
use volley::time::Now;
use volley::worker::{Board, Helpers, Mailboxes, Waker, Worker, WorkerConfig};

/// Counts what the watched thread allocates or frees.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if WATCHED.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches two thread locals without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates or frees.
fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.set(0);
    WATCHED.set(true);
    work();
    WATCHED.set(false);
    COUNT.get()
}

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
                let path = *datagram.path();
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
    let net: Net = Net::new(port, NetConfig { index: 0, links: Some(links) });
    let ports: Vec<Box<dyn DatagramPort>> = vec![Box::new(net)];
    let waker = Arc::new(Waker::new(|| {}));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).pop().unwrap();
    let helpers = Helpers::new(4, waker);
    let app = Busy { timers: 0, posts: 0, unasked: 0 };
    let config = WorkerConfig { tick_ns: Some(1000), ..WorkerConfig::new(WorkerId(0)) };
    let mut worker = Worker::new(&config, app, ports, mailboxes, helpers);
    let board = Board::new(1);
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
    use volley::datagram::{EpollPort, MmsgPort, SocketConfig};

    let own: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let any: [SocketAddr; 2] = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let config = |port| SocketConfig { port, ..SocketConfig::default() };
    let offloads = SocketConfig { gso: true, gro: true, ..config(2) };
    let epoll = EpollPort::open(&own, &config(0)).unwrap();
    let mmsg = MmsgPort::open(&any, &config(1)).unwrap();
    let offloads = MmsgPort::open(&own, &offloads).unwrap();
    let bound = [epoll.local_addresses(), mmsg.local_addresses(), offloads.local_addresses()].concat();
    let servers: Vec<_> =
        bound.iter().map(|at| SocketAddr::new(own[usize::from(at.is_ipv6())].ip(), at.port())).collect();
    let clients = own.map(|address| UdpSocket::bind(address).unwrap());
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());

    let ports: Vec<Box<dyn DatagramPort>> = vec![Box::new(epoll), Box::new(mmsg), Box::new(offloads)];
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
        for _ in 0..500 {
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
    assert_eq!(count, 0, "allocations and frees in 500 rounds over kernel sockets");
    // Of six datagrams four are answered (one of them unasked), over three ports and two families.
    assert!(answers > 500 * 3 * 2 * 3, "only {answers} answers");
}
