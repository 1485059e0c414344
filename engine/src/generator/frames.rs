//! The generator over a frame port (AF_XDP, DPDK): one core, any number of queues, flows spread over them.

use super::link::{Link, monotonic_ns};
use super::session::Session;
use super::template::{Arrival, Templates};
use crate::frame::{BURST, Burst, flag};
use crate::net::standalone::{Outcome, Standalone};
use crate::port::Port;
use crate::time::Now;
use std::io;

/// Room in a full transmit ring worth a burst. The ring's indices lie in memory shared with the other end: each look at them
/// takes the line away from it, so few large bursts beat many small ones.
const WORTH: usize = BURST / 2;
/// Sends left out while the ring is full and no answer comes that would say that there is room again, before it is looked at anyhow:
/// a microsecond or two.
const LEFT_OUT: u32 = 32;

/// Sends and receives whole Ethernet frames.
pub struct FrameLink {
    port: Box<dyn Port>,
    templates: Templates,
    queues: Box<[u16]>,
    burst: Burst,
    /// Answers for the source addresses, where no kernel does, with what it has answered.
    host: Option<Box<Standalone>>,
    replies: Burst,
    /// Most packets the next send makes: a whole burst, or, once the transmit ring was full, about what has left it since.
    room: usize,
    /// Sends left out since the last.
    left_out: u32,
    broken: u64,
    foreign: u64,
}

impl FrameLink {
    /// A link over `port`. Flow `f` leaves on the port's queue `f mod queues`.
    pub fn new(port: Box<dyn Port>, templates: Templates) -> FrameLink {
        let queues = port.info().queues.clone().into();
        FrameLink {
            port,
            templates,
            queues,
            burst: Burst::new(),
            host: None,
            replies: Burst::new(),
            room: BURST,
            left_out: 0,
            broken: 0,
            foreign: 0,
        }
    }

    /// Has `host` answer what is no answer to a packet of ours: who asks where a source address is, and pings.
    #[cfg(any(test, feature = "dpdk"))]
    pub(crate) fn with_host(mut self, host: Standalone) -> FrameLink {
        self.host = Some(Box::new(host));
        self
    }

    /// Shows the host the frames of the burst whose bits are set.
    #[cold]
    fn attend(&mut self, mut strange: u64, ns: u64) {
        while let Some(n) = strange.checked_ilog2() {
            strange ^= 1 << n;
            let n = n as usize;
            let host = self.host.as_mut();
            match host.map(|host| host.handle(&mut self.burst[n..=n], Now { ns, unix_secs: 0 })) {
                // From the last to the first, so that those still to be shown stay where they are.
                Some(Outcome::Answered) => self.replies.push(self.burst.swap_remove(n)),
                Some(Outcome::Learned) => {}
                _ => self.foreign += 1,
            }
        }
        self.port.tx(&mut self.replies);
        self.port.free(&mut self.replies);
    }

    /// What the link saw that explains losses, for the reader.
    pub fn notes(&self) -> Vec<String> {
        let stats = self.port.stats();
        let counts = [
            (
                self.broken,
                "answers had a wrong length, MAC or checksum (a kernel peer on veth leaves checksums \
                 unfinished: `ethtool -K DEV tx off` there)",
            ),
            (self.foreign, "packets were no answers"),
            (stats.tx_dropped, "packets were dropped by our own driver on transmit"),
            (
                stats.rx_ring_full,
                "answers were dropped at our own receive ring: the generator could not keep up",
            ),
            (
                stats.fill_ring_empty,
                "answers found none of our own frames free: the generator could not keep up",
            ),
            (stats.rx_dropped, "answers were dropped by our own kernel"),
        ];
        let seen = counts.iter().filter(|(count, _)| *count > 0);
        seen.map(|(count, what)| format!("{count} {what}")).collect()
    }

    /// The port below.
    pub fn port(&self) -> &dyn Port {
        &*self.port
    }
}

