//! Floods of SYNs from addresses that nobody has, at our own TCP on AF_XDP. Privileged.

use crate::client::{PATIENCE, connect};
use crate::running::Running;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};
use volley_testlab::{ENGINE_IPV4, Flood, Lab, require_root};

const PORT: u16 = 7777;
const TARGET: SocketAddrV4 = SocketAddrV4::new(ENGINE_IPV4, PORT);

/// An engine that lets `rate` SYNs a second through.
fn start(lab: &Lab, rate: &str) -> Running {
    let port = PORT.to_string();
    Running::start(lab, &["--require", "xdp", "--tcp-port", &port, "--tcp-syn-rate", rate])
}

fn exchange(mut stream: &TcpStream, n: u32) {
    let message = n.to_be_bytes().repeat(16);
    stream.write_all(&message).unwrap();
    let mut got = vec![0; message.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, message);
}

fn clients(lab: &Lab, how_many: usize) -> Vec<TcpStream> {
    (0..how_many).map(|_| lab.peer().run(|| connect(SocketAddr::V4(TARGET)))).collect()
}

/// Exchanges with all until `flood` has sent so many packets, and at least once.
fn exchanges_while(flood: &Flood, packets: u64, streams: &[TcpStream]) {
    let (until, mut n) = (Instant::now() + PATIENCE, 0);
    while n == 0 || flood.sent() < packets {
        assert!(Instant::now() < until, "{} packets sent", flood.sent());
        streams.iter().for_each(|stream| exchange(stream, n));
        n += 1;
    }
}

/// Bytes of memory that a process has touched.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// One of the report's counters of streams.
fn streams(report: &serde_json::Value, name: &str) -> u64 {
    report["total"]["streams"][name].as_u64().unwrap_or_else(|| panic!("{name}: {report:#}"))
}

#[test]
fn beyond_the_rate_syns_are_dropped_in_xdp_and_no_connection_notices() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, "1000");
    let there = clients(&lab, 20);
    let flood = Flood::start(lab.peer(), TARGET, 20_000).unwrap();
    // Whatever the first of it fills is full now.
    exchanges_while(&flood, 10_000, &there);
    let before = resident(engine.pid());
    exchanges_while(&flood, 50_000, &there);
    let grown = resident(engine.pid()).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    let sent = flood.stop();
    there.iter().for_each(|stream| exchange(stream, 7));
    drop(there);
    let ended = engine.stop();
    let (dropped, let_in) = (ended.verdict("syn_limited"), streams(&ended.report, "syns"));
    assert!(dropped > sent / 2 && let_in < sent / 2, "{sent} sent: {:#}", ended.report);
    assert_eq!((streams(&ended.report, "accepted"), streams(&ended.report, "reset")), (20, 0));
}

#[test]
fn within_the_rate_new_clients_come_in_by_cookies() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, "100000");
    let there = clients(&lab, 5);
    let flood = Flood::start(lab.peer(), TARGET, 10_000).unwrap();
    // More than there is room for half-open connections.
    exchanges_while(&flood, 5_000, &there);
    let new = clients(&lab, 20);
    new.iter().for_each(|stream| exchange(stream, 1));
    exchanges_while(&flood, 10_000, &there);
    drop((flood, there, new));
    let ended = engine.stop();
    let count = |name| streams(&ended.report, name);
    assert!(count("cookies_sent") > 1_000 && count("cookies_accepted") > 0, "{:#}", ended.report);
    assert_eq!((count("accepted"), count("reset")), (25, 0), "{:#}", ended.report);
}

#[test]
fn the_whole_of_a_core_in_syns_resets_nobody_and_echoes_go_on_after_it() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, "20000");
    let there = clients(&lab, 10);
    let flood =
        Flood::in_kernel(lab.peer(), lab.peer_if(), lab.engine().mac(lab.engine_if()), TARGET).unwrap();
    exchanges_while(&flood, 1_000_000, &there);
    std::thread::sleep(Duration::from_millis(500));
    let sent = flood.stop();
    there.iter().for_each(|stream| exchange(stream, 2));
    clients(&lab, 3).iter().for_each(|stream| exchange(stream, 3));
    drop(there);
    let ended = engine.stop();
    // What was let in were SYNs whose checksums hold: it was answered.
    let (dropped, answered) = (ended.verdict("syn_limited"), streams(&ended.report, "cookies_sent"));
    assert!(dropped > sent / 2 && answered > 1_000, "{sent} sent: {:#}", ended.report);
    assert_eq!((streams(&ended.report, "accepted"), streams(&ended.report, "reset")), (13, 0));
}
