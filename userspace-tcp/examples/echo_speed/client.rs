//! As little of a client as can be: sequence numbers, and segments in IPv4 packets.

use crate::{Frame, MESSAGE, PORT, SERVER};
use volley_wire::checksum::Sum;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// Bytes of the IPv4 header in front.
pub const IP: usize = 20;

#[derive(Clone, Copy, Default)]
pub struct Client {
    pub address: [u8; 4],
    pub port: u16,
    next: u32,
    acked: u32,
    stamp: u32,
    stamps: bool,
    pub finished: bool,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Client {
    /// The `i`th client, with timestamps if the server speaks them.
    pub fn new(i: usize, stamps: bool) -> Client {
        let i = i as u32;
        let address = [10, 1, (i >> 16) as u8, (i >> 8 & 0xff) as u8];
        Client { address, port: 1024 + (i & 0xff) as u16 * 64, stamps, ..Client::default() }
    }

    /// Its next segment.
    pub fn frame(&mut self, client: usize, flags: u8, payload: usize, ms: u32) -> Frame {
        let mut frame = Frame { bytes: [0; 256], len: 0, client };
        let mut options = Vec::with_capacity(24);
        if flags & SYN != 0 {
            options.extend([2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2]);
        }
        let stamp_at = IP + 20 + options.len() + 4;
        if self.stamps {
            options.extend([1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        let head = 20 + options.len();
        let len = head + payload;
        let (ip, tcp) = frame.bytes.split_at_mut(IP);
        tcp[..2].copy_from_slice(&self.port.to_be_bytes());
        tcp[2..4].copy_from_slice(&PORT.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.next.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acked.to_be_bytes());
        tcp[12] = (head as u8 / 4) << 4;
        tcp[13] = flags;
        tcp[14..16].copy_from_slice(&60_000u16.to_be_bytes());
        tcp[20..head].copy_from_slice(&options);
        if self.stamps {
            tcp[stamp_at - IP..][..4].copy_from_slice(&ms.to_be_bytes());
            tcp[stamp_at - IP + 4..][..4].copy_from_slice(&self.stamp.to_be_bytes());
        }
        tcp[head..len].fill(b'x');
        let sum = Sum::ZERO.pseudo_header(&self.address, &SERVER, 6, len as u32).bytes(&tcp[..len]);
        tcp[16..18].copy_from_slice(&sum.complement().to_be_bytes());
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IP + len) as u16).to_be_bytes());
        (ip[8], ip[9]) = (64, 6);
        ip[12..16].copy_from_slice(&self.address);
        ip[16..20].copy_from_slice(&SERVER);
        let sum = Sum::ZERO.bytes(ip).complement();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.len = IP + len;
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next = self.next.wrapping_add(payload as u32 + control);
        frame
    }

    /// Whether a TCP segment (its destination address in front) is for this client.
    pub fn is_for(&self, answer: &[u8]) -> bool {
        answer[..4] == self.address && answer[6..8] == self.port.to_be_bytes()
    }

    /// Takes the server's answer, a destination address and a TCP segment.
    pub fn take(&mut self, answer: &[u8]) {
        let bytes = &answer[4..];
        let head = usize::from(bytes[12] >> 4) * 4;
        let flags = bytes[13];
        let payload = bytes.len() - head;
        assert!(payload.is_multiple_of(MESSAGE) && bytes[head..].iter().all(|&b| b == b'x'), "no echo");
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.acked = word(bytes, 4).wrapping_add(payload as u32 + control);
        if self.stamps {
            self.stamp = word(bytes, if flags & SYN != 0 { 28 } else { 24 });
        }
        self.finished |= flags & FIN != 0;
    }
}