impl Link for FrameLink {
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()> {
        if self.room < WORTH && self.left_out < LEFT_OUT {
            self.left_out += 1;
            return Ok(());
        }
        self.room = self.room.max(WORTH);
        self.left_out = 0;
        let first = session.next();
        let wanted = self.port.alloc(&mut self.burst, count.min(self.room));
        let now = monotonic_ns();
        let headers = self.templates.headers_len();
        for (n, frame) in (first..).zip(&mut self.burst) {
            let flow = session.plan().flow(n);
            if !frame.set_len(headers + session.plan().payload_len(n)) {
                self.port.free(&mut self.burst);
                return Err(io::Error::other(
                    "a packet does not fit a frame: choose shorter packets or longer frames",
                ));
            }
            frame.set_queue(self.queues[flow as usize % self.queues.len()]);
            frame.set_flags(0);
            let packet = frame.bytes_mut();
            session.encode(n, now, &mut packet[headers..]);
            self.templates.seal(flow, packet);
        }
        let sent = self.port.tx(&mut self.burst);
        session.sent(sent, now);
        self.room = if sent < wanted { 0 } else { BURST };
        // What the rings had no room for is built anew next time.
        self.port.free(&mut self.burst);
        self.port.flush();
        Ok(())
    }

    fn recv(&mut self, session: &mut Session) -> io::Result<usize> {
        let received = self.port.rx(&mut self.burst);
        if received > 0 {
            self.room = (self.room + received).min(BURST);
            let now = monotonic_ns();
            let mut chained = false;
            let mut strange = 0;
            for (n, frame) in self.burst.iter().enumerate() {
                // An answer is as long as what was sent, which fits one frame.
                let more = frame.has(flag::MORE);
                if chained || more {
                    chained = more;
                    self.foreign += u64::from(!more);
                    continue;
                }
                match self.templates.open(frame.bytes()) {
                    Arrival::Answer(flow, payload) => session.answer(flow, payload, now),
                    Arrival::Broken => {
                        self.broken += 1;
                        session.corrupted();
                    }
                    Arrival::Foreign => strange |= 1 << n,
                }
            }
            if strange != 0 {
                self.attend(strange, now);
            }
            self.port.free(&mut self.burst);
        }
        self.port.flush();
        match self.port.failure() {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::super::schedule::Rate;
    use super::super::session::SessionConfig;
    use super::super::template::Ends;
    use super::*;
    use crate::port::{MemoryConfig, MemoryPort, MemoryWire};

    fn link(ring: usize, frames: u32) -> (FrameLink, MemoryWire, Session) {
        let config = MemoryConfig { queues: 2, ring, frames, ..MemoryConfig::default() };
        let (port, wire) = MemoryPort::new(&config);
        let ends = Ends {
            target: "10.0.0.1:7777".parse().unwrap(),
            target_mac: [2, 0, 0, 0, 0, 1],
            sources: vec!["10.0.0.2".parse().unwrap()],
            source_mac: [2, 0, 0, 0, 0, 2],
            first_port: 20_000,
            flows: 4,
        };
        let plan = Plan::new(4, 1, 18..=200);
        let config = SessionConfig { plan, rate: Rate::Max, burst: 64, first: 0 };
        let link = FrameLink::new(Box::new(port), Templates::new(ends).unwrap());
        (link, wire, Session::new(config, monotonic_ns()))
    }

    /// Carries every packet back as an answer on the queue it left on.
    fn echo(wire: &mut MemoryWire) -> usize {
        let packets = wire.collect_all();
        for (queue, packet) in &packets {
            let mut answer = packet.clone();
            for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
                (0..len).for_each(|n| answer.swap(a + n, b + n));
            }
            wire.inject(*queue, &answer).unwrap();
        }
        packets.len()
    }

    #[test]
    fn every_packet_comes_back_verified() {
        let (mut link, mut wire, mut session) = link(256, 1024);
        for _ in 0..100 {
            link.send(&mut session, 64).unwrap();
            assert_eq!(echo(&mut wire), 64);
            while link.recv(&mut session).unwrap() > 0 {}
        }
        let counts = session.counts();
        assert_eq!((counts.sent, counts.received, counts.lost, counts.corrupted), (6400, 6400, 0, 0));
        assert_eq!(counts.reordered, 0);
        assert!(link.notes().is_empty(), "{:?}", link.notes());
    }

    #[test]
    fn full_rings_send_less_and_lose_nothing() {
        let (mut link, mut wire, mut session) = link(16, 1024);
        for _ in 0..10 {
            link.send(&mut session, 64).unwrap();
        }
        assert_eq!(session.counts().sent, 32, "two rings of 16, nobody collects");
        echo(&mut wire);
        while link.recv(&mut session).unwrap() > 0 {}
        assert_eq!(session.counts().received, 32);
        link.send(&mut session, 64).unwrap();
        assert!(session.counts().sent > 32);
    }

    #[test]
    fn an_answer_in_several_frames_is_none_of_ours_and_counted_once() {
        let config = MemoryConfig { max_segments: 3, ..MemoryConfig::default() };
        let (port, mut wire) = MemoryPort::new(&config);
        let (other, _, mut session) = link(256, 1024);
        let mut link = FrameLink::new(Box::new(port), other.templates);
        let segment = [0; 100];
        wire.inject_chain(0, &[&segment[..], &segment[..], &segment[..]]).unwrap();
        wire.inject(0, &segment).unwrap();
        while link.recv(&mut session).unwrap() > 0 {}
        assert_eq!(link.notes(), ["2 packets were no answers"]);
        assert_eq!(session.counts().corrupted, 0);
    }

    #[test]
    fn strangers_and_broken_answers_are_told_apart() {
        let (mut link, mut wire, mut session) = link(256, 1024);
        link.send(&mut session, 1).unwrap();
        let (queue, packet) = wire.collect_all().remove(0);
        wire.inject(queue, &packet).unwrap();
        let mut broken = packet;
        for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
            (0..len).for_each(|n| broken.swap(a + n, b + n));
        }
        broken[45] ^= 1;
        wire.inject(queue, &broken).unwrap();
        while link.recv(&mut session).unwrap() > 0 {}
        assert_eq!((session.counts().corrupted, session.counts().received), (1, 0));
        assert_eq!(link.notes().len(), 2, "{:?}", link.notes());
    }

