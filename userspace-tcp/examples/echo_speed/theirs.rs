//! smoltcp as the server, with what helps it: no neighbours to look up, no IPv4 checksums, and the application knows which of its
//! sockets to look at after a burst, so that only the stack itself walks all of them.

use crate::client::IP;
use crate::{Frame, MESSAGE, PORT, SERVER, Server};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::time::Duration;

/// Socket buffers, bytes each: a burst of messages fits.
const BUFFER: usize = 64 * MESSAGE;

/// Rings in memory; buffers are used again.
#[derive(Default)]
struct Ring {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Transmit<'r>(&'r mut Vec<Vec<u8>>, &'r mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut buffer = self.1.pop().unwrap_or_default();
        buffer.resize(len, 0);
        let result = f(&mut buffer);
        self.0.push(buffer);
        result
    }
}

impl Device for Ring {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Transmit<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Transmit(&mut self.sent, &mut self.spare)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.sent, &mut self.spare))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities
    }
}

pub struct Smoltcp {
    ring: Ring,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
}

impl Smoltcp {
    pub fn new() -> Smoltcp {
        let mut ring = Ring::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 9;
        let mut interface = Interface::new(config, &mut ring, Instant::from_millis(1_000));
        let [a, b, c, d] = SERVER;
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(IpAddress::v4(a, b, c, d), 8)).expect("there is room for one");
        });
        Smoltcp { ring, interface, sockets: SocketSet::new(Vec::new()), handles: Vec::new() }
    }
}

impl Server for Smoltcp {
    fn expect(&mut self, connections: usize) {
        for _ in 0..connections {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            socket.listen(PORT).expect("a port that is not 0");
            self.handles.push(self.sockets.add(socket));
        }
    }

    fn serve(&mut self, frames: &[Frame], now: Duration, answers: &mut Vec<Vec<u8>>) -> (u64, Duration) {
        let now = Instant::from_micros(now.as_micros() as i64);
        self.ring.received.extend(frames.iter().map(|frame| frame.bytes[..frame.len].to_vec()));
        let mut echoed = 0;
        let mut message = [0u8; BUFFER];
        let start = std::time::Instant::now();
        self.interface.poll(now, &mut self.ring, &mut self.sockets);
        for frame in frames {
            // The listening sockets are taken in their order, so the nth client has the nth.
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[frame.client]);
            if socket.can_recv() {
                let n = socket.recv_slice(&mut message).expect("it said that it can");
                socket.send_slice(&message[..n]).expect("the buffer is as large as the other");
                echoed += (n / MESSAGE) as u64;
            }
        }
        self.interface.poll(now, &mut self.ring, &mut self.sockets);
        let spent = start.elapsed();
        for packet in self.ring.sent.drain(..) {
            answers.push([&packet[16..20], &packet[IP..]].concat());
            self.ring.spare.push(packet);
        }
        (echoed, spent)
    }

    fn connections(&self) -> usize {
        let active = |&&handle: &&SocketHandle| self.sockets.get::<tcp::Socket<'_>>(handle).may_send();
        self.handles.iter().filter(active).count()
    }

    fn memory(&self) -> (usize, usize) {
        let each = size_of::<tcp::Socket<'_>>() + 2 * BUFFER;
        (each, each * self.handles.len())
    }
}
