//! The worker over ports made of queues, with the time in the test's hands.

use super::*;
use crate::app::{App, Ctx, WorkerId};
use crate::datagram::{
    Batch, Datagram, DatagramPort, DatagramStats, Datagrams, Opened, SendError, Verdict, Verdicts,
};
use crate::frame::{BURST, FramePool, Ledger};
use crate::net::Path;
use crate::time::Now;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use volley_wire::DropReason;

/// Both ends of the wire of a [`QueuePort`].
#[derive(Default)]
struct Wire {
    arriving: VecDeque<Vec<u8>>,
    /// Answered or sent, not flushed.
    queued: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    /// While set, what is queued stays there: the port is not drained.
    stuck: bool,
    receiving: bool,
    failure: Option<String>,
    deadline: Option<u64>,
}

/// A datagram port over two queues. An arriving packet is one datagram; the empty packet is a bad one.
struct QueuePort {
    wire: Arc<Mutex<Wire>>,
    pool: FramePool,
    stats: DatagramStats,
}

impl QueuePort {
    fn new() -> (QueuePort, Arc<Mutex<Wire>>) {
        let wire = Arc::new(Mutex::new(Wire { receiving: true, ..Wire::default() }));
        let port =
            QueuePort { wire: wire.clone(), pool: FramePool::new(128, 256, 0), stats: Default::default() };
        (port, wire)
    }
}

fn path() -> Path {
    Path::to(0, "10.0.0.1:7777".parse().unwrap(), "10.0.0.2:40000".parse().unwrap()).unwrap()
}

impl DatagramPort for QueuePort {
    fn name(&self) -> &str {
        "queue"
    }
    fn recv(&mut self, batch: &mut Batch, _now: Now) -> usize {
        assert!(batch.frames.is_empty() && batch.opened.is_empty(), "the batch is empty before");
        let mut wire = self.wire.lock().unwrap();
        while wire.receiving && !batch.frames.is_full() {
            let Some(packet) = wire.arriving.pop_front() else { break };
            let Some(mut frame) = self.pool.take(0) else { break };
            assert!(frame.set_len(packet.len()));
            frame.bytes_mut().copy_from_slice(&packet);
            batch.frames.push(frame);
        }
        batch.frames.len()
    }
    /// Gives out at most 16 at a time, as a port over kernel buffers may.
    fn open<'b>(&mut self, batch: &'b mut Batch, out: &mut Datagrams<'b>) -> usize {
        let Batch { frames, opened, paths, next_frame, .. } = batch;
        opened.clear();
        paths.clear();
        paths.push(path());
        let first = *next_frame;
        for (index, frame) in frames.iter().enumerate().skip(first) {
            if opened.len() == 16 {
                break;
            }
            *next_frame = index + 1;
            match frame.len() {
                0 => self.stats.drop(DropReason::Runt),
                len => opened.push(Opened {
                    frame: index as u16,
                    segments: 1,
                    len: len as u32,
                    ..Opened::default()
                }),
            }
        }
        let mut frames = frames.iter_mut().enumerate();
        for opened in opened.iter() {
            let (_, frame) = frames.find(|(index, _)| *index == opened.frame as usize).unwrap();
            out.push(Datagram::new(frame.room_mut(), opened.len as usize, &paths[0]));
        }
        self.stats.received += out.len() as u64;
        out.len()
    }
    fn settle(&mut self, batch: &mut Batch, verdicts: &Verdicts) {
        assert_eq!(batch.opened.len(), verdicts.len());
        for (opened, verdict) in batch.opened.drain(..).zip(verdicts) {
            match *verdict {
                Verdict::Reply { len, .. } => {
                    let frame = &mut batch.frames[opened.frame as usize];
                    self.wire.lock().unwrap().queued.push(frame.room_mut()[..len as usize].to_vec());
                    self.stats.answered += 1;
                }
                Verdict::Consume => self.stats.consumed += 1,
                Verdict::Drop(reason) => self.stats.drop(reason),
            }
        }
        if batch.next_frame == batch.frames.len() {
            batch.frames.drain(..).for_each(|frame| self.pool.give(frame));
            batch.next_frame = 0;
        }
    }
    fn send(&mut self, _: &Path, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), SendError> {
        let mut payload = vec![0; len];
        fill(&mut payload);
        self.wire.lock().unwrap().queued.push(payload);
        self.stats.sent += 1;
        Ok(())
    }
    fn flush(&mut self) {
        let mut wire = self.wire.lock().unwrap();
        if !wire.stuck {
            let queued = std::mem::take(&mut wire.queued);
            wire.sent.extend(queued);
        }
    }
    fn stats(&self) -> DatagramStats {
        self.stats
    }
    fn ledger(&self) -> Ledger {
        self.pool.ledger()
    }
    fn max_payload(&self, _: bool) -> usize {
        256
    }
    fn stop_rx(&mut self) {
        self.wire.lock().unwrap().receiving = false;
    }
    fn is_drained(&self) -> bool {
        self.wire.lock().unwrap().queued.is_empty()
    }
    fn failure(&self) -> Option<String> {
        self.wire.lock().unwrap().failure.clone()
    }
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
    fn next_deadline(&self) -> Option<u64> {
        self.wire.lock().unwrap().deadline
    }
}

