//! The stack and everything around it: time, flows, what it has sent, what it has told.

use crate::flow::Flow;
use crate::segment::{Data, Segment};
use crate::wire;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use volley_tcp::{
    Config, ConnectionId, Egress, EventKind, Instant, ListenerId, SegmentIn, SegmentOut, Stack,
};

/// Not zero, so that nothing depends on it.
const START: Instant = Instant::from_millis(10_000_000);

/// What the stack sends goes into a list.
#[derive(Default)]
struct Outbox {
    sent: Vec<(SegmentOut, Vec<u8>)>,
    room: Option<usize>,
}

impl Egress for Outbox {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        if self.room.is_some_and(|room| self.sent.len() >= room) {
            return None;
        }
        self.sent.push((*segment, vec![0; segment.len]));
        self.sent.last_mut().map(|(_, bytes)| &mut bytes[..])
    }
    fn commit(&mut self, _segment: &SegmentOut) {}
}

/// A segment that the stack has sent and no step has expected yet.
pub(crate) struct Sent {
    pub at: Instant,
    pub flow: String,
    pub segment: Segment,
    pub payload: Vec<u8>,
}

pub(crate) struct World {
    pub stack: Stack,
    pub now: Instant,
    pub flows: BTreeMap<String, Flow>,
    /// The flow that the script is about.
    pub flow: String,
    pub listener: Option<ListenerId>,
    pub connections: BTreeMap<String, (ConnectionId, String)>,
    pub events: BTreeMap<ConnectionId, VecDeque<EventKind>>,
    pub sent: VecDeque<Sent>,
    pub room: Option<usize>,
    pub trace: String,
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        let flow = Flow::new(address("192.0.2.1:80"), address("192.0.2.2:5000"), 1000);
        World {
            stack: Stack::new(config, &[5; 64], START),
            now: START,
            flows: BTreeMap::from([("main".to_owned(), flow)]),
            flow: "main".to_owned(),
            listener: None,
            connections: BTreeMap::new(),
            events: BTreeMap::new(),
            sent: VecDeque::new(),
            room: None,
            trace: String::new(),
        }
    }

    /// Milliseconds since the script began.
    pub(crate) fn ms(&self) -> i64 {
        self.now.since(START).as_millis() as i64
    }

    pub(crate) fn flow(&mut self) -> &mut Flow {
        self.flows.get_mut(&self.flow).expect("the script's flow is always one of them")
    }

    pub(crate) fn note(&mut self, line: &str) {
        let ms = self.now.since(START).as_nanos() as f64 / 1e6;
        let _ = writeln!(self.trace, "    {ms:>10.3}  {line}");
    }

    /// The peer sends a burst.
    pub(crate) fn inject(&mut self, segments: &[Segment]) {
        let flow = self.flows[&self.flow].clone();
        let bytes: Vec<Vec<u8>> = segments.iter().map(|s| wire::encode(s, &flow)).collect();
        for segment in segments {
            self.note(&format!("< {segment}"));
        }
        let frames: Vec<SegmentIn<'_>> = segments
            .iter()
            .zip(&bytes)
            .map(|(segment, bytes)| SegmentIn {
                source: flow.remote.ip(),
                destination: flow.local.ip(),
                ecn: segment.ecn.unwrap_or(0),
                checksum: Default::default(),
                path: segment.path.unwrap_or(0),
                bytes,
            })
            .collect();
        drop(self.stack.receive_burst(self.now, &frames));
    }

    /// Takes what the stack has to say: segments and events. An error is about a segment that no stack should send.
    pub(crate) fn collect(&mut self) -> Result<(), String> {
        while let Some(event) = self.stack.next_event() {
            self.events.entry(event.connection).or_default().push_back(event.kind);
        }
        let mut out = Outbox { sent: Vec::new(), room: self.room };
        while self.stack.transmit(self.now, &mut out) > 0 {}
        if let Some(room) = &mut self.room {
            *room -= out.sent.len();
        }
        let ms = self.ms();
        for (meta, bytes) in out.sent {
            let ports =
                (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]));
            let ends = (SocketAddr::new(meta.source, ports.0), SocketAddr::new(meta.destination, ports.1));
            let found = self.flows.iter_mut().find(|(_, flow)| (flow.local, flow.remote) == ends);
            let Some((name, flow)) = found else {
                return Err(format!("a segment from {} to {}: of no flow of the script", ends.0, ends.1));
            };
            let name = name.clone();
            let segment = wire::decode(&meta, &bytes, flow, ms).map_err(|what| format!("sent: {what}"))?;
            let head = usize::from(bytes[12] >> 4) * 4;
            let of = if name == self.flow { String::new() } else { format!("   (flow {name})") };
            self.note(&format!("> {}{of}", brief(&segment)));
            self.sent.push_back(Sent {
                at: self.now,
                flow: name,
                segment,
                payload: bytes[head..].to_vec(),
            });
        }
        Ok(())
    }

    /// Lets time pass, up to `until`, or until the stack sends something, if `stop` says so.
    pub(crate) fn advance(&mut self, until: Instant, stop: bool) -> Result<(), String> {
        loop {
            if stop && !self.sent.is_empty() {
                return Ok(());
            }
            let next = self.stack.next_deadline().filter(|&at| at <= until).unwrap_or(until);
            // A deadline may be early, so that nothing fires; time must go on all the same.
            self.now = self.now.max(next);
            self.stack.timers(self.now);
            self.collect()?;
            if self.now >= until && self.stack.next_deadline().is_none_or(|at| at > until) {
                return Ok(());
            }
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.advance(self.now + time, false)
    }

    pub(crate) fn connection(&self, name: &str) -> Result<ConnectionId, String> {
        self.connections
            .get(name)
            .map(|c| c.0)
            .ok_or_else(|| format!("the script has no connection '{name}'"))
    }

    /// The flow of a connection.
    pub(crate) fn flow_of(&mut self, name: &str) -> &mut Flow {
        let flow = self.connections.get(name).map_or(&self.flow, |c| &c.1).clone();
        self.flows.get_mut(&flow).expect("connections have flows of the script")
    }

    /// Reads exactly these bytes.
    pub(crate) fn read(&mut self, name: &str, data: &Data) -> Result<(), String> {
        let id = self.connection(name)?;
        let wanted = self.flow_of(name).to_read(data);
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let bytes = self.stack.peek(id).map_err(|e| e.to_string())?;
            let n = bytes.len().min(wanted.len() - got.len());
            if n == 0 {
                return Err(format!("only {} of {} bytes can be read", got.len(), wanted.len()));
            }
            got.extend_from_slice(&bytes[..n]);
            self.stack.read(id, n).map_err(|e| e.to_string())?;
        }
        self.flow_of(name).read += got.len();
        match got.iter().zip(&wanted).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(at) => {
                Err(format!("byte {at} of what was read is {:#04x}, not {:#04x}", got[at], wanted[at]))
            }
        }
    }
}

/// Without what a script seldom says.
pub(crate) fn brief(segment: &Segment) -> Segment {
    Segment { ecn: segment.ecn.filter(|&e| e != 0), ttl: None, tos: None, ..segment.clone() }
}
