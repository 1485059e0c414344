//! The stack behind a TUN device: raw IP packets in and out, an echo server on top, a kernel on the other side.
//!
//! ```text
//!   kernel's TCP ── IP packets ── TUN ── packets.rs ── volley-tcp ── echo (below)
//! ```
//!
//! This is all it takes to wrap the crate: `packets.rs` takes IP headers off and puts them on, and the loop below reads, lets the
//! application act, fires timers, transmits, and sleeps until there is a packet or the next deadline.
//!
//! ```text
//! # target/debug/examples/ip tun7 10.9.0.1:7 &             (root: it makes the device)
//! # ip addr add 10.9.0.2/24 dev tun7 && ip link set tun7 up
//! # nc 10.9.0.1 7
//! ```

#[cfg(target_os = "linux")]
mod packets;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use packets::{Packets, ip_checksums_are_right, segment};
    use std::io::Read;
    use std::os::fd::AsFd;
    use volley_tcp::{Config, EventKind, Instant, SegmentIn, Stack};
    use volley_testlab::{Kind, Tun};

    /// Packets taken at once. More fill caches, fewer make more bursts.
    const BURST: usize = 64;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, address] = &arguments[..] else { return Err("usage: ip DEVICE ADDRESS:PORT".into()) };
    let tun = Tun::new(name, Kind::Tun)?;

    // The crate has no randomness and no clock: both are given.
    let mut entropy = [0; 64];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let origin = std::time::Instant::now();
    let clock = || Instant::from_nanos(origin.elapsed().as_nanos() as u64);
    let mut stack = Stack::new(Config::default(), &entropy, clock());
    let listener = stack.listen(address.parse()?, Default::default())?;
    eprintln!("ip: {name} is there; echoing on {address}");

    let mut out = Packets::default();
    let mut buffers = vec![[0u8; 2048]; BURST];
    loop {
        // Sleep until there is a packet or something is due.
        let wait = match stack.next_deadline() {
            Some(at) => {
                PollTimeout::try_from(at.since(clock()).as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        poll(&mut [PollFd::new(tun.as_fd(), PollFlags::POLLIN)], wait)?;

        let mut lengths = Vec::with_capacity(BURST);
        for buffer in &mut buffers {
            match tun.receive(buffer) {
                Ok(Some(len)) => lengths.push(len),
                Ok(None) => break,
                // The device is down: nobody has set it up yet.
                Err(_) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    break;
                }
            }
        }
        let segments: Vec<SegmentIn<'_>> = lengths
            .iter()
            .zip(&buffers)
            .map(|(&len, buffer)| &buffer[..len])
            .filter(|packet| ip_checksums_are_right(packet))
            .filter_map(segment)
            .collect();

        let now = clock();
        let mut burst = stack.receive_burst(now, &segments);
        let mut again = true;
        while std::mem::take(&mut again) {
            while let Some(event) = burst.next_event() {
                let connection = event.connection;
                match event.kind {
                    EventKind::Established => {
                        burst.accept(listener);
                    }
                    EventKind::Readable | EventKind::Writable => {
                        // As much as the other direction takes; the rest stays unread, and closes the window.
                        while let Ok(bytes) = burst.peek(connection) {
                            let bytes = bytes.to_vec();
                            let Ok(n) = burst.write(connection, &bytes) else { break };
                            if n == 0 {
                                break;
                            }
                            burst.read(connection, n)?;
                        }
                        if burst
                            .info(connection)
                            .is_ok_and(|info| info.state == volley_tcp::State::CloseWait)
                            && burst.unread(connection) == Ok(0)
                        {
                            burst.close(connection)?;
                        }
                    }
                    EventKind::PeerClosed if burst.unread(connection) == Ok(0) => {
                        burst.close(connection)?
                    }
                    EventKind::PeerClosed => {}
                    EventKind::Closed(_) => {
                        // Whoever ended it, its slot goes back; it has, when we closed first.
                        let _ = burst.close(connection);
                    }
                }
                again = true;
            }
        }
        drop(burst);
        stack.timers(now);
        stack.transmit(now, &mut out);
        for packet in out.take() {
            // A full device loses the packet; TCP sends it again.
            let _ = tun.send(&packet);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("ip: TUN devices are Linux's: run this there");
    std::process::exit(1);
}
