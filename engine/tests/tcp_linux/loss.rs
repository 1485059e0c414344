//! Packets lost, duplicated and overtaken in both directions; the bytes arrive all the same.

use crate::rig::{PATIENCE, Rig, V4, V6, assert_echoed, assert_same, connect, patient, pattern};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{Read, Write};
use std::net::{Shutdown as Half, SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};
use volley::app::tcp::{TcpDiscard, TcpEcho};
use volley::app::{App, Ctx};
use volley::stream::{CloseReason, Peer, Shutdown, StreamEvent};
use volley_testlab::{Direction, Impairment, PEER_IPV4, PEER_IPV6, require_root};

const LOSS_1: Impairment = Impairment { loss: 0.01, duplicate: 0.0, reorder: 0.0 };
const LOSS_5: Impairment = Impairment { loss: 0.05, duplicate: 0.0, reorder: 0.0 };
const LOSS_10: Impairment = Impairment { loss: 0.10, duplicate: 0.0, reorder: 0.0 };
const TWICE: Impairment = Impairment { loss: 0.0, duplicate: 0.10, reorder: 0.0 };
const MIXED: Impairment = Impairment { loss: 0.0, duplicate: 0.0, reorder: 0.10 };
const ALL: Impairment = Impairment { loss: 0.02, duplicate: 0.05, reorder: 0.05 };

/// As much as each can carry in some seconds of a busy machine.
const TRANSFERS: [(&str, Impairment, usize); 6] = [
    ("1 % loss", LOSS_1, 12 << 20),
    ("5 % loss", LOSS_5, 4 << 20),
    ("10 % loss", LOSS_10, 1 << 20),
    ("10 % twice", TWICE, 4 << 20),
    ("10 % overtaken", MIXED, 2 << 20),
    ("all of it", ALL, 2 << 20),
];

#[test]
fn an_echo_over_a_bad_link_is_exact() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    let mut impair = rig.lab.impair();
    for (n, (what, impairment, len)) in TRANSFERS.into_iter().enumerate() {
        impair.set_both(impairment);
        let began = std::time::Instant::now();
        let stream = rig.connect(if n % 2 == 0 { V4 } else { V6 });
        assert_echoed(&stream, &pattern(n as u64, len));
        eprintln!("{what}: {len} bytes echoed in {:?}", began.elapsed());
    }
    impair.set_both(Impairment::default());
    for direction in [Direction::FromClient, Direction::ToClient] {
        let counts = impair.counts(direction);
        assert!(
            counts.lost > 150 && counts.duplicated > 150 && counts.held > 100,
            "{direction:?}: {counts:?}"
        );
    }
    let report = rig.stop();
    let streams = report.total.streams;
    assert!(streams.retransmitted > 50, "{report}");
    assert_eq!(
        (streams.accepted, streams.reset, streams.timed_out),
        (TRANSFERS.len() as u64, 0, 0),
        "{report}"
    );
    assert_eq!(streams.received_bytes, streams.sent_bytes, "{report}");
}

#[test]
fn many_connections_over_a_bad_link_are_exact_and_all_end() {
    if !require_root() {
        return;
    }
    const CLIENTS: u64 = 96;
    let rig = Rig::start(TcpEcho::default);
    let mut impair = rig.lab.impair();
    impair.set_both(Impairment { loss: 0.03, duplicate: 0.02, reorder: 0.02 });
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let lab = &rig.lab;
            scope.spawn(move || {
                // Some at once, and all in turn.
                for round in 0..CLIENTS / 16 {
                    let streams = [V4, V6].map(|address| connect(lab, address));
                    for (n, stream) in streams.iter().enumerate() {
                        let seed = worker << 16 | round << 8 | n as u64;
                        assert_echoed(stream, &pattern(seed, 10_000 + 1_000 * n + 97 * round as usize));
                    }
                }
            });
        }
    });
    impair.set_both(Impairment::default());
    let report = rig.stop();
    assert_eq!(report.total.streams.accepted, CLIENTS, "{report}");
    assert_eq!(report.total.streams.timed_out, 0, "{report}");
}