/// Writes down what it is called with.
#[derive(Default)]
struct Diary {
    lines: Vec<String>,
    bursts: Vec<usize>,
}

enum Msg {
    Say(&'static str),
}

impl App for Diary {
    type Msg = Msg;
    fn on_burst(&mut self, burst: &mut [Datagram<'_>], ctx: &mut Ctx<'_, Msg>) {
        self.bursts.push(burst.len());
        for datagram in burst {
            match datagram.payload() {
                b"drop" => datagram.drop(DropReason::AppMalformed),
                b"quiet" => {}
                b"panic" => panic!("on purpose"),
                b"timer" => drop(ctx.timer(ctx.now().ns + 500, 42)),
                b"post" => assert!(ctx.post(WorkerId(0), Msg::Say("posted")).is_ok()),
                b"job" => assert!(ctx.offload(|| Msg::Say("computed")).is_ok()),
                b"push" => ctx.send(&datagram.path(), b"pushed").unwrap(),
                other => {
                    let len = other.len();
                    datagram.reply(len);
                }
            }
        }
    }
    fn on_start(&mut self, ctx: &mut Ctx<'_, Msg>) {
        self.lines.push(format!("start {}", ctx.now().ns));
    }
    fn on_timer(&mut self, key: u64, ctx: &mut Ctx<'_, Msg>) {
        self.lines.push(format!("timer {key} at {}", ctx.now().ns));
    }
    fn on_tick(&mut self, late_ns: u64, ctx: &mut Ctx<'_, Msg>) {
        self.lines.push(format!("tick at {} late {late_ns}", ctx.now().ns));
    }
    fn on_post(&mut self, Msg::Say(what): Msg, _: &mut Ctx<'_, Msg>) {
        self.lines.push(what.into());
    }
    fn on_shutdown(&mut self, deadline_ns: u64, ctx: &mut Ctx<'_, Msg>) {
        self.lines.push(format!("shutdown until {deadline_ns}"));
        ctx.send(&path(), b"bye").unwrap();
    }
}

fn at(ns: u64) -> Now {
    Now { ns, unix_secs: 0 }
}

fn worker(tick_ns: Option<u64>) -> (Worker<Diary>, Arc<Mutex<Wire>>) {
    let (port, wire) = QueuePort::new();
    let waker = Arc::new(Waker::new(|| ()));
    let mailboxes = Mailboxes::mesh(std::slice::from_ref(&waker), 128).remove(0);
    let config = WorkerConfig { tick_ns, timers: 128, ..WorkerConfig::new(WorkerId(0)) };
    let helpers = Helpers::new(4, waker);
    (Worker::new(&config, Diary::default(), vec![Box::new(port)], mailboxes, helpers), wire)
}

fn arrive(wire: &Mutex<Wire>, packets: &[&[u8]]) {
    wire.lock().unwrap().arriving.extend(packets.iter().map(|p| p.to_vec()));
}

#[test]
fn a_turn_answers_one_burst_and_rings_once_at_its_end() {
    let (mut worker, wire) = worker(None);
    worker.start(at(0));
    for n in 0..100u8 {
        arrive(&wire, &[&[b'x', n]]);
    }
    assert_eq!(worker.turn(at(1)), Turn { work: BURST });
    assert_eq!(wire.lock().unwrap().sent.len(), BURST);
    assert_eq!(worker.turn(at(2)), Turn { work: 100 - BURST });
    assert_eq!(worker.turn(at(3)), Turn { work: 0 });
    let sent = std::mem::take(&mut wire.lock().unwrap().sent);
    assert!(sent.iter().enumerate().all(|(n, packet)| packet == &[b'x', n as u8]), "{sent:?}");
    assert_eq!(worker.app().bursts, [16, 16, 16, 16, 16, 16, 4]);
    let stats = worker.stats();
    assert_eq!((stats.bursts, stats.frames, stats.turns, stats.idle_turns), (2, 100, 3, 1));
}

#[test]
fn every_datagram_is_counted_once_and_every_frame_comes_back() {
    let (mut worker, wire) = worker(None);
    arrive(&wire, &[b"a", b"drop", b"", b"quiet", b"b", b"push"]);
    worker.turn(at(0));
    let stats = worker.ports()[0].stats();
    assert_eq!((stats.received, stats.answered, stats.consumed, stats.sent), (5, 2, 2, 1));
    assert_eq!(stats.dropped[DropReason::Runt as usize], 1);
    assert_eq!(stats.dropped[DropReason::AppMalformed as usize], 1);
    assert_eq!(wire.lock().unwrap().sent, [&b"pushed"[..], b"a", b"b"]);
    let ledger = worker.ports()[0].ledger();
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
}

#[test]
fn a_burst_without_one_good_datagram_gives_its_frames_back() {
    let (mut worker, wire) = worker(None);
    arrive(&wire, &[&b""[..]; 40]);
    assert_eq!(worker.turn(at(0)).work, 40);
    assert!(worker.app().bursts.is_empty());
    assert_eq!(worker.ports()[0].ledger().free, 128);
}

#[test]
fn timers_ticks_posts_and_results_arrive() {
    let (mut worker, wire) = worker(Some(1_000));
    worker.start(at(100));
    arrive(&wire, &[b"timer", b"post", b"job"]);
    worker.turn(at(200));
    assert_eq!(worker.next_deadline(), Some(700));
    assert!(worker.has_messages());
    worker.turn(at(699));
    worker.turn(at(750));
    assert_eq!(worker.next_deadline(), Some(1_100));
    worker.turn(at(4_350));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while worker.stats().results == 0 && std::time::Instant::now() < until {
        worker.turn(at(4_400));
    }
    let expected = ["start 100", "posted", "timer 42 at 750", "tick at 4350 late 250", "computed"];
    let mut lines = worker.app().lines.clone();
    // The helper's result may come in before the timer or the tick.
    lines.sort_by_key(|line| line == "computed");
    assert_eq!(lines, expected);
    let stats = worker.stats();
    assert_eq!((stats.ticks, stats.ticks_skipped, stats.tick_late_max_ns), (1, 3, 250));
    assert_eq!((stats.timers, stats.posts, stats.results), (1, 1, 1));
}

#[test]
fn a_flood_of_due_timers_does_not_keep_packets_waiting() {
    let (mut worker, wire) = worker(None);
    for _ in 0..100 {
        arrive(&wire, &[b"timer"]);
    }
    worker.turn(at(0));
    worker.turn(at(0));
    arrive(&wire, &[b"urgent"]);
    let turn = worker.turn(at(10_000));
    assert_eq!(turn.work, 64 + 1);
    assert_eq!(wire.lock().unwrap().sent, [b"urgent"]);
    worker.turn(at(10_000));
    assert_eq!(worker.stats().timers, 100);
}

#[test]
fn stopping_receives_no_more_but_sends_what_is_left() {
    let (mut worker, wire) = worker(Some(1_000));
    worker.start(at(0));
    arrive(&wire, &[b"a"]);
    wire.lock().unwrap().stuck = true;
    worker.turn(at(10));
    arrive(&wire, &[b"late"]);
    worker.stop(at(20), 5_000);
    worker.stop(at(30), 6_000);
    assert_eq!(worker.turn(at(40)).work, 0);
    assert!(worker.is_stopping() && !worker.is_drained());
    wire.lock().unwrap().stuck = false;
    worker.turn(at(2_000));
    assert!(worker.is_drained());
    assert_eq!(wire.lock().unwrap().sent, [&b"a"[..], b"bye"]);
    assert_eq!(worker.app().lines, ["start 0", "shutdown until 5000"]);
}

#[test]
fn a_port_that_is_gone_is_named_once_and_left_alone() {
    let (mut worker, wire) = worker(None);
    wire.lock().unwrap().deadline = Some(7);
    assert_eq!((worker.failed_port(), worker.next_deadline()), (None, Some(7)));
    wire.lock().unwrap().failure = Some("queue: unplugged".into());
    assert_eq!(worker.failed_port(), Some((0, "queue: unplugged".into())));
    assert_eq!((worker.failed_port(), worker.next_deadline()), (None, None));
    arrive(&wire, &[b"a"]);
    assert_eq!(worker.turn(at(0)).work, 0);
    assert!(worker.is_drained());
}

#[test]
fn a_panic_in_a_burst_loses_no_frame_and_every_datagram_is_counted() {
    let (mut worker, wire) = worker(None);
    arrive(&wire, &[&b"a"[..]; 20]);
    arrive(&wire, &[b"panic", b"", b"b"]);
    let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.turn(at(0))));
    assert!(turn.is_err());
    assert!(worker.ports()[0].ledger().app > 0);
    worker.abandon();
    let (ledger, stats) = (worker.ports()[0].ledger(), worker.ports()[0].stats());
    assert!(ledger.balances() && ledger.app == 0, "{ledger}");
    // The first 16 went through; the second view of the burst held the rest.
    assert_eq!((stats.received, stats.answered), (22, 16));
    assert_eq!(stats.dropped[DropReason::AppPanicked as usize], 6);
    assert_eq!(stats.dropped[DropReason::Runt as usize], 1);
    assert_eq!(wire.lock().unwrap().sent.len(), 16);
    arrive(&wire, &[b"late"]);
    assert_eq!(worker.turn(at(1)).work, 0);
}

