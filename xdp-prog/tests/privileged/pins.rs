//! `volley load`, `--upgrade`, `volley unload`.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{Array, Map, MapData};
use aya::programs::Xdp;
use volley_steer::abi::{Rules, maps, programs};
use volley_steer::zerocopy::{FromZeros, IntoBytes};
use volley_testlab::{Lab, require_root};
use volley_xdp::load::{self, Change, Loaded};
use volley_xdp::{ABI_VERSION, Action, AttachError, Counter, Inspection, inspect, object};

use crate::stage::{Holder, LEAST, Pinned, Sockets, attach, count, eventually, options, program_on, udp};

fn upgrade(lab: &Lab) -> Result<Loaded, AttachError> {
    lab.engine().run(|| load::load(&options(lab), true))
}

/// Makes the pinned maps those of another version.
fn pretend_abi(loaded: &Loaded, abi: u32) {
    let map = MapData::from_pin(loaded.pins.join(maps::RULES)).unwrap();
    let mut map: Array<MapData, [u8; size_of::<Rules>()]> =
        Map::from_map_data(map).unwrap().try_into().unwrap();
    let mut rules = Rules::new_box_zeroed().unwrap();
    rules.control.abi_version = abi;
    let bytes: &[u8; size_of::<Rules>()] = rules.as_bytes().try_into().unwrap();
    map.set(0, bytes, 0).unwrap();
}

#[test]
fn what_is_loaded_is_used_and_stays() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (pinned, loaded) = Pinned::load(&lab);
    assert_eq!(program_on(&lab), Some(loaded.program_id));
    assert_eq!(loaded.change, Change::Attached(None));
    let again = lab.engine().run(|| load::load(&options(&lab), false)).unwrap();
    assert_eq!((again.program_id, again.change), (loaded.program_id, Change::None));

    let steering = attach(&lab).unwrap();
    assert!(steering.is_pinned());
    assert_eq!(steering.info().unwrap().program_id, loaded.program_id);
    assert_eq!(steering.info().unwrap().pinned, Some(loaded.pins.clone()));
    drop(steering);
    assert_eq!(program_on(&lab), Some(loaded.program_id));
    match lab.engine().run(|| inspect(lab.engine_if())).unwrap() {
        Inspection::Volley { info, .. } => assert_eq!(info.pinned, Some(loaded.pins.clone())),
        other => panic!("{other:?}"),
    }
    // Using it takes no more than the least capabilities.
    let mut holder = Holder::start(&lab, Some(LEAST), &["--claim", "least", "1", "2"]);
    assert_eq!(holder.line(), format!("attached {} pinned", loaded.program_id));
    assert_eq!(holder.line(), "claimed");

    let error = lab.engine().run(|| load::unload(lab.engine_if(), false)).unwrap_err();
    assert!(matches!(error, AttachError::StillUsed { pid, .. } if pid == holder.pid()), "{error}");
    drop(holder);
    assert_eq!(lab.engine().run(|| load::unload(lab.engine_if(), false)).unwrap(), loaded.program_id);
    assert_eq!(program_on(&lab), None);
    assert!(!loaded.pins.exists());
    let error = lab.engine().run(|| load::unload(lab.engine_if(), false)).unwrap_err();
    assert!(matches!(error, AttachError::NotPinned { running: false, .. }), "{error}");
    drop(pinned);
}

#[test]
fn an_upgrade_swaps_the_program_under_traffic_without_a_gap() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, loaded) = Pinned::load(&lab);
    let steering = attach(&lab).unwrap();
    steering.claim("game", &[udp(7777..=7777, Action::Drop)]).unwrap();
    let sockets = Sockets::on(&lab, 7777);
    let stop = AtomicBool::new(false);
    let (sent, last) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sent += u64::from(sockets.peer.send(b"storm").is_ok());
            }
            sent
        });
        let mut last = loaded.program_id;
        for _ in 0..10 {
            let upgraded = upgrade(&lab).unwrap();
            let from = Change::Upgraded { from_program: last, from_abi: ABI_VERSION, maps_kept: true };
            assert_eq!(upgraded.change, from);
            last = upgraded.program_id;
            assert_eq!(program_on(&lab), Some(last));
        }
        stop.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), last)
    });
    assert_ne!(last, loaded.program_id);
    // Each packet was dropped by the rule, by one program or the next: none was counted by nobody, none got by.
    eventually("every drop counted", || count(&steering, Counter::RuleDrop) == sent);
    assert!(sent > 0 && sockets.is_silent());
    assert!(lab.engine().run(|| steering.is_attached()));
    // The process from before goes on changing rules.
    steering.claim("game", &[udp(7778..=7778, Action::Drop)]).unwrap();
    sockets.assert_delivered();
}

