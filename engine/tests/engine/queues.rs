//! Several queues and workers.

use crate::peer::{FAMILIES, PORT, assert_answers, echoes, socket};
use crate::running::{Ended, Running};
use volley_testlab::{Lab, require_root};

/// Flows in each family: the kernel's hash spreads them over the queues, so that all of 32 meet in one of two queues once
/// in four billion times.
const FLOWS: usize = 32;

/// Sends from many ports; all must be answered.
pub fn many_flows(lab: &Lab) {
    for family in FAMILIES {
        for flow in 0..FLOWS {
            let socket = socket(lab, family, PORT);
            assert!(echoes(&socket, format!("flow {flow}").as_bytes()), "flow {flow} to {}", family.0);
        }
    }
}

fn answered_by(ended: &Ended, worker: usize, port: usize) -> u64 {
    ended.report["workers"][worker]["ports"][port]["datagrams"]["answered"].as_u64().unwrap()
}

#[test]
fn each_worker_answers_its_queue() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = Running::start(&lab, &["--workers", "2", "--no-pin"]);
    many_flows(&lab);
    let ended = engine.stop();
    assert!(answered_by(&ended, 0, 0) > 0 && answered_by(&ended, 1, 0) > 0, "{:#}", ended.report);
    assert_eq!(ended.total("via_kernel"), 0, "{:#}", ended.report);
}

#[test]
fn one_worker_answers_several_queues() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(4);
    let engine = Running::start(&lab, &["--workers", "1"]);
    many_flows(&lab);
    let ended = engine.stop();
    assert_eq!(answered_by(&ended, 0, 0), ended.total("answered"));
    assert_eq!((ended.total("via_kernel"), ended.verdict("no_socket_pass")), (0, 0));
}

#[test]
fn packets_on_an_unserved_queue_are_answered_and_counted() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = Running::start(&lab, &["--queues", "1"]);
    assert_answers(&lab);
    many_flows(&lab);
    let ended = engine.stop();
    assert!(ended.total("via_kernel") > 0 && ended.verdict("no_socket_pass") > 0, "{:#}", ended.report);
    assert!(answered_by(&ended, 0, 0) > 0, "{:#}", ended.report);
}

#[test]
fn unserved_queues_may_drop_instead() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = Running::start(&lab, &["--queues", "1", "--unbound", "drop"]);
    let sockets: Vec<_> = (0..FLOWS).map(|_| socket(&lab, FAMILIES[0], PORT)).collect();
    for socket in &sockets {
        socket.send(b"once").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    }
    let answered = sockets.iter().filter(|socket| socket.recv(&mut [0; 16]).is_ok()).count() as u64;
    let ended = engine.stop();
    assert_eq!((ended.total("answered"), ended.total("via_kernel")), (answered, 0));
    assert_eq!(ended.verdict("no_socket_drop"), FLOWS as u64 - answered, "{:#}", ended.report);
}
