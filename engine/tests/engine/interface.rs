//! What happens to the interface while the engine runs.

use crate::peer::{assert_answers, assert_kernel_has_the_rest};
use crate::running::Running;
use volley_testlab::{ENGINE_IPV6, Lab, require_root};

/// Down and up again; the kernel forgets an interface's IPv6 addresses in between.
fn flap(lab: &Lab) {
    let interface = lab.engine_if();
    lab.engine().exec(["ip", "link", "set", interface, "down"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    lab.engine().exec(["ip", "link", "set", interface, "up"]);
    let address = format!("{ENGINE_IPV6}/64");
    lab.engine().exec(["ip", "address", "replace", &address, "dev", interface, "nodad"]);
}

#[test]
fn the_engine_survives_the_link_going_down_and_up() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let engine = Running::start(&lab, &[]);
    assert_answers(&lab);
    for _ in 0..2 {
        flap(&lab);
        assert_answers(&lab);
    }
    assert_kernel_has_the_rest(&lab);
    engine.stop();
}

#[test]
fn the_peers_end_may_go_down_and_up() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = Running::start(&lab, &[]);
    assert_answers(&lab);
    let interface = lab.peer_if();
    lab.peer().exec(["ip", "link", "set", interface, "down"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    lab.peer().exec(["ip", "link", "set", interface, "up"]);
    let address = format!("{}/64", volley_testlab::PEER_IPV6);
    lab.peer().exec(["ip", "address", "replace", &address, "dev", interface, "nodad"]);
    assert_answers(&lab);
    engine.stop();
}

#[test]
fn an_interface_that_is_removed_ends_the_engine_with_a_failure_that_says_so() {
    if !require_root() {
        return;
    }
    for queues in [1, 2] {
        let lab = Lab::new(queues);
        let engine = Running::start(&lab, &[]);
        assert_answers(&lab);
        lab.engine().exec(["ip", "link", "del", lab.engine_if()]);
        let ended = engine.ended();
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        assert!(
            ended.said.contains(lab.engine_if()) && ended.said.contains("the interface was removed"),
            "{}",
            ended.said
        );
        assert_eq!(ended.report["total"]["ledger_balances"], true, "{:#}", ended.report);
        assert_eq!(ended.report["total"]["ledger"]["app"], 0, "{:#}", ended.report);
        assert!(ended.total("answered") >= 4, "{:#}", ended.report);
    }
}