#[test]
fn another_abi_is_refused_until_upgraded() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, loaded) = Pinned::load(&lab);
    let holder = {
        let mut holder = Holder::start(&lab, None, &["--claim", "old", "1", "2"]);
        holder.attached();
        assert_eq!(holder.line(), "claimed");
        holder
    };
    pretend_abi(&loaded, 99);
    let error = attach(&lab).unwrap_err();
    assert!(matches!(error, AttachError::Abi { found: 99, .. }), "{error}");
    assert!(error.to_string().contains(&format!("`volley load {} --upgrade`", lab.engine_if())), "{error}");
    let error = lab.engine().run(|| load::load(&options(&lab), false)).unwrap_err();
    assert!(matches!(error, AttachError::Abi { found: 99, .. }), "{error}");
    // Its sockets could not be carried over, so a process that uses it is in the way.
    let error = upgrade(&lab).unwrap_err();
    assert!(matches!(error, AttachError::InUse { pid, found: 99, .. } if pid == holder.pid()), "{error}");
    assert_eq!(program_on(&lab), Some(loaded.program_id));
    drop(holder);
    let upgraded = upgrade(&lab).unwrap();
    let change = Change::Upgraded { from_program: loaded.program_id, from_abi: 99, maps_kept: false };
    assert_eq!(upgraded.change, change);
    let steering = attach(&lab).unwrap();
    assert_eq!(steering.info().unwrap().program_id, upgraded.program_id);
    steering.claim("new", &[udp(7777..=7777, Action::Drop)]).unwrap();
    let sockets = Sockets::on(&lab, 7777);
    sockets.peer.send(b"drop me").unwrap();
    eventually("the drop", || count(&steering, Counter::RuleDrop) == 1);
}

#[test]
fn an_upgrade_that_was_killed_is_finished_by_the_next() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, loaded) = Pinned::load(&lab);
    // As if killed between the swap of the program and that of the pins: what is pinned is not what runs.
    let mut other = aya::EbpfLoader::new().load(object::OBJECT).unwrap();
    let program: &mut Xdp = other.program_mut(programs::STEER).unwrap().try_into().unwrap();
    program.load().unwrap();
    assert!(program.fd().unwrap().as_fd().try_clone_to_owned().is_ok());
    std::fs::remove_file(loaded.pins.join("program")).unwrap();
    program.pin(loaded.pins.join("program")).unwrap();
    let error = attach(&lab).unwrap_err();
    assert!(matches!(error, AttachError::HalfUpgraded { .. }), "{error}");
    let upgraded = upgrade(&lab).unwrap();
    assert_eq!(attach(&lab).unwrap().info().unwrap().program_id, upgraded.program_id);
}

#[test]
fn pins_of_an_interface_that_is_gone_are_not_mistaken_for_its_successor() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, loaded) = Pinned::load(&lab);
    let index = loaded.interface.index.to_string();
    lab.engine().exec(["ip", "link", "del", "dev", lab.engine_if()]);
    lab.engine().exec([
        "ip",
        "link",
        "add",
        "name",
        lab.engine_if(),
        "index",
        &index,
        "type",
        "veth",
        "peer",
        "name",
        "other",
    ]);
    let steering = attach(&lab).unwrap();
    assert_eq!(steering.interface().index, loaded.interface.index);
    assert!(!steering.is_pinned());
    assert!(!loaded.pins.exists());
    drop(steering);

    // The same, swept by whatever is loaded or unloaded next on this machine: here, or in a test beside this one.
    let (_pinned, loaded) = Pinned::load(&lab);
    assert!(loaded.pins.exists());
    lab.engine().exec(["ip", "link", "del", "dev", lab.engine_if()]);
    let error = lab.engine().run(|| load::unload("lo", false)).unwrap_err();
    assert!(matches!(error, AttachError::NotPinned { running: false, .. }), "{error}");
    assert!(!loaded.pins.exists());
}
