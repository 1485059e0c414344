//! What the peer echoes share, so that they differ in nothing but the crate that drives the rings.
//!
//! ```text
//!   volley-xdp's program ──redirect──► AF_XDP socket of the peer's crate ──► answer() in place ──► the same socket
//! ```
//!
//! The steering program is the engine's, so that the kernel's part is the same in every AF_XDP row. An answer swaps MAC addresses,
//! IP addresses and ports, as testpmd's 5tswap does: no checksum changes, and none is verified.

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volley_xdp::{Action, AttachMode, AttachOptions, Protocol, Rule, Steering, Unbound};

/// Frames of each burst, as in every other AF_XDP row.
pub const BURST: usize = 64;
/// Descriptors of each ring, as in the engine.
pub const RING: u32 = 2048;
/// Frames of the UMEM: a full fill ring, a full transmit ring.
pub const FRAMES: u32 = 2 * RING;

/// How often figures are told. More often would be a system call that the rows of ours do not make.
const TELL: Duration = Duration::from_millis(250);
/// Turns of the loop between two looks at the clock. Fewer would cost the idle loop; at 10 ns a turn these are 40 µs.
const TURNS: u32 = 4096;
/// How long a queue may stay busy. It took less than 100 ms whenever that was seen.
const BUSY: Duration = Duration::from_secs(2);
/// SOL_XDP and its option XDP_MAX_TX_SKB_BUDGET (Linux 6.17): frames that one `sendto` transmits in copy mode.
const SOL_XDP: libc::c_int = 283;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// As the engine asks for.
static SKB_BUDGET: u32 = 512;

/// The command line: INTERFACE PORT. Queue 0.
#[derive(Debug)]
pub struct Arguments {
    /// The interface.
    pub interface: String,
    /// UDP port.
    pub port: u16,
}

impl Arguments {
    /// Reads them.
    pub fn read() -> Result<Arguments> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [interface, port] = words.as_slice() else { bail!("usage: INTERFACE PORT") };
        let port = port.parse().with_context(|| format!("{port} is not a port"))?;
        Ok(Arguments { interface: interface.clone(), port })
    }

    /// Attaches the steering program, has it redirect the port, and puts `socket` behind queue 0. All of it is undone when the
    /// value is dropped, and when the process ends in any other way.
    pub fn steer(&self, socket: BorrowedFd<'_>) -> Result<Steering> {
        let options =
            AttachOptions { interface: self.interface.clone(), mode: AttachMode::Native, replace: false };
        let steering = Steering::attach(&options)?;
        steering.bind_socket(0, socket)?;
        let action = Action::Redirect { unbound: Unbound::Drop };
        let rule = Rule {
            protocol: Protocol::Udp,
            ports: self.port..=self.port,
            addresses: Vec::new(),
            action,
            syn_limit: None,
        };
        steering.claim("peer", &[rule])?;
        Ok(steering)
    }
}

/// Opens a socket. A queue whose owner has just ended stays busy for some milliseconds, since the kernel takes its UMEM down
/// later, so it tries again for a while.
pub fn open<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + BUSY;
    loop {
        match attempt() {
            Err(_) if Instant::now() < until => std::thread::sleep(BUSY / 100),
            outcome => return outcome,
        }
    }
}

/// Lets one `sendto` transmit more than 32 frames, where the kernel has that option: the crates do not, their descriptor does.
pub fn raise_budget(socket: BorrowedFd<'_>) {
    // SAFETY: the option's value is a u32 that outlives the call. Kernels without the option refuse it, which changes nothing.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const SKB_BUDGET).cast(),
            size_of::<u32>() as libc::socklen_t,
        );
    }
}

/// Turns a UDP packet into its answer; false when it is none.
#[inline]
pub fn answer(frame: &mut [u8]) -> bool {
    let (addresses, length, ports) = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, 0x45, _, _, _, _, _, _, _, _, 17, ..] => {
            (26, 4, 34)
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, _, _, _, _, _, _, 17, ..] => (22, 16, 54),
        _ => return false,
    };
    if frame.len() < ports + 8 {
        return false;
    }
    swap(frame, 0, 6);
    swap(frame, addresses, length);
    swap(frame, ports, 2);
    true
}

/// Swaps two fields that follow each other.
#[inline]
fn swap(frame: &mut [u8], at: usize, length: usize) {
    let (one, other) = frame[at..at + 2 * length].split_at_mut(length);
    one.swap_with_slice(other);
}

/// The loop's end, and what it tells meanwhile: a line `answered N calls M` four times a second.
#[derive(Debug)]
pub struct Tell {
    end: Arc<AtomicBool>,
    at: Instant,
    turns: u32,
    /// Packets answered.
    pub answered: u64,
    /// System calls made.
    pub calls: u64,
}

impl Tell {
    /// From now on; says that it serves.
    pub fn ready(name: &str) -> Result<Tell> {
        let end = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&end))?;
        }
        println!("{name}: ready");
        Ok(Tell { end, at: Instant::now(), turns: 0, answered: 0, calls: 0 })
    }

    /// False once a signal came.
    #[inline]
    pub fn go_on(&mut self) -> bool {
        self.turns += 1;
        if self.turns == TURNS {
            self.turns = 0;
            self.look();
        }
        !self.end.load(Ordering::Relaxed)
    }

    #[cold]
    fn look(&mut self) {
        if self.at.elapsed() >= TELL {
            self.at = Instant::now();
            println!("answered {} calls {}", self.answered, self.calls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(ethertype: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let mut frame = b"\x02servr\x02clint".to_vec();
        frame.extend(ethertype);
        frame.extend(rest);
        frame
    }

    #[test]
    fn an_answer_goes_where_the_question_came_from() {
        let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 1, 2, 10, 0, 0, 1, 10, 0, 0, 2];
        ip.extend([0, 7, 0, 9, 0, 12, 3, 4, b'h', b'i', b'h', b'o']);
        let mut frame = packet([8, 0], &ip);
        let question = frame.clone();
        assert!(answer(&mut frame));
        assert_eq!(&frame[..12], b"\x02clint\x02servr");
        assert_eq!(&frame[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(&frame[34..38], [0, 9, 0, 7]);
        assert_eq!(&frame[38..], &question[38..]);
        assert!(answer(&mut frame));
        assert_eq!(frame, question);
    }

    #[test]
    fn ipv6_too() {
        let mut ip = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        ip.extend([1; 16]);
        ip.extend([2; 16]);
        ip.extend([0, 7, 0, 9, 0, 8, 3, 4]);
        let mut frame = packet([0x86, 0xdd], &ip);
        assert!(answer(&mut frame));
        assert_eq!((frame[22], frame[38], frame[55], frame[57]), (2, 1, 9, 7));
    }

    #[test]
    fn what_is_no_whole_udp_packet_has_no_answer() {
        let tcp =
            [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 6, 1, 2, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 12, 3, 4];
        let udp = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 1, 2, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0];
        for mut frame in [packet([8, 0], &tcp), packet([8, 0], &udp), packet([8, 6], &udp), Vec::new()] {
            assert!(!answer(&mut frame), "{frame:?}");
        }
    }
}
