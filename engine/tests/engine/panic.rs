//! Workers that panic.

use crate::peer::{FAMILIES, PORT, assert_answers, echoes, socket};
use crate::queues::many_flows;
use crate::running::{PATIENCE, Running};
use volley::app::{App, Ctx};
use volley::datagram::Datagram;
use volley::engine::config::{Numbers, OnPanic};
use volley::engine::{Config, Engine, Notice};
use volley_testlab::{Lab, require_root};

/// An echo that panics when it is asked to.
struct Fragile;

impl App for Fragile {
    type Msg = ();
    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, _: &mut Ctx<'_, ()>) {
        assert!(datagram.payload() != b"panic", "asked to panic");
        datagram.reply(datagram.payload().len());
    }
}

fn engine(lab: &Lab, on_panic: OnPanic) -> Engine {
    let config = Config {
        interface: Some(lab.engine_if().into()),
        require_xdp: true,
        workers: Some(2),
        queues: Some(Numbers(vec![0, 1])),
        pin: false,
        on_panic,
        ..Config::default()
    };
    lab.engine().run(|| Engine::start(config, |_| Fragile).unwrap())
}

/// Has a worker panic; which one the kernel's hash decides.
fn provoke(lab: &Lab, engine: &Engine, family: usize) -> Notice {
    let socket = socket(lab, FAMILIES[family], PORT);
    assert!(echoes(&socket, b"alive"));
    socket.send(b"panic").unwrap();
    engine.wait(PATIENCE).expect("it is said that a worker panicked")
}

#[test]
fn a_worker_that_panics_leaves_its_queue_to_the_kernel_and_the_others_go_on() {
    if !require_root() {
        return;
    }
    for family in 0..FAMILIES.len() {
        let lab = Lab::new(2);
        let engine = engine(&lab, OnPanic::Exit);
        let Notice::Panicked { worker, message, again: false } = provoke(&lab, &engine, family) else {
            panic!("another notice");
        };
        assert!(message.contains("asked to panic"), "{message}");
        // What the dead one's queue gets is still answered, through the kernel sockets, which the other inherits if need be.
        many_flows(&lab);
        let report = engine.stop().unwrap();
        assert_eq!(report.workers[worker].state, "panicked");
        assert_eq!(report.workers[1 - worker].state, "drained");
        assert!(report.total.ledger_balances, "{report}");
        assert_eq!(
            (report.total.ledger.app, report.total.dropped_by_reason["app_panicked"]),
            (0, 1),
            "{report}"
        );
        assert!(report.total.via_kernel > 0, "{report}");
    }
}

#[test]
fn a_worker_that_panics_is_started_anew_if_told_to() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = engine(&lab, OnPanic::Restart);
    let mut panics = 0;
    for family in 0..FAMILIES.len() {
        let Notice::Panicked { worker, again: true, .. } = provoke(&lab, &engine, family) else {
            panic!("another notice");
        };
        assert_eq!(engine.wait(PATIENCE), Some(Notice::Restarted { worker }));
        panics += 1;
        many_flows(&lab);
    }
    let report = engine.stop().unwrap();
    assert_eq!(report.workers.iter().map(|worker| worker.restarts).sum::<u32>(), panics);
    assert!(report.workers.iter().all(|worker| worker.state == "drained"), "{report}");
    assert!(report.total.ledger_balances, "{report}");
    assert_eq!(report.total.dropped_by_reason["app_panicked"], u64::from(panics), "{report}");
    // Counters go on where the predecessor's ended.
    assert_eq!(report.total.received, report.total.answered + u64::from(panics), "{report}");
}

#[test]
fn the_command_says_so_and_fails() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = Running::start(&lab, &["--app", "fragile", "--workers", "2", "--no-pin"]);
    assert_answers(&lab);
    socket(&lab, FAMILIES[0], PORT).send(b"panic").unwrap();
    let ended = engine.ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("panicked") && ended.said.contains("the kernel's now"), "{}", ended.said);
    ended.assert_balanced();
    let states: Vec<_> = (0..2).map(|n| ended.report["workers"][n]["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"panicked") && states.contains(&"drained"), "{states:?}");

    let mut engine =
        Running::start(&lab, &["--app", "fragile", "--workers", "2", "--no-pin", "--on-panic", "restart"]);
    socket(&lab, FAMILIES[1], PORT).send(b"panic").unwrap();
    assert!(engine.wait_for("runs again"), "{}", engine.said());
    assert_answers(&lab);
    engine.stop();
}
