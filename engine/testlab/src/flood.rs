//! A flood of SYNs from addresses that nobody has.

mod in_kernel;

use crate::netns::Netns;
use in_kernel::InKernel;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg, socket,
};
use std::io::{IoSlice, Result};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets that one system call sends.
const BATCH: usize = 64;
/// IPv4 and TCP header, and options: MSS, SACK permitted, timestamps, window scale, as a Linux client sends them.
const LEN: usize = 20 + 40;
/// What a paced flood sends at once, in time. A sleep takes as long again. Longer makes bursts of it, which keep whoever shares the
/// core and whoever receives them for as long as they are; shorter is more sleeping than sending.
const STEP: Duration = Duration::from_micros(50);
/// How far a paced flood may fall behind and still catch up. What it could not send in longer is not sent at once later.
const BEHIND: Duration = Duration::from_millis(5);
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// The sources: 198.18.0.0/15, which RFC 2544 sets aside for measurements.
const SOURCES: u32 = 0xc612_0000;
const SOURCE_BITS: u32 = 17;

/// Where the TCP header of a packet begins.
const SYN: usize = 20;

/// SYNs from random addresses of 198.18.0.0/15 and random ports, on a thread of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Begins to send SYNs out of a namespace to `to`, through a raw socket: `per_second`, evenly in steps of 0.1 ms or so.
    ///
    /// # Errors
    /// When there is no raw socket for it (CAP_NET_RAW).
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn start(from: &Netns, to: SocketAddrV4, per_second: u32) -> Result<Flood> {
        let socket = from.run(|| {
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
        })?;
        Flood::on_a_thread(move |sent, stop| run(&socket, to, per_second, sent, stop))
    }

    /// Begins to send as many SYNs as the kernel's own generator can, out of `interface` of a namespace: some million a second, past
    /// the kernel's IP and queues. `next_hop` is the MAC they are addressed to.
    ///
    /// # Errors
    /// When the program cannot be loaded (CAP_BPF and CAP_NET_ADMIN).
    ///
    /// # Panics
    /// When the namespace cannot be entered, or has no such interface.
    pub fn in_kernel(from: &Netns, interface: &str, next_hop: [u8; 6], to: SocketAddrV4) -> Result<Flood> {
        let own = from.mac(interface);
        let inside = from.clone();
        let load = || InKernel::load(nix::net::if_::if_nametoindex(interface)?, own, next_hop, to);
        let flood = from.run(load)?;
        // The kernel looks for the interface in the namespace of whoever runs the program.
        Flood::on_a_thread(move |sent, stop| inside.run(|| flood.run(sent, stop)))
    }

    fn on_a_thread(send: impl FnOnce(&AtomicU64, &AtomicBool) + Send + 'static) -> Result<Flood> {
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, until) = (Arc::clone(&sent), Arc::clone(&stop));
        let send = move || send(&count, &until);
        let thread = std::thread::Builder::new().name("syn-flood".into()).spawn(send)?;
        Ok(Flood { sent, stop, thread: Some(thread) })
    }

    /// Packets the kernel has taken so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it, and says how many packets were sent.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(socket: &OwnedFd, to: SocketAddrV4, per_second: u32, sent: &AtomicU64, stop: &AtomicBool) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let mut packets = [[0; LEN]; BATCH];
    let target = [Some(SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0))); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let rate = f64::from(per_second);
    let (mut start, mut done) = (Instant::now(), 0.0);
    while !stop.load(Ordering::Relaxed) {
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed * rate - done > rate * BEHIND.as_secs_f64() {
            start = Instant::now();
            done = 0.0;
        }
        let now = (elapsed * rate - done).clamp(0.0, BATCH as f64) as usize;
        // Not the processor's whole time for nothing: a core is shared with the clients.
        if now < (rate * STEP.as_secs_f64()).clamp(1.0, BATCH as f64) as usize {
            std::thread::sleep(STEP);
            continue;
        }
        packets[..now].iter_mut().for_each(|packet| *packet = drawn(to, &mut random));
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|n| [IoSlice::new(&packets[n])]);
        let taken = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices[..now],
            &target[..now],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        // A full queue loses what does not fit, as a wire would.
        let taken = taken.map_or(0, Iterator::count);
        sent.fetch_add(taken as u64, Ordering::Relaxed);
        done += now as f64;
    }
}

/// A SYN of a client that was drawn. The IPv4 checksum is filled in by the kernel.
fn drawn(to: SocketAddrV4, random: &mut u64) -> [u8; LEN] {
    // xorshift64 (Marsaglia 2003).
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let dice = *random;
    let source = SOURCES | (dice as u32 & ((1 << SOURCE_BITS) - 1));
    let source_port = 1024 + (dice >> 20) as u16 % 60_000;
    let mut packet = syn(to, source, source_port, (dice >> 32) as u32);
    // Pseudo-header (RFC 9293, section 3.1): the addresses, the protocol, the length.
    let mut sum = sum(&packet[12..]) + u32::from(6_u16.to_be()) + u32::from((LEN as u16 - 20).to_be());
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[36..38].copy_from_slice(&(!(sum as u16)).to_ne_bytes());
    packet
}

/// A SYN without checksums.
fn syn(to: SocketAddrV4, source: u32, source_port: u16, sequence: u32) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(LEN as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.to_be_bytes());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let tcp = &mut packet[SYN..];
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = 10 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&64_240_u16.to_be_bytes());
    tcp[20..].copy_from_slice(&OPTIONS);
    packet
}

/// Sum of the 16-bit words as they lie in memory: a ones' complement sum does not mind their order of bytes (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}
