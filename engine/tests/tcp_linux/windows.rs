//! Nobody reads for seconds: windows close, are probed, and open again.

use crate::rig::{PATIENCE, Rig, V4, V6, assert_same, pattern};
use std::io::{Read, Write};
use std::net::Shutdown as Half;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use volley::app::tcp::{TcpChargen, TcpEcho};
use volley::app::{App, Ctx};
use volley::stream::{Peer, StreamEvent};
use volley_testlab::{Impairment, require_root};

/// Long enough for several probes by both sides (200 ms, then twice as long each time).
const SECONDS: Duration = Duration::from_secs(3);

#[test]
fn a_client_that_does_not_read_for_seconds_gets_every_byte_afterwards() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpChargen::default);
    let mut impair = rig.lab.impair();
    // Probes and window updates are lost as well.
    impair.set_both(Impairment { loss: 0.02, ..Impairment::default() });
    let readers = [V4, V6, V4].map(|address| rig.connect(address));
    std::thread::sleep(SECONDS);
    for reader in &readers {
        let mut lines = vec![0; 74 * 95 * 300];
        { reader }.read_exact(&mut lines).unwrap_or_else(|error| panic!("{error}\n{}", rig.report()));
        for (n, line) in lines.chunks(74).enumerate() {
            let expected = (0..72).map(|at| b' ' + ((n + at) % 95) as u8);
            assert!(
                line[..72].iter().copied().eq(expected),
                "line {n} of {}",
                reader.local_addr().unwrap()
            );
        }
    }
    drop(readers); // with bytes unread: the kernel resets
    impair.set_both(Impairment::default());
    let report = rig.stop();
    assert_eq!((report.total.streams.slow_readers, report.total.streams.timed_out), (0, 0), "{report}");
}

#[test]
fn an_echo_whose_windows_are_closed_both_ways_goes_on() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    let mut impair = rig.lab.impair();
    impair.set_both(Impairment { loss: 0.02, ..Impairment::default() });
    let data = pattern(3, 24 << 20);
    let stream = rig.connect(V4);
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        // More than all buffers on the way hold: the writer stands still until somebody reads.
        let writer = scope.spawn(|| {
            { &stream }.write_all(&data).unwrap();
            stream.shutdown(Half::Write).unwrap();
        });
        std::thread::sleep(SECONDS);
        assert!(!writer.is_finished(), "windows are closed by then");
        { &stream }.read_to_end(&mut got).unwrap();
    });
    assert_same(&got, &data, "the echo");
    impair.set_both(Impairment::default());
    rig.stop();
}

/// Reads nothing until its timer fires, then everything.
struct Sleeper {
    wake_after: Duration,
    peers: Vec<(Peer, Vec<u8>)>,
    tell: Sender<Vec<u8>>,
    awake: bool,
}

impl App for Sleeper {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        if event == StreamEvent::Opened {
            self.peers.push((peer, Vec::new()));
            let at = ctx.now().ns + self.wake_after.as_nanos() as u64;
            ctx.timer(at, 0).unwrap();
        }
        if self.awake {
            self.read(peer, event == StreamEvent::PeerClosed, ctx);
        }
    }

    fn on_timer(&mut self, _: u64, ctx: &mut Ctx<'_, ()>) {
        self.awake = true;
        for at in 0..self.peers.len() {
            let peer = self.peers[at].0;
            self.read(peer, false, ctx);
        }
    }
}

impl Sleeper {
    fn read(&mut self, peer: Peer, ended: bool, ctx: &mut Ctx<'_, ()>) {
        let Some(at) = self.peers.iter().position(|(known, _)| *known == peer) else { return };
        let Ok(mut stream) = ctx.stream(peer) else { return };
        let mut room = [0; 8192];
        while let Ok(n @ 1..) = stream.read(&mut room) {
            self.peers[at].1.extend(&room[..n]);
        }
        if ended {
            stream.close().unwrap();
            let _ = self.tell.send(self.peers.remove(at).1);
        }
    }
}

#[test]
fn our_closed_window_holds_a_kernel_sender_and_loses_nothing() {
    if !require_root() {
        return;
    }
    let (tell, told) = channel();
    let rig = Rig::start(move || Sleeper {
        wake_after: SECONDS,
        peers: Vec::new(),
        tell: tell.clone(),
        awake: false,
    });
    let mut impair = rig.lab.impair();
    impair.set_both(Impairment { loss: 0.02, ..Impairment::default() });
    let data = pattern(4, 8 << 20);
    let stream = rig.connect(V4);
    { &stream }.write_all(&data).unwrap();
    stream.shutdown(Half::Write).unwrap();
    let got = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{}", rig.report()));
    assert_same(&got, &data, "what our app read");
    impair.set_both(Impairment::default());
    rig.stop();
}
