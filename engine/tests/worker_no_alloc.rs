//! The hot path allocates nothing: a whole worker over memory ports, under an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use volley::app::{App, Ctx, WorkerId};
use volley::datagram::{Datagram, DatagramPort};
use volley::net::packet::Packet;
use volley::net::{Net, NetConfig, Path};

use volley::port::{MemoryConfig, MemoryPort, Port};
use volley::time::Now;
use volley::worker::{Board, Helpers, Mailboxes, Waker, Worker, WorkerConfig};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what the calling thread allocates.
struct Counting;

// SAFETY: everything is the system allocator's; counting touches a thread-local that needs no allocation and no drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(old, layout, new_size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Uses everything a callback may use.
#[derive(Default)]
struct Busy {
    peer: Option<Path>,
    timers: u64,
    ticks: u64,
    posts: u64,
}

impl App for Busy {
    type Msg = u64;

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, u64>) {
        let path = *datagram.path();
        self.peer = Some(path);
        match datagram.payload().first() {
            Some(0) => datagram.reply(datagram.payload().len()),
            Some(1) => datagram.reply_with(&[9; 40]),
            Some(2) => ctx.send(&path, b"unasked").unwrap(),
            Some(3) => {
                let timer = ctx.timer(ctx.now().ns + 10, 1).unwrap();
                assert!(ctx.timer(ctx.now().ns + 5, 2).is_some() && ctx.cancel(timer));
            }
            Some(4) => ctx.post(WorkerId(0), 7).unwrap(),
            _ => datagram.drop(volley::wire::DropReason::AppMalformed),
        }
    }
    fn on_timer(&mut self, _: u64, ctx: &mut Ctx<'_, u64>) {
        self.timers += 1;
        ctx.send(&self.peer.unwrap(), b"due").unwrap();
    }
    fn on_tick(&mut self, _: u64, _: &mut Ctx<'_, u64>) {
        self.ticks += 1;
    }
    fn on_post(&mut self, _: u64, _: &mut Ctx<'_, u64>) {
        self.posts += 1;
    }
}

fn packets() -> Vec<Vec<u8>> {
    let pairs: [(SocketAddr, SocketAddr); 2] = [
        ("10.0.0.2:40000".parse().unwrap(), "10.0.0.1:7777".parse().unwrap()),
        ("[fd00::2]:40000".parse().unwrap(), "[fd00::1]:7777".parse().unwrap()),
    ];
    let mut packets = Vec::new();
    for (from, to) in pairs {
        for kind in 0..6u8 {
            packets.push(Packet::new(from, to, &[kind; 32]).build());
        }
    }
    // A broken one.
    let mut runt = packets[0].clone();
    runt.truncate(30);
    packets.push(runt);
    packets
}

#[test]
fn a_turn_allocates_nothing_whatever_comes() {
    let (port, mut wire) = MemoryPort::new(&MemoryConfig::default());
    let port: Box<dyn Port> = Box::new(port);
    let net: Box<dyn DatagramPort> = Box::new(Net::new(port, NetConfig::default()));
    let waker = Arc::new(Waker::new(|| ()));
    let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 64).remove(0);
    let config = WorkerConfig { tick_ns: Some(50), ..WorkerConfig::new(WorkerId(0)) };
    let mut worker = Worker::new(&config, Busy::default(), vec![net], mailboxes, Helpers::new(4, waker));
    let board = Board::new(1);
    let packets = packets();
    let mut now = Now { ns: 1, unix_secs: 0 };
    worker.start(now);
    let mut allocated = 0;
    let mut came_back = 0;
    for round in 0..1000 {
        for packet in &packets {
            wire.inject(0, packet).unwrap();
        }
        now.ns += 20;
        let before = ALLOCATIONS.get();
        worker.turn(now);
        worker.publish(&board);
        // The first rounds may size what is sized once.
        if round >= 10 {
            allocated += ALLOCATIONS.get() - before;
        }
        came_back += wire.collect(|_| ());
    }
    let (app, stats) = (worker.app(), worker.ports()[0].stats());
    assert!(app.timers > 900 && app.ticks > 300 && app.posts > 900, "everything was used");
    assert!(stats.answered > 3900 && stats.sent > 1900 && stats.dropped_total() > 2900, "{stats:?}");
    assert_eq!(came_back as u64, stats.answered + stats.sent);
    assert_eq!(allocated, 0, "allocations in 990 turns");
    assert!(worker.ports()[0].ledger().balances());
}
