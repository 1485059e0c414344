//! ICMP errors about our segments. They are easily forged, so each must quote a sequence number in flight (RFC 5927).

use crate::address::FlowKey;
use crate::connections::Connections;
use crate::counters::Drop;
use crate::events::CloseReason;
use crate::sender::record::r;
use crate::sequence::Seq;
use crate::state::State;
use crate::tcb::f;
use std::net::SocketAddr;

/// What an ICMP or ICMPv6 error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// IPv4 "fragmentation needed" (type 3, code 4) or IPv6 "packet too big" (type 2), with the next hop's MTU in bytes of an
    /// IP packet; zero when it does not say.
    TooBig(u16),
    /// Protocol or port unreachable, or administratively prohibited: hard, for a connection that is being opened.
    Unreachable,
    /// Network or host unreachable, time exceeded, parameter problem, and the like: soft (RFC 5461).
    Transient,
}

/// An ICMP error, with what its embedded packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpMessage {
    /// What it says.
    pub error: IcmpError,
    /// Source of the embedded packet: ours.
    pub local: SocketAddr,
    /// Destination of the embedded packet.
    pub remote: SocketAddr,
    /// Sequence number of the embedded segment (at least its first eight bytes are quoted).
    pub sequence: u32,
}

impl Connections {
    /// Takes an ICMP error. Returns whether it was believed.
    pub fn icmp(&mut self, message: &IcmpMessage) -> bool {
        let key = FlowKey::new(message.local, message.remote);
        let hash = self.secret.flow(&key);
        let found = self.find(hash, &key);
        let Some(slot) = found else {
            self.counters.drop(Drop::IcmpUnverified);
            return false;
        };
        let hot = &self.slab.hot[slot as usize];
        // RFC 5927, section 4.1: SND.UNA =< SEG.SEQ < SND.NXT.
        let seq = Seq(message.sequence);
        if !(hot.snd_una.le(seq) && seq.lt(hot.snd_nxt)) {
            self.counters.drop(Drop::IcmpUnverified);
            return false;
        }
        match message.error {
            IcmpError::TooBig(mtu) => self.too_big(slot, mtu),
            // RFC 5927, section 5.2, and RFC 5461: only a connection that is not yet synchronized is ended.
            IcmpError::Unreachable if hot.state == State::SynSent => {
                self.finish(slot, CloseReason::Unreachable);
                self.try_free(slot);
            }
            _ => {}
        }
        true
    }

    /// The path takes less (RFC 1191, RFC 8201).
    fn too_big(&mut self, slot: u32, mtu: u16) {
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        // RFC 8201, section 4: never below the IPv6 minimum; for IPv4, RFC 1191's plateau and the field's floor.
        let floor = if hot.key.is_v4() { 552 } else { 1280 };
        let mtu = if mtu == 0 { floor } else { mtu.max(floor) };
        if mtu >= cold.mtu {
            return;
        }
        cold.mtu = mtu;
        self.counters.mtu_reductions += 1;
        self.new_mss(slot);
        let hot = &mut self.slab.hot[slot as usize];
        let cold = &mut self.slab.cold[slot as usize];
        // What was too big is lost, but not for congestion: the window stays (RFC 1191, section 6.4).
        let mut at = hot.records.0;
        while at != crate::buffer::NIL {
            let record = *self.records.get(at);
            if record.len > hot.mss && !record.has(r::SACKED) {
                cold.rack.mark_lost(hot, &mut self.records, at);
            }
            at = record.next;
        }
        if hot.has(f::LOST) {
            self.want_output(slot);
        }
    }
}