/// Opens connections to an echo server of the kernel's, from the port that is steered here.
struct Caller {
    servers: Vec<SocketAddr>,
    data: Vec<u8>,
    tell: Sender<(SocketAddr, Vec<u8>, CloseReason)>,
    calls: Vec<Call>,
}

struct Call {
    peer: Peer,
    server: SocketAddr,
    sent: usize,
    got: Vec<u8>,
}

impl App for Caller {
    type Msg = ();

    fn on_start(&mut self, ctx: &mut Ctx<'_, ()>) {
        for server in std::mem::take(&mut self.servers) {
            let local = if server.is_ipv4() { V4 } else { V6 };
            let peer = ctx.connect(0, Some(local), server).unwrap();
            self.calls.push(Call { peer, server, sent: 0, got: Vec::new() });
        }
    }

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let at = self.calls.iter().position(|call| call.peer == peer).unwrap();
        let call = &mut self.calls[at];
        if let Ok(mut stream) = ctx.stream(peer) {
            let mut room = [0; 8192];
            while let Ok(n @ 1..) = stream.read(&mut room) {
                call.got.extend(&room[..n]);
            }
            if call.sent < self.data.len() {
                while let Ok(n @ 1..) = stream.write(&self.data[call.sent..]) {
                    call.sent += n;
                    if call.sent == self.data.len() {
                        stream.shutdown(Shutdown::Write).unwrap();
                        break;
                    }
                }
            }
            if event == StreamEvent::PeerClosed {
                stream.close().unwrap();
            }
        }
        if let StreamEvent::Closed(reason) = event {
            let call = self.calls.remove(at);
            let _ = self.tell.send((call.server, call.got, reason));
        }
    }
}

#[test]
fn connections_that_we_open_are_exact_over_a_bad_link() {
    if !require_root() {
        return;
    }
    // The servers must be there before the engine calls them, and the lab before the servers.
    let (tell, told) = channel();
    let ports = 9000..9004u16;
    let servers: Vec<SocketAddr> = ports
        .map(|port| match port % 2 {
            0 => (PEER_IPV4, port).into(),
            _ => (PEER_IPV6, port).into(),
        })
        .collect();
    let data = pattern(77, 600_000);
    // A call that finds nobody is refused; so a first rig would call too early: it calls when it is told to, by its first client.
    let caller = {
        let (servers, data) = (servers.clone(), data.clone());
        move || OnDemand {
            caller: Caller {
                servers: servers.clone(),
                data: data.clone(),
                tell: tell.clone(),
                calls: Vec::new(),
            },
            called: false,
        }
    };
    let rig = Rig::start(caller);
    let mut impair = rig.lab.impair();
    impair.set_both(Impairment { loss: 0.03, duplicate: 0.03, reorder: 0.03 });
    let listeners: Vec<_> =
        servers.iter().map(|server| rig.lab.peer().run(|| TcpListener::bind(server).unwrap())).collect();
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                // A call that never comes fails the test, and does not hang it.
                let patience = TimeVal::seconds(PATIENCE.as_secs() as i64);
                setsockopt(listener, sockopt::ReceiveTimeout, &patience).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                patient(&stream);
                let mut writer = stream.try_clone().unwrap();
                let mut room = vec![0; 65_536];
                loop {
                    match stream.read(&mut room).unwrap() {
                        0 => break,
                        n => writer.write_all(&room[..n]).unwrap(),
                    }
                }
                writer.shutdown(Half::Write).unwrap();
            });
        }
        let go = rig.connect(V4);
        for _ in &servers {
            let (server, got, reason) =
                told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{}", rig.report()));
            assert_same(&got, &data, &server.to_string());
            assert_eq!(reason, CloseReason::Finished, "{server}");
        }
        drop(go);
    });
    impair.set_both(Impairment::default());
    let report = rig.stop();
    assert_eq!(report.total.streams.connected, servers.len() as u64, "{report}");
}

/// Calls when somebody connects.
struct OnDemand {
    caller: Caller,
    called: bool,
}

impl App for OnDemand {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        if self.caller.calls.iter().any(|call| call.peer == peer) {
            return self.caller.on_stream(peer, event, ctx);
        }
        if !std::mem::replace(&mut self.called, true) {
            self.caller.on_start(ctx);
        }
        TcpDiscard.on_stream(peer, event, ctx);
    }
}
