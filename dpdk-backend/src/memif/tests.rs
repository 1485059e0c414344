//! The middle between a driver and its other end, both played by the test.

use super::*;

struct Ends {
    broker: Arc<Broker>,
    driver: OwnedFd,
    peer: OwnedFd,
}

/// A message of a type, `tail` behind it.
fn message(kind: u16, tail: &[u8]) -> Message {
    let mut bytes = [0; MESSAGE];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[2..2 + tail.len()].copy_from_slice(tail);
    Message { bytes, len: 128, fds: Vec::new() }
}

/// The next message; `None` when the other side has hung up.
fn next(fd: &OwnedFd) -> Option<Message> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Message::receive(fd) {
            Ok(Some(message)) => return Some(message),
            Err(_) => return None,
            Ok(None) => assert!(Instant::now() < until, "nothing comes"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn accepted(listener: &OwnedFd) -> OwnedFd {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(fd) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            // SAFETY: just made.
            return unsafe { OwnedFd::from_raw_fd(fd) };
        }
        assert!(Instant::now() < until, "nobody comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn path(name: &str) -> String {
    std::env::temp_dir().join(format!("volley-memif-{}-{name}", std::process::id())).display().to_string()
}

/// A driver that connects, to a server of the test's.
fn as_client(name: &str) -> Ends {
    let outside = Name { path: path(name), is_abstract: true };
    let (broker, told) = Broker::of(&format!("net_memif0,socket={},id=3", outside.path)).unwrap().unwrap();
    assert_eq!(told, format!("net_memif0,id=3,socket={},socket-abstract=yes", broker.inside.path));
    // Before the server is there: it is waited for.
    let driver = broker.inside.connect().unwrap();
    std::thread::sleep(RETRY);
    let peer = accepted(&outside.listen().unwrap());
    Ends { broker, driver, peer }
}

#[test]
fn messages_and_descriptors_pass_both_ways_as_they_are() {
    let Ends { broker: _there, driver, peer } = as_client("pass");
    assert!(message(2, b"hello").send(&peer));
    let hello = next(&driver).unwrap();
    assert_eq!((hello.kind(), hello.len, &hello.bytes[2..7]), (2, 128, &b"hello"[..]));
    let file = tempfile_with(b"region");
    let region = Message { fds: vec![file], ..message(4, &[]) };
    assert!(region.send(&driver));
    let mut got = next(&peer).unwrap();
    assert_eq!(got.kind(), 4);
    let mut text = String::new();
    let mut file = std::fs::File::from(got.fds.pop().unwrap());
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!(text, "region");
}

fn tempfile_with(bytes: &[u8]) -> OwnedFd {
    let path = path("file");
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.into()
}

#[test]
fn the_driver_hangs_up_behind_a_closed_gate_whatever_ends_the_connection() {
    // The process dies; it says so; it talks of regions when they are in use.
    for (name, last) in [("dies", None), ("says", Some(DISCONNECT)), ("talks", Some(4))] {
        let Ends { broker, driver, peer } = as_client(name);
        assert!(message(CONNECTED, &[]).send(&peer));
        assert_eq!(next(&driver).unwrap().kind(), CONNECTED);
        let pass = broker.gate().pass();
        assert!(pass.through(|| true), "open while connected");
        match last {
            None => drop(peer),
            Some(kind) => assert!(message(kind, &[]).send(&peer)),
        }
        if last == Some(DISCONNECT) {
            assert_eq!(next(&driver).unwrap().kind(), DISCONNECT);
        }
        assert!(next(&driver).is_none(), "{name}: the driver sees its end, and nothing else");
        assert!(!pass.through(|| true), "{name}: nobody reads while the driver takes its memory down");
        drop(driver);
        let until = Instant::now() + Duration::from_secs(30);
        while !pass.through(|| true) {
            assert!(Instant::now() < until, "{name}: the gate stays closed");
        }
    }
}

#[test]
fn a_server_listens_where_it_was_told_and_replaces_what_the_dead_left() {
    let outside = Name { path: path("server"), is_abstract: false };
    drop(outside.listen().unwrap());
    let device = format!("net_memif1,role=server,socket={},socket-abstract=no", outside.path);
    let (broker, told) = Broker::of(&device).unwrap().unwrap();
    let (other, same) = Broker::of(&device.replace("memif1", "memif2")).unwrap().unwrap();
    assert!(Arc::ptr_eq(&broker, &other), "two devices listen at one socket");
    assert_eq!(told.replace("memif1", "memif2"), same);
    let driver = broker.inside.listen().unwrap();
    let peer = outside.connect().unwrap();
    let driver = accepted(&driver);
    assert!(message(2, &[]).send(&driver));
    assert_eq!(next(&peer).unwrap().kind(), 2);
    // Where somebody lives, nobody else does.
    let error = Broker::start(outside.clone(), true, &device).unwrap_err().to_string();
    assert!(error.contains("net_memif1") && error.contains(&outside.path), "{error}");
    drop((broker, other));
    assert!(next(&peer).is_none());
    assert!(!std::path::Path::new(&outside.path).exists());
}
