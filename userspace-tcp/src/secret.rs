//! Everything that must not be guessed is a keyed hash (SipHash) of what it protects; the keys are the caller's entropy.

use crate::address::{self, Address, FlowKey};
use siphasher::sip::{SipHasher13, SipHasher24};
use std::hash::Hasher;

/// Four independent keys, from 64 bytes of entropy.
#[derive(Clone)]
pub(crate) struct Secret {
    flow: SipHasher13,
    sequence: SipHasher24,
    timestamp: SipHasher24,
    cookie: SipHasher24,
}

impl Secret {
    pub(crate) fn new(entropy: &[u8; 64]) -> Secret {
        let key = |i: usize| <&[u8; 16]>::try_from(&entropy[i * 16..i * 16 + 16]).expect("16 bytes");
        Secret {
            flow: SipHasher13::new_with_key(key(0)),
            sequence: SipHasher24::new_with_key(key(1)),
            timestamp: SipHasher24::new_with_key(key(2)),
            cookie: SipHasher24::new_with_key(key(3)),
        }
    }

    /// Where a flow stands in the demultiplexer and in TIME-WAIT.
    #[inline]
    pub(crate) fn flow(&self, key: &FlowKey) -> u64 {
        let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
        if key.is_v4() {
            let mut bytes = [0u8; 12];
            bytes[..4].copy_from_slice(&key.local[3].to_ne_bytes());
            bytes[4..8].copy_from_slice(&key.remote[3].to_ne_bytes());
            bytes[8..].copy_from_slice(&ports.to_ne_bytes());
            self.flow.hash(&bytes)
        } else {
            let mut bytes = [0u8; 36];
            bytes[..16].copy_from_slice(address::bytes(&key.local));
            bytes[16..32].copy_from_slice(address::bytes(&key.remote));
            bytes[32..].copy_from_slice(&ports.to_ne_bytes());
            self.flow.hash(&bytes)
        }
    }

    /// F of RFC 6528, section 3: ISN = M + F(localip, localport, remoteip, remoteport, secretkey).
    pub(crate) fn sequence(&self, key: &FlowKey) -> u32 {
        let mut hasher = self.sequence;
        feed(&mut hasher, key);
        hasher.finish() as u32
    }

    /// What to add to the timestamp clock for this pair of addresses (RFC 7323, section 5.4): one clock per pair, so that
    /// TSval grows across its connections, which RFC 6191 needs, and tells nothing to others.
    pub(crate) fn timestamp(&self, local: &Address, remote: &Address) -> u32 {
        let mut hasher = self.timestamp;
        hasher.write(address::bytes(local));
        hasher.write(address::bytes(remote));
        hasher.finish() as u32
    }

    /// The authenticator of a SYN cookie.
    pub(crate) fn cookie(&self, key: &FlowKey, irs: u32, count: u32, index: u32) -> u32 {
        let mut hasher = self.cookie;
        feed(&mut hasher, key);
        hasher.write_u32(irs);
        hasher.write_u32(count);
        hasher.write_u32(index);
        hasher.finish() as u32
    }

    /// A hash of a destination for choosing a local port (RFC 6056, section 3.3.3).
    pub(crate) fn port(&self, local: &Address, remote: &Address, remote_port: u16) -> u32 {
        let mut hasher = self.sequence;
        hasher.write(b"port");
        hasher.write(address::bytes(local));
        hasher.write(address::bytes(remote));
        hasher.write_u16(remote_port);
        hasher.finish() as u32
    }
}

fn feed(hasher: &mut SipHasher24, key: &FlowKey) {
    hasher.write(address::bytes(&key.local));
    hasher.write(address::bytes(&key.remote));
    hasher.write_u16(key.local_port);
    hasher.write_u16(key.remote_port);
}
