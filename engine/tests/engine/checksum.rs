//! Answers whose checksum somebody below the engine finishes.

use crate::peer::{FAMILIES, PORT, socket};
use crate::running::PATIENCE;
use std::time::Instant;
use volley::app::{App, Ctx};
use volley::datagram::Datagram;
use volley::engine::config::TxChecksum;
use volley::engine::{Config, Engine};
use volley_testlab::{Lab, LabOptions, require_root};

/// Answers in capitals: what it sends needs a checksum of its own.
struct Shout;

impl App for Shout {
    type Msg = ();

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, ()>) {
        let (len, path) = (datagram.payload().len(), datagram.path());
        datagram.room_mut()[..len].make_ascii_uppercase();
        if len < 100 {
            ctx.send(&path, b"and unasked").unwrap();
        }
        datagram.reply(len);
    }
}

#[test]
fn changed_answers_arrive_whole_when_the_kernel_finishes_their_checksums() {
    if !require_root() {
        return;
    }
    for (mtu, lens) in [(1500, [401, 1401]), (9000, [1401, 5001])] {
        changed_answers(&Lab::with(LabOptions { mtu, ..LabOptions::default() }), lens);
    }
}

/// In packets of one frame the kernel does; an engine that sends chains does it itself, whatever it was told.
fn changed_answers(lab: &Lab, lens: [usize; 2]) {
    let mut config = Config {
        interface: Some(lab.engine_if().into()),
        require_xdp: true,
        pin: false,
        ..Config::default()
    };
    config.af_xdp.tx_checksum = TxChecksum::Kernel;
    let engine = lab.engine().run(|| Engine::start(config, |_| Shout).unwrap());
    let mut buffer = [0; 65_536];
    for family in FAMILIES {
        let socket = socket(lab, family, PORT);
        let mut heard = |question: &[u8], answer: &[u8]| {
            let until = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < until, "{} bytes from {}", answer.len(), family.0);
                let _ = socket.send(question);
                match socket.recv(&mut buffer) {
                    Ok(len) if buffer[..len] == *answer => return,
                    _ => {}
                }
            }
        };
        heard(b"hello", b"HELLO");
        heard(b"hello", b"and unasked");
        for len in lens {
            heard(&vec![b'a'; len], &vec![b'A'; len]);
        }
    }
    let report = engine.stop().unwrap();
    assert_eq!((report.total.via_kernel, report.total.dropped), (0, 0), "{report}");
    assert!(report.total.ledger_balances && report.total.ledger.abandoned == 0, "{report}");
}
