//! Sends to peers never heard from, over a real link: the control thread finds routes and has the kernel resolve
//! neighbours. Needs root.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use volley::control::Control;
use volley::datagram::{Batch, DatagramPort, SendError};
use volley::net::neighbours::Link;
use volley::net::{Net, NetConfig, Path};
use volley::port::Port;
use volley::port::af_xdp::{AfXdp, AfXdpConfig, ZeroCopy};
use volley::time::Now;
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, PEER_IPV4, PEER_IPV6, require_root};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 7777;

struct End {
    net: Net,
    /// Kept running: it ends when dropped.
    _control: Control,
    start: Instant,
    batch: Batch,
}

impl End {
    fn open(lab: &Lab) -> End {
        let (port, control, interface) = lab.engine().run(|| {
            let mut config = AfXdpConfig::new(lab.engine_if(), vec![0]);
            config.zero_copy = ZeroCopy::Never;
            config.huge_pages = false;
            let port = AfXdp::open(&config).unwrap_or_else(|error| panic!("{error}"));
            let interface = nix::net::if_::if_nametoindex(lab.engine_if()).unwrap();
            (port, Control::start().unwrap_or_else(|error| panic!("{error}")), interface)
        });
        let links = Some(control.subscribe(interface, None));
        let port: Box<dyn Port> = Box::new(port);
        End {
            net: Net::new(port, NetConfig { links, ..NetConfig::default() }),
            _control: control,
            start: Instant::now(),
            batch: Batch::default(),
        }
    }

    /// One turn of a worker that nothing is sent to.
    fn turn(&mut self) {
        let now = Now { ns: self.start.elapsed().as_nanos() as u64, unix_secs: 0 };
        let received = self.net.recv(&mut self.batch, now);
        assert_eq!(received, 0, "no program redirects anything here");
        self.net.flush();
    }

    fn send(&mut self, path: &Path, text: &[u8]) -> Result<(), SendError> {
        self.turn();
        let sent = self.net.send(path, text.len(), &mut |room| room.copy_from_slice(text));
        self.net.flush();
        sent
    }

    /// Tries until it is sent; the errors on the way.
    fn send_soon(&mut self, path: &Path, text: &[u8]) -> Vec<SendError> {
        let (deadline, mut errors) = (Instant::now() + PATIENCE, Vec::new());
        while let Err(error) = self.send(path, text) {
            assert!(Instant::now() < deadline, "still not sent: {error}");
            errors.push(error);
            std::thread::sleep(Duration::from_millis(2));
        }
        errors
    }

