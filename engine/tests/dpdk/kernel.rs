//! A real kernel as the neighbour on the link, and another one behind the port: over net_tap, in namespaces of their own.

use crate::peers::Peer;
use crate::process::{Running, VOLLEY};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use volley_testlab::{Lab, Netns, require_root};

pub const OURS: [&str; 2] = ["10.78.0.1", "fd78::1"];
pub const PEERS: [&str; 2] = ["10.78.0.2", "fd78::2"];
/// Longest for anything to come about on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Gives an interface its addresses, and takes it up.
pub fn up(namespace: &Netns, interface: &str, addresses: [&str; 2]) {
    namespace.exec(["ip", "addr", "add", &format!("{}/24", addresses[0]), "dev", interface]);
    namespace.exec(["ip", "-6", "addr", "add", &format!("{}/64", addresses[1]), "dev", interface, "nodad"]);
    namespace.exec(["ip", "link", "set", interface, "up"]);
}

/// An engine whose NIC is a tap in the lab's peer namespace, which is its link.
pub fn engine(lab: &Lab, more: &[&str]) -> Running {
    let (four, six) = (format!("{}/24", OURS[0]), format!("{}/64", OURS[1]));
    let namespace = lab.peer_ns();
    let mut arguments =
        vec!["--netns", namespace, "--vdev", "net_tap0,iface=nic0", "--address", &four, "--address", &six];
    arguments.extend(more);
    let engine = Running::start(&arguments);
    tap_up(lab);
    engine
}

/// Makes the kernel's end of the tap `nic0`, in the lab's peer namespace, a host.
pub fn tap_up(lab: &Lab) {
    // A tap's two ends begin with one MAC between them: this end is another host.
    lab.peer().exec(["ip", "link", "set", "nic0", "address", "02:00:00:00:00:77"]);
    up(lab.peer(), "nic0", PEERS);
}

/// What `work` gives, once it gives something.
#[track_caller]
pub fn eventually<T>(what: &str, mut work: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(outcome) = work() {
            return outcome;
        }
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_kernel_finds_pings_and_uses_an_engine_without_a_kernel() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = engine(&lab, &[]);
    for (ours, peer) in OURS.into_iter().zip(PEERS) {
        eventually(&format!("ping {ours}"), || {
            let mut ping = lab.peer().command("ping");
            ping.args(["-c", "3", "-i", "0.2", "-W", "2", ours])
                .output()
                .unwrap()
                .status
                .success()
                .then_some(())
        });
        // UDP from a kernel socket, the neighbour found by ARP or NDP; the game port and no other is answered.
        let (peer, ours): (IpAddr, IpAddr) = (peer.parse().unwrap(), ours.parse().unwrap());
        let ask = |port: u16| {
            lab.peer().run(|| {
                let socket = UdpSocket::bind(SocketAddr::new(peer, 0)).unwrap();
                socket.connect(SocketAddr::new(ours, port)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                let mut answer = [0; 64];
                socket.send(b"volley").ok()?;
                let len = socket.recv(&mut answer).ok()?;
                (answer[..len] == *b"volley").then_some(())
            })
        };
        eventually("an answer", || ask(7777));
        assert!(ask(7776).is_none(), "port 7776 is not served");
        let neighbour = lab.peer().exec(["ip", "neigh", "show", "dev", "nic0"]);
        assert!(neighbour.contains(&ours.to_string()), "{neighbour}");
    }
    let report = engine.stop();
    assert!(report["total"]["answered"].as_u64() >= Some(2), "{report}");
    assert!(report["dpdk"]["steered"]["arp"].as_u64() >= Some(1), "{report}");
    for (counter, least) in
        [("arp_answered", 1), ("ndp_answered", 1), ("echo_answered", 2), ("announced", 2)]
    {
        assert!(report["total"]["standalone"][counter].as_u64() >= Some(least), "{counter}: {report}");
    }
}

#[test]
fn packets_of_several_mbufs_come_and_go_over_a_kernel_link_of_mtu_9000() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    // net_tap takes 1,522 bytes and af_packet only whole ones; libpcap, on a veth, gives and takes packets of any length.
    let device = format!("net_pcap0,rx_iface_in={0},tx_iface={0}", lab.engine_if());
    let (four, six) = (format!("{}/24", OURS[0]), format!("{}/64", OURS[1]));
    for (namespace, interface) in [(lab.engine(), lab.engine_if()), (lab.peer(), lab.peer_if())] {
        namespace.exec(["ip", "link", "set", interface, "mtu", "9000"]);
    }
    let way = ["--netns", lab.engine_ns(), "--vdev", &device, "--address", &four, "--address", &six];
    let engine = Running::start(&[&way[..], &["--mtu", "9000", "--frames", "4096"]].concat());
    up(lab.peer(), lab.peer_if(), PEERS);
    // In one mbuf, at the edges of the first and second, and as many as the MTU needs.
    let lens = [64, 1990, 2000, 2010, 2048, 4000, 4096, 8900, 8952];
    pinged_and_echoed(&lab, &["-s", "8900", "-M", "do"], &lens);
    let report = engine.stop();
    assert!(report["total"]["answered"].as_u64() >= Some(18), "{report}");
    assert!(report["total"]["standalone"]["echo_answered"].as_u64() >= Some(4), "{report}");
}

