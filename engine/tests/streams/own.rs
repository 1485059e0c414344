//! Over our own TCP on AF_XDP, on a veth pair: what other people's clients make of it. Privileged.

use crate::client::{PATIENCE, assert_echoes, connect, output};
use crate::http::Http;
use crate::options::{Setter, assert_set};
use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use volley::app::tcp::{TcpChargen, TcpEcho, TcpSockperf};
use volley::app::{App, Beside, Echo};
use volley::engine::config::{Ports, Tcp, TcpIo};
use volley::engine::{Config, Engine, Report};
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, require_root};

const PORT: u16 = 7777;
const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(ENGINE_IPV4), PORT);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(ENGINE_IPV6), PORT);

fn start<A: App<Msg = ()>>(
    lab: &Lab,
    change: impl FnOnce(&mut Config),
    app: impl Fn() -> A + Send + Sync + 'static,
) -> Engine {
    let tcp = Tcp { ports: Ports(PORT..=PORT), io: TcpIo::Own, ..Tcp::default() };
    let mut config = Config {
        interface: Some(lab.engine_if().into()),
        require_xdp: true,
        pin: false,
        tcp: Some(tcp),
        ..Config::default()
    };
    change(&mut config);
    lab.engine().run(move || Engine::start(config, move |_| Beside(Echo, app())).unwrap())
}

/// Stops, and checks that every frame is in its place.
fn stop(engine: Engine) -> Report {
    let report = engine.stop().unwrap();
    assert!(report.total.ledger_balances && report.total.ledger.app == 0, "{report}");
    report
}

#[test]
fn kernel_sockets_are_echoed_byte_for_byte_beside_udp() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, |_| {}, TcpEcho::default);
    for address in [V4, V6] {
        let streams: Vec<_> = (0..8).map(|_| lab.peer().run(|| connect(address))).collect();
        for stream in &streams {
            assert_echoes(stream, 500_000);
        }
        let udp = lab.peer().run(|| {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            std::net::UdpSocket::bind(any).unwrap()
        });
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        udp.send_to(b"hello", address).unwrap();
        assert_eq!(udp.recv(&mut [0; 16]).unwrap(), 5);
    }
    // The port is ours, also where the kernel is asked.
    let taken = lab.engine().run(|| std::net::TcpListener::bind(V4)).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let report = stop(engine);
    let streams = report.total.streams;
    assert_eq!((streams.accepted, streams.bad_checksum), (16, 0), "{report}");
    assert_eq!(streams.received_bytes, streams.sent_bytes, "{report}");
    assert!(
        streams.segments_received > 0 && report.to_string().contains("TCP 7777 over our own: "),
        "{report}"
    );
    let status = report.xdp.as_ref().unwrap();
    assert!(status.rules.iter().any(|rule| rule.starts_with("tcp 7777")), "{status:?}");
    // It is free again.
    lab.engine().run(|| std::net::TcpListener::bind(V4)).unwrap();
}

#[test]
fn options_of_a_stream_are_set() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, |_| {}, || Setter);
    lab.peer().run(|| assert_set(V4, "set; set"));
    stop(engine);
}

#[test]
fn curl_python_and_wrk_work_against_the_http_example() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, |_| {}, Http::default);
    for address in [V4, V6] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", &format!("http://{address}/bytes/5000000")]);
        let body = lab.peer().run(|| output(curl));
        assert_eq!(body.len(), 5_000_000);
        assert!(body.iter().enumerate().all(|(n, byte)| *byte == b'a' + (n % (1 << 16) % 26) as u8));
    }
    let mut python = Command::new("python3");
    python.arg("-c").arg(format!(
        "import socket\n\
         s = socket.create_connection(('{ENGINE_IPV4}', {PORT}), timeout=30)\n\
         s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n' * 3 + b'GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n')\n\
         data = b''\n\
         while chunk := s.recv(65536): data += chunk\n\
         print(data.count(b'says hello'))"
    ));
    assert_eq!(lab.peer().run(|| output(python)), b"4\n");
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c32", "-d2s", &format!("http://{V4}/")]);
    let said = String::from_utf8(lab.peer().run(|| output(wrk))).unwrap();
    assert!(said.contains("requests in") && !said.contains("Socket errors"), "{said}");
    let report = stop(engine);
    assert!(report.total.streams.accepted >= 35, "{report}");
}

#[test]
fn nping_opens_connections_and_sockperfs_round_trips_are_whole() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = start(&lab, |_| {}, TcpEcho::default);
    for address in [V4, V6] {
        let mut nping = Command::new("nping");
        nping.args(["--tcp-connect", "-p", &PORT.to_string(), "-c", "20", "--delay", "10ms"]);
        nping.args(address.is_ipv6().then_some("-6")).arg(address.ip().to_string());
        let said = String::from_utf8(lab.peer().run(|| output(nping))).unwrap();
        assert!(said.contains("Successful connections: 20") && said.contains("Failed: 0"), "{said}");
    }
    // SYNs of its own making, without a kernel behind them: each has its SYN-ACK, which the kernel here resets.
    let mut nping = Command::new("nping");
    nping.args(["--tcp", "--flags", "syn", "-p", &PORT.to_string(), "-c", "20", "--delay", "10ms"]);
    nping.arg(ENGINE_IPV4.to_string());
    let said = String::from_utf8(lab.peer().run(|| output(nping))).unwrap();
    assert!(said.contains("Rcvd: 20") && said.matches(" SA ").count() == 20, "{said}");
    let report = stop(engine);
    assert_eq!(report.total.streams.accepted, 40, "{report}");

    // A plain echo will not do: it wants each message back marked as an answer. It speaks IPv4 only (3.7).
    let engine = start(&lab, |_| {}, TcpSockperf::default);
    let mut sockperf = Command::new("sockperf");
    sockperf.args(["ping-pong", "--tcp", "-i", &ENGINE_IPV4.to_string(), "-p", &PORT.to_string()]);
    sockperf.args(["-t", "1", "-m", "64", "--data-integrity"]);
    let said = String::from_utf8(lab.peer().run(|| output(sockperf))).unwrap();
    let none = "# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0";
    assert!(said.contains(none) && said.contains("percentile 50.000"), "{said}");
    let report = stop(engine);
    assert!(report.total.streams.accepted > 0 && report.total.streams.received_bytes > 6_400, "{report}");
}

