//! Connections that end badly: resets in the middle of a stream, and peers that are gone without a word.

use crate::rig::{PATIENCE, Rig, V4, V6, assert_echoed, pattern};
use socket2::{SockRef, TcpKeepalive};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;
use volley::app::tcp::{TcpChargen, TcpEcho};
use volley::app::{App, Ctx};
use volley::stream::{Peer, StreamEvent};
use volley_testlab::{Impairment, LabOptions, require_root};

/// Closes with a reset, whatever is on its way.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Closes so that nothing leaves: the kernel forgets the connection, as a machine that crashed has (TCP_REPAIR).
fn forget(stream: TcpStream) {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives as long as the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "TCP_REPAIR: {}", std::io::Error::last_os_error());
}

#[test]
fn resets_by_clients_in_the_middle_of_a_stream_end_their_connection_only() {
    if !require_root() {
        return;
    }
    const RESETS: usize = 40;
    let rig = Rig::start(TcpEcho::default);
    let steady = rig.connect(V4);
    let bytes = pattern(1, 300_000);
    std::thread::scope(|scope| {
        let exchange = scope.spawn(|| {
            // Round trips through all of it, so that harm would show.
            for message in bytes.chunks(1_500) {
                { &steady }.write_all(message).unwrap();
                let mut got = vec![0; message.len()];
                { &steady }.read_exact(&mut got).unwrap();
                assert_eq!(got, message);
            }
        });
        for n in 0..RESETS {
            let mut stream = rig.connect(if n % 2 == 0 { V4 } else { V6 });
            // Data of both directions is on its way.
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(&bytes);
            if n % 4 > 1 {
                let _ = stream.read(&mut [0; 4096]);
            }
            reset(stream);
        }
        exchange.join().unwrap();
    });
    assert_echoed(&steady, &bytes);
    drop(steady);
    let report = rig.stop();
    assert_eq!(report.total.streams.reset, RESETS as u64, "{report}");
}

/// Aborts once it has read so many bytes.
struct Aborter {
    after: usize,
    read: Vec<usize>,
}

impl App for Aborter {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        self.read.resize(self.read.len().max(peer.slot() + 1), 0);
        if event == StreamEvent::Opened {
            self.read[peer.slot()] = 0;
        }
        let Ok(mut stream) = ctx.stream(peer) else { return };
        while let Ok(n @ 1..) = stream.peek().map(<[u8]>::len) {
            stream.consume(n).unwrap();
            let _ = stream.write(b"not yet");
            self.read[peer.slot()] += n;
            if self.read[peer.slot()] > self.after {
                stream.abort().unwrap();
                return;
            }
        }
        if event == StreamEvent::PeerClosed {
            let _ = stream.close();
        }
    }
}

#[test]
fn our_reset_reaches_clients_in_the_middle_of_their_stream() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(|| Aborter { after: 100_000, read: Vec::new() });
    for n in 0..10 {
        let stream = rig.connect(if n % 2 == 0 { V4 } else { V6 });
        let error = { &stream }.write_all(&pattern(n, 16 << 20)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
    let report = rig.stop();
    assert!(report.total.streams.resets_sent >= 10, "{report}");
}

#[test]
fn keep_alive_ends_a_silent_connection_whose_link_is_cut() {
    if !require_root() {
        return;
    }
    // The way stays known, or what fails would be the neighbour.
    let lab = LabOptions { neighbours: true, ..LabOptions::default() };
    let rig = Rig::with(lab, |tcp| tcp.keep_alive_secs = 1, TcpEcho::default);
    let mut impair = rig.lab.impair();
    let streams = [V4, V6].map(|address| rig.connect(address));
    for stream in &streams {
        { stream }.write_all(b"hello").unwrap();
        { stream }.read_exact(&mut [0; 5]).unwrap();
    }
    // A peer that is there answers its probes for as long as it takes.
    std::thread::sleep(Duration::from_secs(3));
    let before = rig.report().total.streams;
    assert_eq!((before.open, before.timed_out), (2, 0));
    impair.set_both(Impairment { loss: 1.0, ..Impairment::default() });
    rig.wait("two connections time out", |s| s.timed_out == 2 && s.open == 0);
    // The link is back, and the client comes with a connection that nobody knows.
    impair.set_both(Impairment::default());
    for stream in &streams {
        let outcome =
            { stream }.write_all(b"still there?").and_then(|()| { stream }.read_exact(&mut [0; 1]));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    rig.stop();
}

#[test]
fn peers_that_forgot_their_connection_reset_it_when_they_are_asked() {
    if !require_root() {
        return;
    }
    let rig = Rig::with(LabOptions::default(), |tcp| tcp.keep_alive_secs = 1, TcpEcho::default);
    for address in [V4, V6] {
        let stream = rig.connect(address);
        { &stream }.write_all(b"hello").unwrap();
        { &stream }.read_exact(&mut [0; 5]).unwrap();
        forget(stream);
    }
    rig.wait("two resets", |s| s.reset == 2 && s.open == 0);
    rig.stop();
}

#[test]
fn a_client_that_forgot_its_connection_can_open_it_anew_from_the_same_port() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    let stream = rig.connect(V4);
    let local = stream.local_addr().unwrap();
    forget(stream);
    // Half-open at our side: SYN gets a challenge ACK, the kernel answers it with a reset, and its next SYN opens
    // (RFC 9293, section 3.5.1, and RFC 5961, section 4).
    let again = rig.lab.peer().run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect_timeout(&V4.into(), PATIENCE).unwrap();
        TcpStream::from(socket)
    });
    crate::rig::patient(&again);
    assert_echoed(&again, &pattern(5, 100_000));
    drop(again);
    let report = rig.stop();
    let streams = report.total.streams;
    assert!(streams.accepted == 2 && streams.reset == 1 && streams.challenge_acks >= 1, "{report}");
}

#[test]
fn a_peer_that_vanishes_while_we_send_is_given_up_and_its_memory_comes_back() {
    if !require_root() {
        return;
    }
    let lab = LabOptions { neighbours: true, ..LabOptions::default() };
    let rig = Rig::with(lab, |tcp| tcp.slow_reader_ms = 2_000, TcpChargen::default);
    let mut impair = rig.lab.impair();
    let readers: Vec<_> = (0..8).map(|n| rig.connect(if n % 2 == 0 { V4 } else { V6 })).collect();
    for reader in &readers {
        { reader }.read_exact(&mut [0; 100_000]).unwrap();
    }
    impair.set_both(Impairment { loss: 1.0, ..Impairment::default() });
    rig.wait("eight are given up", |s| s.slow_readers == 8 && s.open == 0);
    impair.set_both(Impairment::default());
    drop(readers);
    rig.stop();
}

#[test]
fn the_kernels_keep_alive_is_answered() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    let stream = rig.connect(V4);
    let keep = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(2);
    SockRef::from(&stream).set_tcp_keepalive(&keep).unwrap();
    // Unanswered, it would be over after three seconds.
    let before = rig.report().total.streams.segments_sent;
    rig.wait("answers to its probes", |s| s.segments_sent >= before + 4);
    assert_echoed(&stream, b"still here");
    drop(stream);
    rig.stop();
}