/// Pings both addresses from the lab's peer, and has datagrams of these lengths echoed by both, byte for byte.
fn pinged_and_echoed(lab: &Lab, ping_like: &[&str], lens: &[usize]) {
    for (ours, peer) in OURS.into_iter().zip(PEERS) {
        eventually(&format!("ping {ours} {ping_like:?}"), || {
            let mut ping = lab.peer().command("ping");
            ping.args(["-c", "2", "-i", "0.2", "-W", "2"]).args(ping_like).arg(ours);
            ping.output().unwrap().status.success().then_some(())
        });
        let (peer, ours): (IpAddr, IpAddr) = (peer.parse().unwrap(), ours.parse().unwrap());
        lab.peer().run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(peer, 0)).unwrap();
            socket.connect(SocketAddr::new(ours, 7777)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            for &len in lens {
                let question: Vec<u8> = (0..len).map(|n| (n * 7 + n / 256) as u8).collect();
                eventually(&format!("{len} bytes echoed from {ours}"), || {
                    let mut answer = [0; 10_000];
                    socket.send(&question).ok()?;
                    let got = socket.recv(&mut answer).ok()?;
                    assert!(got != len || answer[..got] == question, "{len} bytes came back changed");
                    (got == len).then_some(())
                });
            }
        });
    }
}

/// An engine on the lab's veth, by a driver that takes frames from the kernel: found by ARP and NDP, pinged and used.
fn over_a_veth(driver: &str) {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let device = format!("{driver}0,iface={}", lab.engine_if());
    let (four, six) = (format!("{}/24", OURS[0]), format!("{}/64", OURS[1]));
    let way = ["--netns", lab.engine_ns(), "--vdev", &device, "--address", &four, "--address", &six];
    // The driver over AF_XDP posts 2,048 for receive at once.
    let engine = Running::start(&[&way[..], &["--frames", "8192"]].concat());
    up(lab.peer(), lab.peer_if(), PEERS);
    pinged_and_echoed(&lab, &[], &[1, 64, 1400]);
    let report = engine.stop();
    assert_eq!(report["dpdk"]["devices"][0]["driver"], driver);
    assert!(report["total"]["answered"].as_u64() >= Some(6), "{report}");
    // Its program and its sockets went with it.
    let link = lab.engine().exec(["ip", "link", "show", lab.engine_if()]);
    assert!(!link.contains("xdp"), "{link}");
}

#[test]
fn a_kernel_is_answered_over_af_packet() {
    over_a_veth("net_af_packet");
}

#[test]
fn a_kernel_is_answered_over_af_xdp() {
    over_a_veth("net_af_xdp");
}

