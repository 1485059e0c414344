//! The stream apps over kernel TCP on the loopback, over each port there is for it, with std's sockets as their clients.

use super::*;
use crate::app::{App, Ctx, WorkerId};
use crate::stream::{
    CloseReason, EpollStreams, Peer, StreamConfig, StreamEvent, StreamPort, StreamStats, UringStreams,
};
use crate::worker::clock::Clock;
use crate::worker::{Helpers, Mailboxes, Waker, Worker, WorkerConfig};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A port over kernel TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Epoll,
    IoUring,
    /// With a kernel thread that looks for work.
    Sqpoll,
}

macro_rules! over_each {
    ($($test:ident)*) => {
        mod epoll { $(#[test] fn $test() { super::$test(super::Kernel::Epoll); })* }
        mod sqpoll { $(#[test] fn $test() { super::$test(super::Kernel::Sqpoll); })* }
        mod io_uring { $(#[test] fn $test() { super::$test(super::Kernel::IoUring); })* }
    };
}

over_each! {
    an_echo_of_megabytes_survives_partial_writes_and_half_close
    events_are_edges_and_closed_is_the_last
    a_peer_that_does_not_read_is_disconnected_and_others_are_served
    discard_reads_all_and_a_reset_is_counted
    sockperfs_messages_come_back_marked_as_answers_and_others_end_the_stream
    who_finds_no_slot_is_reset_and_counted
    a_taken_port_names_who_has_it
    an_app_without_streams_turns_them_away
    active_opens_succeed_and_are_refused
    unread_bytes_are_bounded_and_who_exceeds_them_is_disconnected
}

impl Kernel {
    /// A port on a free port of the loopback, and its address.
    fn open(self, config: &StreamConfig) -> (Box<dyn StreamPort>, SocketAddr) {
        let any = ["127.0.0.1:0".parse().unwrap()];
        match self {
            Kernel::Epoll => {
                let port = EpollStreams::open(&any, config, 1).unwrap();
                let address = port.addresses().next().unwrap();
                (Box::new(port), address)
            }
            Kernel::IoUring | Kernel::Sqpoll => {
                let config = StreamConfig { sqpoll: self == Kernel::Sqpoll, ..config.clone() };
                let port = UringStreams::open(&any, &config, 1).unwrap();
                let address = port.addresses().next().unwrap();
                (Box::new(port), address)
            }
        }
    }
}

/// A worker on a thread of its own, until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    stats: Arc<Mutex<StreamStats>>,
    thread: Option<JoinHandle<StreamStats>>,
}

impl Server {
    fn new<A: App<Msg = ()> + Send>(kernel: Kernel, config: &StreamConfig, app: A) -> Server {
        let (port, address) = kernel.open(config);
        let stop = Arc::new(AtomicBool::new(false));
        let stats = Arc::new(Mutex::new(StreamStats::default()));
        let (asked, published) = (Arc::clone(&stop), Arc::clone(&stats));
        let thread = std::thread::spawn(move || {
            let waker = Arc::new(Waker::new(|| ()));
            let mailboxes = Mailboxes::mesh(&[Arc::clone(&waker)], 4).remove(0);
            let config = WorkerConfig::new(WorkerId(0));
            let mut worker = Worker::new(&config, app, vec![], mailboxes, Helpers::new(1, waker))
                .with_streams(vec![port]);
            let mut clock = Clock::new();
            worker.start(clock.now());
            while !asked.load(Ordering::Relaxed) {
                if worker.turn(clock.now()).work == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                *published.lock().unwrap() = worker.stream_ports()[0].stats();
            }
            worker.stop(clock.now(), 0);
            worker.close_streams()[0].streams
        });
        Server { address, stop, stats, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn until(&self, what: &str, done: impl Fn(&StreamStats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = *self.stats.lock().unwrap();
            if done(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {stats:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(mut self) -> StreamStats {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Writes down every event, and answers with an echo.
#[derive(Default)]
struct Diary(TcpEcho, Arc<Mutex<Vec<(usize, u32, StreamEvent)>>>);

impl App for Diary {
    type Msg = ();
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        self.1.lock().unwrap().push((peer.slot(), peer.generation(), event));
        self.0.on_stream(peer, event, ctx);
        if matches!(event, StreamEvent::Closed(_)) {
            assert!(ctx.stream(peer).is_ok(), "still there in its last callback");
        }
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 255) as u8).collect()
}

fn an_echo_of_megabytes_survives_partial_writes_and_half_close(kernel: Kernel) {
    let server = Server::new(
        kernel,
        &StreamConfig { buffer: 16 << 10, ..StreamConfig::default() },
        TcpEcho::default(),
    );
    let sent = bytes(3 << 20);
    let stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // Let the echo's window close before reading.
    std::thread::sleep(Duration::from_millis(100));
    let mut got = Vec::new();
    (&stream).read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    server.until("the end", |stats| stats.open == 0);
    let stats = server.end();
    assert_eq!((stats.accepted, stats.closed, stats.received_bytes), (1, 1, 3 << 20));
    assert_eq!(stats.sent_bytes, 3 << 20);
}

fn events_are_edges_and_closed_is_the_last(kernel: Kernel) {
    let diary = Diary::default();
    let events = Arc::clone(&diary.1);
    let server = Server::new(kernel, &StreamConfig::default(), diary);
    for generation in 0..2 {
        let mut stream = server.connect();
        stream.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(stream);
        server.until("the end", |stats| stats.closed == generation + 1 && stats.open == 0);
    }
    let stats = server.end();
    let events = events.lock().unwrap();
    for generation in 0..2 {
        let of: Vec<_> = events.iter().filter(|(slot, g, _)| *slot == 0 && *g == generation).collect();
        let kinds: Vec<_> = of.iter().map(|(_, _, event)| *event).collect();
        assert_eq!(kinds[0], StreamEvent::Opened, "{kinds:?}");
        assert_eq!(kinds.last(), Some(&StreamEvent::Closed(CloseReason::Finished)), "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == StreamEvent::PeerClosed).count(), 1, "{kinds:?}");
        assert!(kinds.len() <= 5, "coalesced: {kinds:?}");
    }
    assert_eq!(stats.events as usize, events.len());
}

fn a_peer_that_does_not_read_is_disconnected_and_others_are_served(kernel: Kernel) {
    let config = StreamConfig { slow_reader_ns: 300_000_000, buffer: 16 << 10, ..StreamConfig::default() };
    let server = Server::new(kernel, &config, TcpChargen::default());
    let slow = server.connect();
    server.until("the slow one to go", |stats| stats.slow_readers == 1);
    let mut quick = server.connect();
    let mut lines = vec![0; 74 * 95];
    quick.read_exact(&mut lines).unwrap();
    assert!(lines.starts_with(b" !\"#$") && lines.ends_with(b"\r\n"));
    // It is told by a reset, after what had been buffered for it.
    let mut rest = Vec::new();
    assert!((&slow).read_to_end(&mut rest).is_err(), "{} bytes", rest.len());
    assert!(rest.len() < 4 << 20, "bounded: {} bytes", rest.len());
    drop(quick);
    server.until("the end", |stats| stats.open == 0);
    server.end();
}

fn discard_reads_all_and_a_reset_is_counted(kernel: Kernel) {
    let server = Server::new(kernel, &StreamConfig::default(), TcpDiscard);
    let mut stream = server.connect();
    stream.write_all(&bytes(1 << 20)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    let stream = server.connect();
    server.until("the second", |stats| stats.accepted == 2);
    let linger = nix::sys::socket::sockopt::Linger;
    nix::sys::socket::setsockopt(&stream, linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(stream);
    server.until("the reset", |stats| stats.reset == 1 && stats.open == 0);
    assert_eq!(server.end().received_bytes, 1 << 20);
}

fn sockperfs_messages_come_back_marked_as_answers_and_others_end_the_stream(kernel: Kernel) {
    let server = Server::new(kernel, &StreamConfig::default(), TcpSockperf::default());
    let message = |flags: u8, body: &[u8]| {
        let length = (14 + body.len()) as u32;
        [&7u64.to_be_bytes()[..], &[0, flags], &length.to_be_bytes(), body].concat()
    };
    let mut stream = server.connect();
    // In two pieces, the first of which ends within the header; then one that wants no answer, and a bare header.
    let first = message(3, b"fifty bytes or so");
    stream.write_all(&first[..9]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(&first[9..]).unwrap();
    stream.write_all(&[message(1, b"silent"), message(3, b"")].concat()).unwrap();
    let wanted = [message(2, b"fifty bytes or so"), message(2, b"")].concat();
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, wanted);
    stream.write_all(&[0xff; 20]).unwrap();
    assert!(!matches!(stream.read(&mut [0; 8]), Ok(1..)), "a length beyond all bounds");
    server.until("the end", |stats| stats.open == 0);
    server.end();
}

fn who_finds_no_slot_is_reset_and_counted(kernel: Kernel) {
    let server = Server::new(
        kernel,
        &StreamConfig { connections: Some(2), ..StreamConfig::default() },
        TcpEcho::default(),
    );
    let held: Vec<_> = (0..2).map(|_| server.connect()).collect();
    server.until("two", |stats| stats.open == 2);
    let mut third = server.connect();
    assert!(!matches!(third.read(&mut [0; 8]), Ok(1..)));
    server.until("the refusal", |stats| stats.refused_full == 1);
    drop(held);
    server.until("room", |stats| stats.open == 0);
    let mut fourth = server.connect();
    fourth.write_all(b"x").unwrap();
    fourth.read_exact(&mut [0; 1]).unwrap();
    drop(fourth);
    server.end();
}

fn a_taken_port_names_who_has_it(kernel: Kernel) {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let open = |config: &StreamConfig| match kernel {
        Kernel::Epoll => EpollStreams::open(&[taken], config, 1).map(|_| ()),
        _ => UringStreams::open(&[taken], config, 1).map(|_| ()),
    };
    let error = open(&StreamConfig::default()).unwrap_err().to_string();
    for part in [taken.to_string(), format!("(pid {})", std::process::id()), "stop it".into()] {
        assert!(error.contains(&part), "{part} in {error}");
    }
    drop(other);
    open(&StreamConfig::default()).unwrap();
}

/// An app that knows nothing of streams.
struct Deaf;
impl App for Deaf {
    type Msg = ();
}

fn an_app_without_streams_turns_them_away(kernel: Kernel) {
    let server = Server::new(kernel, &StreamConfig::default(), Deaf);
    let mut stream = server.connect();
    assert!(!matches!(stream.read(&mut [0; 8]), Ok(1..)));
    server.until("the end", |stats| stats.closed == 1 && stats.open == 0);
    server.end();
}

/// Opens streams itself: one to the echo, one to nobody.
struct Caller {
    to: SocketAddr,
    nobody: SocketAddr,
    told: Arc<Mutex<Vec<StreamEvent>>>,
    answer: Arc<Mutex<Vec<u8>>>,
    refused: Option<Peer>,
}

impl App for Caller {
    type Msg = ();
    fn on_start(&mut self, ctx: &mut Ctx<'_, ()>) {
        ctx.connect(0, None, self.to).unwrap();
        self.refused = Some(ctx.connect(0, Some("127.0.0.1:0".parse().unwrap()), self.nobody).unwrap());
        assert!(ctx.connect(1, None, self.to).is_err());
    }
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        if self.refused == Some(peer) {
            return self.told.lock().unwrap().push(event);
        }
        let mut stream = ctx.stream(peer).unwrap();
        match event {
            StreamEvent::Opened => {
                assert!(stream.info().unwrap().active);
                assert_eq!(stream.write(b"ping"), Ok(4));
            }
            StreamEvent::Readable => {
                let mut buffer = [0; 16];
                let n = stream.read(&mut buffer).unwrap();
                self.answer.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
            _ => {}
        }
    }
}

fn active_opens_succeed_and_are_refused(kernel: Kernel) {
    let echo = Server::new(kernel, &StreamConfig::default(), TcpEcho::default());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (told, answer) = (Arc::default(), Arc::default());
    let caller = Caller {
        to: echo.address,
        nobody,
        told: Arc::clone(&told),
        answer: Arc::clone(&answer),
        refused: None,
    };
    let caller = Server::new(kernel, &StreamConfig::default(), caller);
    let deadline = Instant::now() + Duration::from_secs(20);
    while answer.lock().unwrap().len() < 4 || told.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:?} {:?}", answer.lock().unwrap(), told.lock().unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(&*answer.lock().unwrap(), b"ping");
    assert_eq!(&*told.lock().unwrap(), &[StreamEvent::Closed(CloseReason::Refused)]);
    assert_eq!(caller.end().connected, 1);
    echo.end();
}

/// Reads nothing: what it was shown of one stream must move aside for the next.
struct Lazy;
impl App for Lazy {
    type Msg = ();
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        if event == StreamEvent::Readable {
            let mut stream = ctx.stream(peer).unwrap();
            assert!(!stream.peek().unwrap().is_empty());
        }
    }
}

fn unread_bytes_are_bounded_and_who_exceeds_them_is_disconnected(kernel: Kernel) {
    let server = Server::new(kernel, &StreamConfig { unread_chunks: 1, ..StreamConfig::default() }, Lazy);
    // One of them is one too many: over epoll beside a buffer that all share, over io_uring beside half of those that lie ready.
    let count = if kernel == Kernel::Epoll { 3 } else { 130 };
    let mut streams: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(b"look").unwrap();
        server.until("all to be shown", |stats| stats.received_bytes == 4 * (n as u64 + 1));
    }
    server.until("one too many", |stats| stats.no_memory == 1 && stats.open == count - 1);
    server.end();
}
