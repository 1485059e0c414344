//! Rules and their owners, with traffic.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use volley_testlab::{Lab, require_root};
use volley_xdp::{Action, Counter, OwnerError, Protocol, Rule, RuleError, SocketError, TableError};

use crate::stage::{Holder, Pinned, REDIRECT_ELSE_DROP, Sockets, attach, count, eventually, udp};

#[test]
fn rules_decide_and_are_gone_with_their_owner() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, _) = Pinned::load(&lab);
    let steering = attach(&lab).unwrap();
    let sockets = Sockets::on(&lab, 7777);
    sockets.assert_delivered();
    // Nobody has a socket, so that redirect means drop here.
    steering.claim("game", &[udp(7000..=8000, REDIRECT_ELSE_DROP)]).unwrap();
    let before = count(&steering, Counter::NoSocketDrop);
    for _ in 0..10 {
        sockets.peer.send(b"game").unwrap();
    }
    eventually("ten drops", || count(&steering, Counter::NoSocketDrop) == before + 10);
    assert!(sockets.is_silent());
    // Another address, another port: the kernel's.
    let mut elsewhere = udp(7777..=7777, Action::Drop);
    elsewhere.addresses = vec!["10.77.0.99".parse().unwrap(), "fd77::/16".parse().unwrap()];
    steering.claim("game", &[elsewhere]).unwrap();
    sockets.assert_delivered();
    steering.claim("game", &[udp(7777..=7777, Action::Drop)]).unwrap();
    let second = attach(&lab).unwrap();
    assert_eq!(second.info().unwrap().owners.len(), 1);
    drop(steering);
    assert_eq!(second.info().unwrap().owners, []);
    sockets.assert_delivered();
}

#[test]
fn owners_share_a_program_with_ports_of_their_own() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, _) = Pinned::load(&lab);
    let mut other = Holder::start(&lab, None, &["--claim", "other", "9000", "9009"]);
    other.attached();
    assert_eq!(other.line(), "claimed");
    let steering = attach(&lab).unwrap();
    steering.claim("mine", &[udp(7777..=7777, Action::Drop)]).unwrap();

    // Both are in force.
    for port in [7777, 9005] {
        let sockets = Sockets::on(&lab, port);
        let before = count(&steering, Counter::RuleDrop);
        sockets.peer.send(b"drop me").unwrap();
        eventually("the drop", || count(&steering, Counter::RuleDrop) == before + 1);
        assert!(sockets.is_silent());
    }
    let owners: Vec<_> = steering
        .info()
        .unwrap()
        .owners
        .into_iter()
        .map(|owner| (owner.name, owner.pid, owner.alive))
        .collect();
    let expected = [("mine".to_owned(), std::process::id(), true), ("other".to_owned(), other.pid(), true)];
    assert_eq!(owners, expected);

    // A living owner's ports and name are its own.
    let error = steering.claim("mine", &[udp(8000..=9000, Action::Drop)]).unwrap_err();
    assert!(matches!(error, RuleError::Collision { pid, .. } if pid == other.pid()), "{error}");
    assert!(error.to_string().contains("`udp 9000-9009: drop` of owner `other`"), "{error}");
    let error = steering.claim("other", &[udp(1..=1, Action::Drop)]).unwrap_err();
    assert!(
        matches!(error, RuleError::Owner(OwnerError::Alive { pid: Some(pid), .. }) if pid == other.pid()),
        "{error}"
    );
    // What failed has changed nothing.
    assert_eq!(steering.info().unwrap().owners.len(), 2);

    // A dead owner's are not.
    other.kill();
    steering.claim("mine", &[udp(8000..=9000, Action::Drop)]).unwrap();
    assert_eq!(steering.info().unwrap().owners.len(), 1);
    Sockets::on(&lab, 9005).assert_delivered();
    assert_eq!(
        steering.info().unwrap().generation,
        3,
        "two owners, then one change: failures wrote nothing"
    );
}

#[test]
fn a_killed_owner_of_a_pinned_program_is_taken_over() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, loaded) = Pinned::load(&lab);
    let mut first = Holder::start(&lab, None, &["--claim", "game", "7777", "7777"]);
    assert_eq!(first.line(), format!("attached {} pinned", loaded.program_id));
    assert_eq!(first.line(), "claimed");
    let pid = first.pid();
    first.kill();
    let mut second = Holder::start(&lab, None, &["--claim", "game", "7778", "7778"]);
    assert_eq!(second.line(), format!("attached {} pinned", loaded.program_id));
    assert_eq!(second.line(), "claimed");
    Sockets::on(&lab, 7777).assert_delivered();
    assert_eq!(
        second.finish(),
        format!("owner `game` (process {pid}) is gone: its rules are taken over\n")
    );
}