    #[test]
    fn who_asks_for_a_source_address_is_answered_among_the_answers() {
        use crate::net::standalone::{LocalAddress, StandaloneConfig};
        use volley_wire::arp::{self, ArpPacket};
        use zerocopy::IntoBytes;
        let (link, mut wire, mut session) = link(256, 1024);
        let source = LocalAddress { address: "10.0.0.2".parse().unwrap(), prefix_len: 0, vlan: None };
        let mut config = StandaloneConfig { addresses: vec![source], ..StandaloneConfig::default() };
        let (ours, theirs) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        let mut link = link.with_host(Standalone::new(&mut config, ours));
        let ask = |target: [u8; 4]| {
            let asked = ArpPacket::new(arp::REQUEST, (theirs, [10, 0, 0, 1]), ([0; 6], target));
            [&[0xff; 6], &theirs[..], &[8, 6], asked.as_bytes(), &[0; 18]].concat()
        };
        link.send(&mut session, 40).unwrap();
        // Questions among the answers, more than one in a burst, one for an address that is not ours.
        wire.inject(0, &ask([10, 0, 0, 2])).unwrap();
        assert_eq!(echo(&mut wire), 40);
        wire.inject(1, &ask([10, 0, 0, 9])).unwrap();
        wire.inject(1, &ask([10, 0, 0, 2])).unwrap();
        while link.recv(&mut session).unwrap() > 0 {}
        assert_eq!((session.counts().received, session.counts().corrupted), (40, 0));
        let replies = wire.collect_all();
        assert_eq!(replies.len(), 2);
        let wanted = ArpPacket::new(arp::REPLY, (ours, [10, 0, 0, 2]), (theirs, [10, 0, 0, 1]));
        for (_, reply) in &replies {
            assert_eq!(reply[..14], [&theirs[..], &ours[..], &[8, 6]].concat());
            assert_eq!(&reply[14..14 + ArpPacket::LEN], wanted.as_bytes());
        }
        assert_eq!(link.notes(), ["1 packets were no answers"]);
        assert!(
            link.port().ledger().balances() && link.port().ledger().app == 0,
            "{}",
            link.port().ledger()
        );
    }
}