#[test]
fn what_a_neighbour_says_to_one_queue_reaches_the_workers_of_both() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = engine(&lab, &["--queues", "0-1", "--gateway", PEERS[0], "--gateway", PEERS[1]]);
    // Each worker asks for both gateways; the kernel's answers take one queue each.
    let status = || {
        let mut status = lab.peer().command(VOLLEY);
        let output = status.args(["status", "--json"]).output().unwrap();
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        all["engines"].as_array()?.iter().find(|report| report["pid"] == engine.pid()).cloned()
    };
    let workers = eventually("both gateways in both caches", || {
        let workers = status()?["workers"].as_array()?.clone();
        let known =
            |worker: &serde_json::Value| worker["ports"][0]["standalone"]["confirmed"].as_u64() >= Some(2);
        (workers.len() == 2 && workers.iter().all(known)).then_some(workers)
    });
    let told = |n: usize| workers[n]["ports"][0]["standalone"]["told"].as_u64().unwrap();
    assert!(told(0) + told(1) >= 2, "{workers:?}");
    engine.stop();
}

#[test]
fn a_kernel_finds_the_generator_while_it_generates() {
    if !require_root() {
        return;
    }
    for (family, ours, peer) in [("-4", OURS[0], PEERS[0]), ("-6", OURS[1], PEERS[1])] {
        let lab = Lab::new(1);
        let target = SocketAddr::new(peer.parse().unwrap(), 7777);
        let mac = "02:00:00:00:00:77";
        let way = ["--netns", lab.peer_ns(), "--source", ours, "--mac", mac];
        let mut generator = Peer::with("net_tap0,iface=nic0", "1000", &target.to_string(), &way);
        generator.sends();
        lab.peer().exec(["ip", "link", "set", "nic0", "address", mac]);
        up(lab.peer(), "nic0", PEERS);
        // The echo is the kernel's socket, whose answers wait until the kernel has found the generator.
        let socket = lab.peer().run(|| eventually("a socket", || UdpSocket::bind(target).ok()));
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut packet = [0; 2048];
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok((len, from)) = socket.recv_from(&mut packet) {
                        let _ = socket.send_to(&packet[..len], from);
                    }
                }
            });
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                generator.is_answered();
                // Forgotten in the middle, and pinged.
                lab.peer().exec(["ip", family, "neigh", "flush", "dev", "nic0"]);
                generator.is_answered();
                eventually("ping the generator", || {
                    let mut ping = lab.peer().command("ping");
                    ping.args(["-c", "2", "-i", "0.2", "-W", "2", ours]);
                    ping.output().unwrap().status.success().then_some(())
                });
                let neighbours = lab.peer().exec(["ip", family, "neigh", "show", "dev", "nic0"]);
                assert!(neighbours.contains(ours) && neighbours.contains("lladdr"), "{neighbours}");
            }));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            if let Err(panic) = found {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

#[test]
fn what_is_not_ours_reaches_the_kernel_behind_the_port() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = engine(&lab, &["--exception", "net_tap1,iface=exc0"]);
    // The host's kernel, in the lab's other namespace, with the address that is also the engine's.
    lab.peer().exec(["ip", "link", "set", "exc0", "netns", lab.engine_ns()]);
    up(lab.engine(), "exc0", OURS);
    for ours in OURS {
        let at = SocketAddr::new(ours.parse().unwrap(), 2222);
        let listener = lab.engine().run(|| eventually("a listener", || TcpListener::bind(at).ok()));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let text: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut stream = lab.peer().run(|| {
            eventually("a connection", || TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok())
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&text).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).unwrap();
        assert!(echoed == text, "{} of {} bytes came back right", echoed.len(), text.len());
        server.join().unwrap();
        // And the game port is still the engine's.
        let game = lab.peer().run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(
                if at.is_ipv4() { PEERS[0] } else { PEERS[1] }.parse().unwrap(),
                0,
            ))
            .unwrap();
            socket.connect(SocketAddr::new(at.ip(), 7777)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.send(b"game").unwrap();
            socket.recv(&mut [0; 16]).ok()
        });
        assert_eq!(game, Some(4));
    }
    engine.stop();
}