/// The loop itself: it sleeps, is woken by a message from another thread, drains and publishes.
#[test]
fn the_loop_sleeps_wakes_drains_and_publishes() {
    let (port, wire) = QueuePort::new();
    let mut sleeper = Sleeper::new().unwrap();
    let wakers = [sleeper.waker().clone(), Arc::new(Waker::new(|| ()))];
    let mut mesh = Mailboxes::mesh(&wakers, 8);
    let mut other = mesh.remove(1);
    let helpers = Helpers::new(1, wakers[0].clone());
    let stop = Stop::new();
    let board = Arc::new(Board::new(1, 0));
    let (thread_stop, thread_board) = (stop.clone(), board.clone());
    arrive(&wire, &[b"first"]);
    let thread = std::thread::spawn(move || {
        let config = WorkerConfig::new(WorkerId(0));
        let mut worker =
            Worker::new(&config, Diary::default(), vec![Box::new(port)], mesh.remove(0), helpers);
        let mut failures = Vec::new();
        let end = run(
            &mut worker,
            &mut sleeper,
            Run {
                idle: IdlePolicy::Sleep,
                drain_ns: 1_000_000_000,
                stop: &thread_stop,
                board: &thread_board,
                on_failure: &mut |port, reason| failures.push((port, reason)),
                exchange: &mut |_| false,
            },
        );
        (end, worker.app().lines.len(), failures)
    });
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !done() {
            assert!(std::time::Instant::now() < until, "{what} within 10 s");
            std::thread::yield_now();
        }
    };
    wait("a sleep", &|| board.turns.get().sleeps > 0);
    assert_eq!(board.ports[0].get().datagrams.answered, 1);
    other.post(WorkerId(0), Msg::Say("hello")).unwrap();
    wait("the message", &|| board.turns.get().posts == 1);
    wire.lock().unwrap().failure = Some("queue: unplugged".into());
    wait("the failure", &|| {
        board.turns.get().turns > 0 && Arc::strong_count(&wire) > 0 && {
            std::thread::sleep(std::time::Duration::from_millis(150));
            true
        }
    });
    stop.request();
    wakers[0].notify();
    let (end, lines, failures) = thread.join().unwrap();
    assert_eq!((end, lines), (End::Drained, 3));
    assert_eq!(failures, [(0, "queue: unplugged".to_owned())]);
    assert_eq!(board.ports[0].get().datagrams.received, 1);
}

/// What cannot be sent is given up at the deadline, and the loop says so.
#[test]
fn draining_ends_at_its_deadline() {
    let (mut worker, wire) = worker(None);
    wire.lock().unwrap().stuck = true;
    arrive(&wire, &[b"a"]);
    let stop = Stop::new();
    stop.request();
    let mut sleeper = Sleeper::new().unwrap();
    let board = Board::new(1, 0);
    let end = run(
        &mut worker,
        &mut sleeper,
        Run {
            idle: IdlePolicy::Sleep,
            drain_ns: 20_000_000,
            stop: &stop,
            board: &board,
            on_failure: &mut |_, _| {},
            exchange: &mut |_| false,
        },
    );
    assert_eq!(end, End::TimedOut);
}
