//! Somebody else's program on the interface.

use std::path::PathBuf;

use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use volley_steer::abi::programs::PORT_FILTER;
use volley_testlab::{Lab, require_root};
use volley_xdp::foreign::Kind;
use volley_xdp::{AttachError, AttachOptions, Inspection, Mode, Steering, inspect, object};

use crate::stage::{Holder, LEAST, attach, options, program_on};

fn filter() -> Ebpf {
    let mut object = EbpfLoader::new().load(object::OBJECT).unwrap();
    let program: &mut Xdp = object.program_mut(PORT_FILTER).unwrap().try_into().unwrap();
    program.load().unwrap();
    object
}

fn by_link(lab: &Lab, mode: XdpMode) -> Ebpf {
    let mut object = filter();
    lab.engine().run(|| {
        let program: &mut Xdp = object.program_mut(PORT_FILTER).unwrap().try_into().unwrap();
        program.attach(lab.engine_if(), mode).unwrap();
    });
    object
}

/// Attaches as an administrator would, with iproute2: from a pin, by netlink.
fn by_netlink(lab: &Lab, mode: &str) {
    let mut object = filter();
    let program: &mut Xdp = object.program_mut(PORT_FILTER).unwrap().try_into().unwrap();
    // volley load mounts the file system when a machine has none.
    lab.engine().run(|| volley_xdp::load::load(&options(lab), false)).unwrap();
    lab.engine().run(|| volley_xdp::load::unload(lab.engine_if(), true)).unwrap();
    let pin = PathBuf::from(format!("/sys/fs/bpf/{}", lab.name()));
    program.pin(&pin).unwrap();
    let attached = lab
        .engine()
        .command("ip")
        .args(["link", "set", "dev", lab.engine_if(), mode, "pinned"])
        .arg(&pin)
        .output();
    std::fs::remove_file(&pin).unwrap();
    let attached = attached.unwrap();
    assert!(attached.status.success(), "{attached:?}");
}

#[track_caller]
fn assert_occupied(lab: &Lab, mode: Mode, kind: Kind) {
    let id = program_on(lab).unwrap();
    let error = attach(lab).unwrap_err();
    let AttachError::Occupied { foreign, .. } = &error else { panic!("{error}") };
    assert_eq!((foreign.program_id, foreign.mode, foreign.kind), (id, mode, kind));
    assert_eq!(foreign.name.as_deref(), Some(PORT_FILTER));
    assert!(error.to_string().contains("take its place with --replace"), "{error}");
    let seen = lab.engine().run(|| inspect(lab.engine_if())).unwrap();
    assert_eq!(seen, Inspection::Foreign(foreign.clone()));
    assert_eq!(program_on(lab), Some(id), "looking has changed nothing");
}

#[track_caller]
fn assert_replaced(lab: &Lab) {
    let before = program_on(lab).unwrap();
    let steering =
        lab.engine().run(|| Steering::attach(&AttachOptions { replace: true, ..options(lab) })).unwrap();
    let takeover = steering.takeover().unwrap();
    assert_eq!(takeover.from.program_id, before);
    assert!(!takeover.gap.is_zero());
    assert_eq!(program_on(lab), Some(steering.info().unwrap().program_id));
    drop(steering);
    assert_eq!(program_on(lab), None);
}

#[test]
fn a_program_held_by_link_is_named_and_replaced() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for (xdp_mode, mode) in [(XdpMode::Driver, Mode::Native), (XdpMode::Skb, Mode::Generic)] {
        let _theirs = by_link(&lab, xdp_mode);
        assert_occupied(&lab, mode, Kind::Link);
        assert_replaced(&lab);
    }
}

#[test]
fn a_program_attached_by_netlink_is_named_and_replaced() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for (iproute_mode, mode) in [("xdpdrv", Mode::Native), ("xdpgeneric", Mode::Generic)] {
        by_netlink(&lab, iproute_mode);
        assert_occupied(&lab, mode, Kind::Netlink);
        assert_replaced(&lab);
    }
}

#[test]
fn with_the_least_capabilities_a_link_is_seen_and_stays() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let theirs = by_link(&lab, XdpMode::Driver);
    let id = program_on(&lab);
    let line = Holder::start(&lab, Some(LEAST), &[]).line();
    assert!(line.contains("native mode, attached by link"), "{line}");
    let line = Holder::start(&lab, Some(LEAST), &["--replace"]).line();
    assert!(line.contains("cannot be taken off") && line.contains("CAP_SYS_ADMIN"), "{line}");
    assert_eq!(program_on(&lab), id);
    drop(theirs);
    // One attached by netlink needs no more than the least.
    by_netlink(&lab, "xdpdrv");
    let mut holder = Holder::start(&lab, Some(LEAST), &["--replace"]);
    assert_eq!(Some(holder.attached()), program_on(&lab));
}
