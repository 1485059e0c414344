//! The other end of the wire: kernel sockets, and an AF_XDP port for frames no kernel would send.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use volley::frame::Burst;
use volley::net::packet::Packet;
use volley::port::Port;
use volley::port::af_xdp::{AfXdp, AfXdpConfig};
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, PEER_IPV4, PEER_IPV6};
use volley_xdp::{Action, AttachMode, AttachOptions, Protocol, Rule, Steering, Unbound};

/// Both ends' addresses, for each family.
pub const FAMILIES: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(ENGINE_IPV4), IpAddr::V4(PEER_IPV4)), (IpAddr::V6(ENGINE_IPV6), IpAddr::V6(PEER_IPV6))];

/// The game port.
pub const PORT: u16 = 7777;

/// A kernel UDP socket at the peer, connected to `port` of the engine's address of its family.
pub fn socket(lab: &Lab, family: (IpAddr, IpAddr), port: u16) -> UdpSocket {
    let (engine, peer) = family;
    let socket = lab.peer().run(|| UdpSocket::bind((peer, 0)).unwrap());
    socket.connect((engine, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Sends `payload` and waits for the same bytes to come back. Asked again for a while: the first question may meet
/// a neighbour that is being resolved.
pub fn echoes(socket: &UdpSocket, payload: &[u8]) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    let mut answer = vec![0; 65_536];
    while Instant::now() < until {
        // An ICMP error of an earlier question may be waiting.
        let _ = socket.send(payload);
        match socket.recv(&mut answer) {
            Ok(len) if answer[..len] == *payload => return true,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    false
}

/// Both families are answered, by small and by full-sized datagrams.
#[track_caller]
pub fn assert_answers(lab: &Lab) {
    for family in FAMILIES {
        let socket = socket(lab, family, PORT);
        assert!(echoes(&socket, b"are you there?"), "no answer from {}", family.0);
        assert!(echoes(&socket, &[7; 1400]), "no long answer from {}", family.0);
    }
}

/// What is not the game's is the kernel's: ping, and a kernel UDP socket on another port.
#[track_caller]
pub fn assert_kernel_has_the_rest(lab: &Lab) {
    for (engine, _) in FAMILIES {
        lab.peer().exec(["ping", "-c1", "-W5", &engine.to_string()]);
    }
    for family in FAMILIES {
        let server = lab.engine().run(|| UdpSocket::bind((family.0, 9)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = socket(lab, family, 9);
        client.send(b"kernel").unwrap();
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"kernel"[..], client.local_addr().unwrap()));
    }
}

/// A good packet to the game port, from the first MAC to the second.
pub fn packet(macs: ([u8; 6], [u8; 6]), family: (IpAddr, IpAddr), payload: &[u8]) -> Packet {
    let (engine, peer) = family;
    let from = SocketAddr::new(peer, Wire::PORT);
    Packet { macs, ..Packet::new(from, SocketAddr::new(engine, PORT), payload) }
}

/// Raw frames in and out of the peer's interface. Comes back to it: UDP for [`Wire::PORT`], exactly as it was on the wire, VLAN
/// tags included.
pub struct Wire {
    port: AfXdp,
    _steering: Steering,
    queues: u16,
}

impl Wire {
    /// Where the packets say they come from.
    pub const PORT: u16 = 40_000;

    /// Takes all `queues` of the peer's interface.
    pub fn open(lab: &Lab, queues: u16) -> Wire {
        lab.peer().run(|| {
            let interface = lab.peer_if().to_owned();
            let options =
                AttachOptions { interface: interface.clone(), mode: AttachMode::Native, replace: false };
            let steering = Steering::attach(&options).unwrap();
            let port = AfXdp::open(&AfXdpConfig {
                frames: 1024,
                fill_ring: 256,
                rx_ring: 256,
                tx_ring: 256,
                completion_ring: 256,
                tx_reserve: 128,
                ..AfXdpConfig::new(interface, (0..queues).collect::<Vec<_>>())
            })
            .unwrap();
            for (queue, socket) in port.sockets() {
                steering.bind_socket(u32::from(queue), socket.as_fd()).unwrap();
            }
            let rule = Rule {
                protocol: Protocol::Udp,
                ports: Wire::PORT..=Wire::PORT,
                addresses: vec![],
                action: Action::Redirect { unbound: Unbound::Pass },
                syn_limit: None,
            };
            steering.claim("test-wire", &[rule]).unwrap();
            Wire { port, _steering: steering, queues }
        })
    }

    /// Puts a frame on every queue of the wire; it arrives on the queue of the same number.
    pub fn send(&mut self, bytes: &[u8]) {
        let until = Instant::now() + Duration::from_secs(5);
        for queue in 0..self.queues {
            let mut burst = Burst::new();
            while self.port.alloc(&mut burst, 1) == 0 {
                assert!(Instant::now() < until, "no frame to send from");
                self.port.flush();
            }
            assert!(burst[0].set_len(bytes.len()));
            burst[0].bytes_mut().copy_from_slice(bytes);
            burst[0].set_queue(queue);
            while self.port.tx(&mut burst) == 0 {
                assert!(Instant::now() < until, "the wire takes nothing");
                self.port.flush();
            }
            self.port.flush();
        }
    }

    /// The next frame that comes back, within two seconds.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let until = Instant::now() + Duration::from_secs(2);
        let mut burst = Burst::new();
        while Instant::now() < until {
            if self.port.rx(&mut burst) > 0 {
                let first = burst[0].bytes().to_vec();
                self.port.free(&mut burst);
                self.port.flush();
                return Some(first);
            }
            self.port.flush();
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}
