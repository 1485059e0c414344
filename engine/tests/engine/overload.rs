//! More than the engine can take.

use crate::peer::{FAMILIES, PORT, assert_answers, assert_kernel_has_the_rest, socket};
use crate::running::Running;
use std::time::Duration;
use volley_testlab::{Lab, require_root};

/// Datagrams of one flood: several times what the rings below hold.
const FLOOD: usize = 4096;

#[test]
fn what_does_not_fit_is_counted_and_afterwards_all_is_well() {
    if !require_root() {
        return;
    }
    for queues in [1, 2] {
        overload(queues);
    }
}

fn overload(queues: u32) {
    let lab = Lab::new(queues);
    let small = ["--frames", "768", "--rx-ring", "128", "--tx-ring", "128", "--no-pin"];
    let engine = Running::start(&lab, &small);
    for family in FAMILIES {
        let socket = socket(&lab, family, PORT);
        // Nobody fetches what arrives: the rings run full, for certain.
        engine.signal(nix::libc::SIGSTOP);
        for n in 0..FLOOD {
            let _ = socket.send(&n.to_be_bytes());
        }
        engine.signal(nix::libc::SIGCONT);
        // A flood while it runs, too: then it is the way out that may be full.
        for n in 0..FLOOD {
            let _ = socket.send(&n.to_be_bytes());
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_answers(&lab);
    }
    assert_kernel_has_the_rest(&lab);
    let ended = engine.stop();
    let workers = ended.report["workers"].as_array().unwrap();
    let port = |worker: &serde_json::Value| worker["ports"][0]["port"].clone();
    let count = |name: &str| workers.iter().map(|worker| port(worker)[name].as_u64().unwrap()).sum::<u64>();
    // In copy mode the kernel counts a packet that finds no frame both as dropped and as an empty fill ring.
    let lost = count("rx_ring_full") + count("fill_ring_empty") + count("rx_dropped");
    assert!(lost >= 2 * (FLOOD - 1024) as u64, "{:#}", ended.report);
    assert_eq!(count("invalid_descriptors"), 0, "{:#}", ended.report);
    assert_eq!(count("tx_frames"), count("tx_completed"), "{:#}", ended.report);
    // Nothing is unaccounted for: what came in was answered or dropped by reason.
    assert_eq!(ended.total("received"), ended.total("answered") + ended.dropped("tx_full"));
}