#[test]
fn a_slow_reader_is_disconnected_and_memory_stays_bounded() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let slow = |config: &mut Config| {
        let tcp = config.tcp.as_mut().unwrap();
        tcp.slow_reader_ms = 1_000;
    };
    let engine = start(&lab, slow, TcpChargen::default);
    let reader = lab.peer().run(|| connect(V4));
    let until = std::time::Instant::now() + PATIENCE;
    while engine.report().unwrap().total.streams.slow_readers == 0 {
        assert!(std::time::Instant::now() < until, "{}", engine.report().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut rest = Vec::new();
    assert!((&reader).read_to_end(&mut rest).is_err(), "a reset, after {} bytes", rest.len());
    let mut lines = vec![0; 74 * 95];
    lab.peer().run(|| connect(V4)).read_exact(&mut lines).unwrap();
    assert!(lines.starts_with(b" !\"#$") && lines.ends_with(b"\r\n"));
    let report = stop(engine);
    assert_eq!(report.total.streams.slow_readers, 1, "{report}");
}

#[test]
fn a_clients_connections_are_on_one_worker_whatever_queue_they_arrive_on() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let two = |config: &mut Config| config.workers = Some(2);
    let engine = start(&lab, two, TcpEcho::default);
    for address in [V4, V6] {
        // The kernel's end hashes each connection by itself: of so many, some arrive on either queue.
        let streams: Vec<_> = (0..24).map(|_| lab.peer().run(|| connect(address))).collect();
        streams.iter().for_each(|stream| assert_echoes(stream, 60_000));
    }
    let report = stop(engine);
    let total = report.total.streams;
    assert_eq!((total.accepted, total.received_bytes), (48, total.sent_bytes), "{report}");
    assert!(
        total.handed_over > 0 && total.handed_over == total.taken_over + total.hand_over_full,
        "{report}"
    );
    // One client address of each family, so each family has one owner.
    let accepted: Vec<u64> =
        report.workers.iter().map(|w| w.ports.iter().map(|p| p.counters.streams.accepted).sum()).collect();
    assert!(matches!(accepted[..], [24, 24] | [48, 0] | [0, 48]), "{accepted:?}");
}

#[test]
fn syns_beyond_the_rate_are_dropped_in_xdp_and_connections_go_on() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    // One at once, and one more each half second and CPU: of four at a time most wait for their second SYN.
    let limited = |config: &mut Config| config.tcp.as_mut().unwrap().syn_rate = 2;
    let engine = start(&lab, limited, TcpEcho::default);
    let first = lab.peer().run(|| connect(V4));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| lab.peer().run(|| assert_echoes(&connect(V4), 1_000)));
        }
        assert_echoes(&first, 200_000);
    });
    let report = stop(engine);
    assert!(report.xdp.as_ref().unwrap().counters["syn_limited"] > 0, "{report}");
    assert_eq!(report.total.streams.accepted, 5, "{report}");
}

/// Opens a stream and says something over it.
struct Caller(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl App for Caller {
    type Msg = ();

    fn on_start(&mut self, ctx: &mut volley::app::Ctx<'_, ()>) {
        let local = SocketAddr::from((ENGINE_IPV4, 0));
        ctx.connect(0, Some(local), (volley_testlab::PEER_IPV4, 9000).into()).unwrap();
    }

    fn on_stream(
        &mut self,
        peer: volley::stream::Peer,
        event: volley::stream::StreamEvent,
        ctx: &mut volley::app::Ctx<'_, ()>,
    ) {
        use volley::stream::StreamEvent;
        let Ok(mut stream) = ctx.stream(peer) else { return };
        match event {
            StreamEvent::Opened => assert_eq!(stream.write(b"hello from here"), Ok(15)),
            StreamEvent::Readable => {
                let mut buffer = [0; 64];
                let n = stream.read(&mut buffer).unwrap();
                self.0.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
            _ => {}
        }
    }
}

#[test]
fn connections_of_our_own_leave_from_the_reserved_ports() {
    if !require_root() {
        return;
    }
    use std::io::Write;
    let lab = Lab::with(volley_testlab::LabOptions { neighbours: true, ..Default::default() });
    let listener = lab.peer().run(|| std::net::TcpListener::bind("10.77.0.2:9000")).unwrap();
    let answer: std::sync::Arc<std::sync::Mutex<Vec<u8>>> = Default::default();
    let told = std::sync::Arc::clone(&answer);
    let local =
        |config: &mut Config| config.tcp.as_mut().unwrap().local_ports = Some(Ports(41_000..=41_007));
    let engine = start(&lab, local, move || Caller(std::sync::Arc::clone(&told)));
    let (mut stream, from) = listener.accept().unwrap();
    assert!((41_000..=41_007).contains(&from.port()), "{from}");
    let mut said = [0; 15];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello from here");
    stream.write_all(b"and back").unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    while *answer.lock().unwrap() != b"and back" {
        assert!(std::time::Instant::now() < until, "{:?}", answer.lock().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let taken = lab.engine().run(|| std::net::TcpListener::bind((ENGINE_IPV4, 41_003))).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let report = stop(engine);
    assert_eq!(report.total.streams.connected, 1, "{report}");
}