    fn wait(&mut self, what: &str, mut until: impl FnMut(&Net) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(&self.net) {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            self.turn();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn peer_socket(lab: &Lab, address: SocketAddr) -> UdpSocket {
    let socket = lab.peer().run(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("the datagram did not arrive");
    (buffer[..len].to_vec(), from)
}

#[test]
fn an_unasked_datagram_reaches_a_peer_never_heard_from() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut end = End::open(&lab);
    let ends: [(IpAddr, IpAddr); 2] =
        [(ENGINE_IPV4.into(), PEER_IPV4.into()), (ENGINE_IPV6.into(), PEER_IPV6.into())];
    for (local, peer) in ends {
        let (local, peer) = (SocketAddr::new(local, PORT), SocketAddr::new(peer, 9000));
        let socket = peer_socket(&lab, peer);
        let path = Path::to(0, local, peer).unwrap();
        let errors = end.send_soon(&path, b"unasked");
        assert!(errors.contains(&SendError::Unresolved), "{peer} needs resolving first: {errors:?}");
        assert!(errors.iter().all(|error| *error == SendError::Unresolved), "{errors:?}");
        assert_eq!(received(&socket), (b"unasked".to_vec(), local));
        // With any source address: the kernel's choice.
        let any = if local.is_ipv4() { "0.0.0.0:7777" } else { "[::]:7777" };
        let path = Path::to(0, any.parse().unwrap(), peer).unwrap();
        assert_eq!(end.send(&path, b"again"), Ok(()));
        assert_eq!(received(&socket), (b"again".to_vec(), local));
    }
    assert_eq!(end.net.stats().sent, 4);
    assert_eq!(end.net.stats().dropped_total(), 0);
    end.wait("all completions", |net| net.is_drained());
    assert!(end.net.ledger().balances() && end.net.ledger().app == 0, "{}", end.net.ledger());
}

#[test]
fn a_route_through_a_gateway_is_followed() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    // The peer is the gateway to an address of its own.
    lab.peer().exec(["ip", "address", "add", "10.99.0.1/32", "dev", "lo"]);
    lab.engine().exec(["ip", "route", "add", "10.99.0.0/16", "via", "10.77.0.2"]);
    let mut end = End::open(&lab);

    let socket = peer_socket(&lab, "10.99.0.1:9000".parse().unwrap());
    let local = SocketAddr::new(ENGINE_IPV4.into(), PORT);
    let path = Path::to(0, local, "10.99.0.1:9000".parse().unwrap()).unwrap();
    end.send_soon(&path, b"through the gateway");
    assert_eq!(received(&socket), (b"through the gateway".to_vec(), local));

    let nowhere = Path::to(0, local, "192.0.2.1:9".parse().unwrap()).unwrap();
    assert_eq!(end.send(&nowhere, b""), Err(SendError::NoRoute));
    let stranger =
        Path::to(0, "192.0.2.7:7777".parse().unwrap(), "10.99.0.1:9000".parse().unwrap()).unwrap();
    assert_eq!(end.send(&stranger, b""), Err(SendError::NoRoute), "192.0.2.7 is not ours to send from");
}

#[test]
fn changes_are_heard_while_running() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let mut end = End::open(&lab);
    let peer: SocketAddr = "10.80.0.9:9000".parse().unwrap();
    let path = Path::to(0, SocketAddr::new(ENGINE_IPV4.into(), PORT), peer).unwrap();
    end.wait("the link", |net| matches!(net.link(), Some(Link::Present { up: true, mtu: 1500, .. })));
    let mac = lab.engine_mac();
    assert!(matches!(end.net.link(), Some(Link::Present { mac: known, .. }) if known == mac));
    assert_eq!(end.send(&path, b"x"), Err(SendError::NoRoute));

    // A route appears, then a neighbour set by hand.
    lab.engine().exec(["ip", "route", "add", "10.80.0.0/24", "dev", lab.engine_if()]);
    let deadline = Instant::now() + PATIENCE;
    while end.send(&path, b"x") == Err(SendError::NoRoute) {
        assert!(Instant::now() < deadline, "the route was not heard of");
        std::thread::sleep(Duration::from_millis(2));
    }
    let lladdr = ["lladdr", "02:00:00:00:00:99", "dev", lab.engine_if(), "nud", "permanent"];
    lab.engine().exec(["ip", "neigh", "replace", "10.80.0.9"].iter().chain(&lladdr));
    end.send_soon(&path, b"x");

    // They go away again.
    lab.engine().exec(["ip", "route", "del", "10.80.0.0/24"]);
    let deadline = Instant::now() + PATIENCE;
    while end.send(&path, b"x") != Err(SendError::NoRoute) {
        assert!(Instant::now() < deadline, "the route's end was not heard of");
        std::thread::sleep(Duration::from_millis(2));
    }
    lab.engine().exec(["ip", "link", "set", lab.engine_if(), "mtu", "1400"]);
    end.wait("the MTU", |net| net.max_payload(true) == 1400 - 28);
    lab.engine().exec(["ip", "link", "set", lab.engine_if(), "down"]);
    end.wait("the link down", |net| matches!(net.link(), Some(Link::Present { up: false, .. })));
    lab.engine().exec(["ip", "link", "set", lab.engine_if(), "up"]);
    end.wait("the link up", |net| matches!(net.link(), Some(Link::Present { up: true, .. })));
    lab.engine().exec(["ip", "link", "del", lab.engine_if()]);
    end.wait("the interface removed", |net| net.failure().is_some_and(|why| why.contains("removed")));
    assert_eq!(Path::to(0, peer, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1)), None);
}
