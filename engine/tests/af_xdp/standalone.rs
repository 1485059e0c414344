//! A port without a kernel behind it, over a real link: the program redirects every packet, so the kernel at our end sees none. At the
//! other end is a real one, as neighbour and as router.

use super::config;
use super::redirect::Redirect;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use volley::datagram::{DatagramPort, turn};
use volley::net::standalone::{Gateway, LocalAddress, StandaloneConfig};
use volley::net::{Net, NetConfig, Path};
use volley::port::Port;
use volley::port::af_xdp::AfXdp;
use volley::time::Now;
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, PEER_IPV4, PEER_IPV6, require_root};

const PATIENCE: Duration = Duration::from_secs(30);
/// MTU of the link behind the router.
const NARROW: usize = 1300;
/// Hosts on that link; nobody is there.
const FAR: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

struct Alone {
    net: Net,
    _redirect: Redirect,
    start: Instant,
}

impl Alone {
    fn open(lab: &Lab) -> Alone {
        let (port, redirect) = lab.engine().run(|| {
            let port =
                AfXdp::open(&config(lab.engine_if(), &[0])).unwrap_or_else(|error| panic!("{error}"));
            let redirect = Redirect::attach(lab.engine_if());
            port.sockets().for_each(|(queue, socket)| redirect.bind(queue, socket));
            (port, redirect)
        });
        let local = |address: IpAddr, prefix_len| LocalAddress { address, prefix_len, vlan: None };
        let standalone = StandaloneConfig {
            addresses: vec![local(ENGINE_IPV4.into(), 24), local(ENGINE_IPV6.into(), 64)],
            gateways: vec![Gateway(PEER_IPV4.into()), Gateway(PEER_IPV6.into())],
            mac: Some(lab.engine_mac()),
            ..StandaloneConfig::default()
        };
        standalone.check().unwrap();
        let port: Box<dyn Port> = Box::new(port);
        let net = Net::new(port, NetConfig { standalone: Some(standalone), ..NetConfig::default() });
        Alone { net, _redirect: redirect, start: Instant::now() }
    }

    /// Turns until `until` says so.
    #[track_caller]
    fn run(&mut self, what: &str, mut until: impl FnMut(&mut Net) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(&mut self.net) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.net.standalone_stats());
            let now = Now { ns: self.start.elapsed().as_nanos() as u64, unix_secs: 0 };
            turn(&mut self.net, now, |view| view.reply(view.payload().len()));
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Both our ends with both the peer's.
fn ends() -> [(IpAddr, IpAddr); 2] {
    [(ENGINE_IPV4.into(), PEER_IPV4.into()), (ENGINE_IPV6.into(), PEER_IPV6.into())]
}

fn path(local: IpAddr, peer: IpAddr, port: u16) -> Path {
    Path::to(0, SocketAddr::new(local, 7777), SocketAddr::new(peer, port)).unwrap()
}

#[test]
fn a_kernel_finds_it_pings_it_and_is_found() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut alone = Alone::open(&lab);
    for (ours, peer) in ends() {
        // Found first: nothing has been heard from that socket.
        let socket = lab.peer().run(|| UdpSocket::bind(SocketAddr::new(peer, 0)).unwrap());
        socket.set_nonblocking(true).unwrap();
        let to = path(ours, peer, socket.local_addr().unwrap().port());
        alone.run("a datagram to a peer never heard from", |net| {
            let _ = net.send(&to, 5, &mut |room| room.copy_from_slice(b"first"));
            net.flush();
            let mut text = [0; 16];
            socket.recv_from(&mut text).is_ok_and(|(len, from)| {
                assert_eq!((&text[..len], from), (&b"first"[..], SocketAddr::new(ours, 7777)));
                true
            })
        });
        // Forgotten there, so the peer's kernel has to ask.
        lab.peer().exec(["ip", "neigh", "flush", "dev", lab.peer_if()]);
        let mut ping = lab
            .peer()
            .command("ping")
            .args(["-c", "5", "-i", "0.2", "-W", "5", &ours.to_string()])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut ended = None;
        alone.run("ping", |_| {
            ended = ping.try_wait().unwrap();
            ended.is_some()
        });
        assert!(ended.unwrap().success(), "{ours} was not there: {:?}", alone.net.standalone_stats());
        socket.connect(SocketAddr::new(ours, 7777)).unwrap();
        alone.run("an answer", |_| {
            let _ = socket.send(b"echo");
            socket.recv(&mut [0; 16]).is_ok()
        });
        let known = lab.peer().exec(["ip", "neigh", "show", &ours.to_string(), "dev", lab.peer_if()]);
        let mac = lab.engine_mac().map(|byte| format!("{byte:02x}")).join(":");
        assert!(known.contains(&mac), "{known}");
    }
    let stats = alone.net.standalone_stats().unwrap();
    assert!(stats.arp_answered > 0 && stats.ndp_answered > 0 && stats.echo_answered >= 2, "{stats:?}");
    assert!(stats.confirmed >= 2 && stats.conflicts == 0, "{stats:?}");
}

#[test]
fn a_router_that_says_too_big_is_heard() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let peer = lab.peer();
    peer.exec([
        "ip",
        "link",
        "add",
        "far0",
        "mtu",
        &NARROW.to_string(),
        "type",
        "veth",
        "peer",
        "name",
        "far1",
    ]);
    peer.exec(["ip", "link", "set", "far0", "up"]);
    peer.exec(["ip", "link", "set", "far1", "up"]);
    peer.exec(["ip", "addr", "add", "203.0.113.1/24", "dev", "far0"]);
    peer.exec(["ip", "-6", "addr", "add", "2001:db8:9::1/64", "dev", "far0", "nodad"]);
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        peer.exec(["sh", "-c", &format!("echo 1 > /proc/sys/net/{name}")]);
    }
    let mut alone = Alone::open(&lab);
    for ((ours, _), (far, headers)) in ends().into_iter().zip(FAR.into_iter().zip([28, 48])) {
        let to = path(ours, far.parse().unwrap(), 5000);
        let full = alone.net.max_payload_to(&to);
        assert_eq!(full, 1500 - headers);
        let mut last = Instant::now() - PATIENCE;
        alone.run("a lower MTU", |net| {
            // Not more often than a router answers.
            if last.elapsed() > Duration::from_millis(200)
                && net.send(&to, full, &mut |room| room.fill(7)).is_ok()
            {
                last = Instant::now();
                net.flush();
            }
            net.max_payload_to(&to) == NARROW - headers
        });
        assert!(alone.net.send(&to, full, &mut |_| {}).is_err());
    }
    assert_eq!(alone.net.standalone_stats().unwrap().pmtu_lowered, 2);
}