#[test]
fn changing_rules_lets_no_packet_through() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let steering = attach(&lab).unwrap();
    let sockets = Sockets::on(&lab, 7777);
    let before = count(&steering, Counter::RuleDrop);
    steering.claim("game", &[udp(7777..=7777, Action::Drop)]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sent += u64::from(sockets.peer.send(b"storm").is_ok());
            }
            sent
        });
        for i in 0..100 {
            // The table is another one each time, the verdict on 7777 the same.
            let rules = [udp(i..=i + 100, Action::Pass), udp(7777..=7777, Action::Drop)];
            steering.claim("game", &rules).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sender.join().unwrap()
    });
    eventually("every drop counted", || count(&steering, Counter::RuleDrop) == before + sent);
    assert!(sent > 0 && sockets.is_silent());
}

#[test]
fn impossible_rules_and_names_are_refused() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let steering = attach(&lab).unwrap();
    let addresses = (1..=5).map(|i| format!("10.77.0.{i}").parse().unwrap()).collect();
    let five =
        Rule { protocol: Protocol::Tcp, ports: 80..=90, addresses, action: Action::Drop, syn_limit: None };
    let error = steering.claim("web", &[five]).unwrap_err();
    assert!(
        matches!(&error, RuleError::Table(TableError::TooManyPerPort { port: 80, needed: 5, .. })),
        "{error}"
    );
    for name in ["", "../x", ".x", "a b"] {
        let error = steering.claim(name, &[]).unwrap_err();
        assert!(matches!(error, RuleError::Owner(OwnerError::BadName(_))), "{error}");
    }
    assert_eq!(steering.info().unwrap().owners, []);
}

#[test]
fn a_program_is_shared_while_another_process_has_rules_in_it() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, _) = Pinned::load(&lab);
    let (ours, theirs) = (attach(&lab).unwrap(), attach(&lab).unwrap());
    ours.claim("ours", &[udp(7777..=7777, Action::Pass)]).unwrap();
    assert!(!ours.is_shared() && theirs.is_shared());
    theirs.claim("theirs", &[udp(7778..=7778, Action::Pass)]).unwrap();
    assert!(ours.is_shared());
    drop(theirs);
    assert!(!ours.is_shared());
}

#[test]
fn a_queue_has_one_socket_and_its_holder_is_named() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let (_pinned, _) = Pinned::load(&lab);
    let (first, second) = (attach(&lab).unwrap(), attach(&lab).unwrap());
    let socket = lab.engine().run(xdp_socket);
    assert!(!first.has_socket(0).unwrap());
    first.bind_socket(0, socket.as_fd()).unwrap();
    first.bind_socket(0, socket.as_fd()).unwrap();
    // Asking changes nothing, and a queue without one has none afterwards either.
    for _ in 0..2 {
        assert!(first.has_socket(0).unwrap() && second.has_socket(0).unwrap());
        assert!(!first.has_socket(1).unwrap());
    }
    assert!(matches!(first.has_socket(1024), Err(SocketError::NoSuchQueue { queue: 1024 })));
    let error = second.bind_socket(0, socket.as_fd()).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(error, SocketError::Owner(OwnerError::QueueTaken { queue: 0, pid: Some(pid) }) if pid == own),
        "{error}"
    );
    assert_eq!(volley_xdp::inspect::queue_holder(first.interface(), 0), Some(own));
    first.unbind_socket(0).unwrap();
    first.unbind_socket(0).unwrap();
    second.bind_socket(0, socket.as_fd()).unwrap();
    drop(second);
    assert_eq!(volley_xdp::inspect::queue_holder(first.interface(), 0), None);
    first.bind_socket(0, socket.as_fd()).unwrap();

    assert!(matches!(
        first.bind_socket(1024, socket.as_fd()),
        Err(SocketError::NoSuchQueue { queue: 1024 })
    ));
    let wrong = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(matches!(first.bind_socket(1, wrong.as_fd()), Err(SocketError::Map { queue: 1, .. })));
    assert_eq!(volley_xdp::inspect::queue_holder(first.interface(), 1), None);
}

/// An AF_XDP socket with a receive ring: as much of one as the kernel wants to see in the map.
fn xdp_socket() -> OwnedFd {
    let entries: u32 = 64;
    // SAFETY: socket takes integers; the new descriptor is owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0)) };
    // SAFETY: the option is four bytes that outlive the call.
    let result = unsafe {
        let value = (&raw const entries).cast();
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_RX_RING,
            value,
            size_of::<u32>() as u32,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket
}
