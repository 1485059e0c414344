//! TCP of our own over the port, and what other people's clients and kernels make of it.

use crate::alone;
use crate::http::{self, Http};
use crate::kernel::{OURS, PATIENCE, PEERS, engine, eventually, tap_up, up};
use crate::process::Running;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use volley::engine::Engine;
use volley_testlab::{Lab, LabOptions, require_root};

const PORT: u16 = 7777;

pub fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), PORT)
}

/// A connection from the lab's peer.
#[track_caller]
fn connect(lab: &Lab, at: SocketAddr) -> TcpStream {
    let stream = lab.peer().run(|| {
        eventually("a connection", || TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok())
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends so many bytes from the lab's peer, closes its direction, and compares what comes back.
#[track_caller]
fn assert_echoed(lab: &Lab, at: SocketAddr, len: u32) {
    let stream = connect(lab, at);
    let text: Vec<u8> = (0..len).map(|n| (n * 31 + n / 255) as u8).collect();
    let (mut reader, mut writer) = (&stream, &stream);
    let mut echoed = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&text).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        reader.read_to_end(&mut echoed).unwrap();
    });
    assert!(echoed == text, "{} of {} bytes came back right", echoed.len(), text.len());
}

#[test]
fn kernel_sockets_and_a_python_client_are_echoed() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = engine(&lab, &["--tcp-port", "7777", "--tcp-app", "tcp-echo"]);
    OURS.into_iter().for_each(|ours| assert_echoed(&lab, at(ours), 300_000));
    let script = format!(
        "import socket\n\
         s = socket.create_connection(('{}', 7777), timeout=30)\n\
         s.sendall(b'from python')\n\
         s.shutdown(socket.SHUT_WR)\n\
         data = b''\n\
         while chunk := s.recv(65536): data += chunk\n\
         print(data.decode())",
        OURS[0]
    );
    assert_eq!(lab.peer().exec(["python3", "-c", &script]).trim(), "from python");
    let report = engine.stop();
    let streams = &report["total"]["streams"];
    assert_eq!(
        (streams["accepted"].as_u64(), streams["bad_checksum"].as_u64()),
        (Some(3), Some(0)),
        "{report:#}"
    );
}

/// What a program of the lab's peer printed. It must end well.
#[track_caller]
pub fn output(lab: &Lab, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = lab.peer().command(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
    output.stdout
}

#[test]
fn curl_and_wrk_work_against_the_http_example() {
    alone("tcp::curl_and_wrk_work_against_the_http_example", || {
        if !require_root() {
            return;
        }
        let lab = Lab::new(1);
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let addresses = OURS.map(|ours| format!("'{ours}/{}'", if ours.contains(':') { 64 } else { 24 }));
        let settings = format!(
            "io = 'dpdk'\npin = false\n[tcp]\nports = {PORT}\n[dpdk]\nvdev = ['net_tap0,iface=nic0']\n\
             memory = 'no-huge'\nmegabytes = 64\nframes = 2048\naddresses = [{}]\n",
            addresses.join(", ")
        );
        std::fs::write(&file, settings).unwrap();
        let config = http::config([file.path().display().to_string()].into_iter()).unwrap();
        let engine = lab.peer().run(|| Engine::start(config, |_| Http::default()).unwrap());
        tap_up(&lab);
        for at in OURS.map(at) {
            drop(connect(&lab, at));
            let body =
                output(&lab, "curl", &["-sS", "--max-time", "60", &format!("http://{at}/bytes/3000000")]);
            assert_eq!(body.len(), 3_000_000);
            assert!(body.iter().enumerate().all(|(n, byte)| *byte == b'a' + (n % (1 << 16) % 26) as u8));
            let url = format!("http://{at}/");
            let said = output(&lab, "wrk", &["-t1", "-c16", "-d1s", "--timeout", "30s", &url]);
            let said = String::from_utf8(said).unwrap();
            let requests = said.lines().find(|line| line.contains("requests in")).unwrap_or_default();
            let requests = requests.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            assert!(requests > Some(0) && !said.contains("errors") && !said.contains("Non-2xx"), "{said}");
        }
        let report = engine.stop().unwrap();
        assert!(report.total.ledger_balances, "{report}");
        assert!(report.total.streams.accepted >= 36 && report.total.streams.bad_checksum == 0, "{report}");
    });
}

/// A lab of that MTU, whose peer has the addresses [`PEERS`]. Drivers that take copies of what the kernel receives get segments as
/// they came, not several put together.
pub fn lab(mtu: &str) -> Lab {
    let lab = Lab::with(LabOptions { mtu: mtu.parse().unwrap(), ..LabOptions::default() });
    lab.engine().exec(["ethtool", "-K", lab.engine_if(), "gro", "off"]);
    up(lab.peer(), lab.peer_if(), PEERS);
    lab
}

/// The device of the lab's engine that takes packets of any length: libpcap.
pub fn any_length(lab: &Lab) -> String {
    format!("net_pcap0,rx_iface_in={0},tx_iface={0}", lab.engine_if())
}

#[test]
fn segments_of_several_mbufs_come_and_go_over_a_kernel_link_of_mtu_9000() {
    if !require_root() {
        return;
    }
    let lab = lab("9000");
    let device = any_length(&lab);
    let (four, six) = (format!("{}/24", OURS[0]), format!("{}/64", OURS[1]));
    let way = ["--netns", lab.engine_ns(), "--vdev", &device, "--address", &four, "--address", &six];
    let tcp = ["--tcp-port", "7777", "--tcp-app", "tcp-echo", "--mtu", "9000", "--frames", "4096"];
    let engine = Running::start(&[&way[..], &tcp].concat());
    OURS.into_iter().for_each(|ours| assert_echoed(&lab, at(ours), 2_000_000));
    let report = engine.stop();
    let streams = &report["total"]["streams"];
    let number = |name: &str| streams[name].as_u64().unwrap();
    assert_eq!(number("bad_checksum"), 0, "{streams:#}");
    for direction in ["received", "sent"] {
        let (bytes, segments) =
            (number(&format!("{direction}_bytes")), number(&format!("segments_{direction}")));
        assert_eq!(bytes, 4_000_000, "{streams:#}");
        // Those without data count as well, so there are longer ones.
        assert!(bytes / segments > 1500, "{direction}: {streams:#}");
    }
}
