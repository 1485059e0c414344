//! Attaching without pins.

use volley_testlab::{Lab, require_root};
use volley_xdp::{
    Action, AttachError, AttachMode, AttachOptions, Counter, Inspection, Mode, Steering, inspect,
};

use crate::stage::{Holder, LEAST, Sockets, attach, eventually, options, program_on, udp};

#[test]
fn the_attachment_is_a_link_that_ends_with_steering() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let steering = attach(&lab).unwrap();
    let info = steering.info().unwrap();
    assert_eq!(program_on(&lab), Some(info.program_id));
    assert_eq!((info.mode, info.pinned.as_ref(), info.abi), (Mode::Native, None, volley_xdp::ABI_VERSION));
    assert!(lab.engine().run(|| steering.is_attached()));
    // A netlink attachment would let itself be replaced.
    let mut ip = lab.engine().command("ip");
    let off = ip.args(["link", "set", "dev", lab.engine_if(), "xdp", "off"]).output().unwrap();
    assert!(!off.status.success());
    // Any other process finds the same.
    match lab.engine().run(|| inspect(lab.engine_if())).unwrap() {
        Inspection::Volley { info: found, .. } => assert_eq!(found, info),
        other => panic!("{other:?}"),
    }
    drop(steering);
    assert_eq!(program_on(&lab), None);
    assert_eq!(lab.engine().run(|| inspect(lab.engine_if())).unwrap(), Inspection::Nothing);
}

#[test]
fn a_killed_process_leaves_nothing_and_the_next_starts_at_once() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for _ in 0..3 {
        let mut holder = Holder::start(&lab, None, &["--claim", "game", "7777", "7777"]);
        assert_eq!(Some(holder.attached()), program_on(&lab));
        assert_eq!(holder.line(), "claimed");
        holder.kill();
        eventually("the interface is the kernel's", || program_on(&lab).is_none());
    }
    let mut holder = Holder::start(&lab, None, &["--claim", "game", "7777", "7777"]);
    holder.attached();
    assert_eq!(holder.line(), "claimed");
    let log = holder.finish();
    assert_eq!(log.lines().count(), 1, "one line about the dead owner: {log}");
    assert!(log.contains("owner `game`") && log.contains("is gone"), "{log}");
}

#[test]
fn a_wrong_interface_name_lists_the_right_ones() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let wrong = AttachOptions { interface: "eht0".into(), ..AttachOptions::default() };
    let error = lab.engine().run(|| Steering::attach(&wrong)).unwrap_err();
    assert!(matches!(error, AttachError::NoInterface(_)));
    let text = error.to_string();
    assert!(text.contains("no interface eht0") && text.contains(lab.engine_if()), "{text}");
}

#[test]
fn modes_are_forced_or_fall_back() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let with = |interface: &str, mode| {
        let options = AttachOptions { interface: interface.to_owned(), mode, replace: false };
        lab.engine().run(|| Steering::attach(&options))
    };
    assert_eq!(with(lab.engine_if(), AttachMode::Generic).unwrap().mode(), Mode::Generic);
    assert_eq!(with(lab.engine_if(), AttachMode::Native).unwrap().mode(), Mode::Native);
    // The loopback's driver has no XDP.
    let error = with("lo", AttachMode::Native).unwrap_err();
    assert!(matches!(error, AttachError::Refused { mode: Mode::Native, .. }), "{error}");
    assert!(error.to_string().contains("--mode generic"), "{error}");
    assert_eq!(with("lo", AttachMode::Auto).unwrap().mode(), Mode::Generic);
}

#[test]
fn the_least_capabilities_suffice_and_a_missing_one_is_named() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut holder = Holder::start(&lab, Some(LEAST), &["--claim", "least", "7000", "8000"]);
    assert_eq!(Some(holder.attached()), program_on(&lab));
    assert_eq!(holder.line(), "claimed");
    // Without CAP_PERFMON it is the guarded program, and nameless; it decides the same.
    let dropped = || match lab.engine().run(|| inspect(lab.engine_if())).unwrap() {
        Inspection::Volley { counters, .. } => counters.get(Counter::RuleDrop),
        other => panic!("{other:?}"),
    };
    let sockets = Sockets::on(&lab, 7777);
    sockets.peer.send(b"drop me").unwrap();
    eventually("the drop", || dropped() == 1);
    assert!(sockets.is_silent());
    Sockets::on(&lab, 9000).assert_delivered();
    drop(holder);
    for (lacking, named) in [
        ("-all,+bpf,+net_raw,+ipc_lock", "CAP_NET_ADMIN"),
        ("-all,+net_admin,+net_raw,+ipc_lock", "CAP_BPF"),
        ("-all", "CAP_NET_ADMIN and CAP_BPF"),
    ] {
        let line = Holder::start(&lab, Some(lacking), &[]).line();
        assert!(line.starts_with(&format!("error: attaching XDP needs {named}, which")), "{line}");
        assert_eq!(program_on(&lab), None);
    }
}

#[test]
fn a_second_process_is_told_of_the_first() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut holder = Holder::start(&lab, None, &[]);
    let id = holder.attached();
    let error = attach(&lab).unwrap_err();
    let AttachError::Occupied { foreign, .. } = &error else { panic!("{error}") };
    assert!(foreign.volley && foreign.program_id == id);
    let text = error.to_string();
    assert!(
        text.contains(&format!("XDP program {id} `volley_steer`, native mode, attached by link")),
        "{text}"
    );
    assert!(text.contains("volley load") && text.contains("--replace"), "{text}");
    // Taken over, the first one's end changes nothing.
    let taken =
        lab.engine().run(|| Steering::attach(&AttachOptions { replace: true, ..options(&lab) })).unwrap();
    drop(holder);
    assert!(lab.engine().run(|| taken.is_attached()));
}

#[test]
fn an_interface_that_is_removed_takes_the_program_with_it() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let steering = attach(&lab).unwrap();
    steering.claim("game", &[udp(7777..=7777, Action::Drop)]).unwrap();
    lab.engine().exec(["ip", "link", "del", "dev", lab.engine_if()]);
    assert!(!lab.engine().run(|| steering.is_attached()));
    // Rules and counters are maps of ours still; the end is in order.
    steering.claim("game", &[]).unwrap();
    assert_eq!(steering.counters().unwrap().get(Counter::RuleDrop), 0);
    drop(steering);
    let error = attach(&lab).unwrap_err();
    assert!(matches!(error, AttachError::NoInterface(_)), "{error}");
}
