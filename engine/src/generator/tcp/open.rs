//! Opens what carries the connections: a stack of our own over AF_XDP or DPDK, or kernel sockets.

use super::Load;
use super::carrier::{Carrier, Frames};
use crate::generator::af_xdp::{self, OpenError};
use crate::generator::approach::{Approach, Wanted};
use crate::net::neighbours::{self, Link, Neighbour, Reached, Route, Update};
use crate::net::{Net, NetConfig, Tag, mapped};
use crate::port::Port;
use crate::stream::kernel::StreamOpenError;
use crate::stream::own::{OwnConfig, OwnStreams};
use crate::stream::{EpollStreams, StreamConfig};
use crate::worker::Waker;
use crate::worker::clock::Clock;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use volley_wire::ethernet::Mac;
use volley_xdp::{Protocol, Steering};

/// Bytes unread, and bytes unacknowledged, of each connection: what the engine gives its own, so that no end is the narrower one.
const BUFFER: u32 = 256 << 10;
/// Bytes for data of all connections together; address space, touched as needed.
const POOL: usize = 256 << 20;
/// How long the client's end remembers a connection that it closed. The default of 60 s is for networks where segments wander;
/// at 50,000 connects a second it would hold three million ports.
const TIME_WAIT: Duration = Duration::from_secs(1);
/// Of those, at most.
const MOST_TIME_WAIT: u32 = 200_000;
/// A closed loop may wait as long as a server under test takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an IP packet, at most: what a frame of 2 KiB has room for.
const MTU: usize = 1500;

/// A way to the server: who we are, and the next hop.
pub(in crate::generator) struct Way {
    pub(in crate::generator) sources: Vec<IpAddr>,
    pub(in crate::generator) mac: Mac,
    pub(in crate::generator) hop: Mac,
    pub(in crate::generator) ports: RangeInclusive<u16>,
}

/// Our own stack over AF_XDP, and the program that brings the answers.
pub struct OverAfXdp {
    // Dropped in this order: the rule goes before the sockets it redirects to.
    _steering: Steering,
    frames: Frames,
    name: String,
}

impl OverAfXdp {
    /// Opens sockets on `queues` (`None`: all of the interface's) and claims `ports`, from which the connections leave. Sets
    /// the sources of `load` when it names none.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind then.
    pub fn open(
        load: &mut Load,
        wanted: &Wanted,
        ports: RangeInclusive<u16>,
        queues: Option<Vec<u16>>,
        replace: bool,
    ) -> Result<OverAfXdp, OpenError> {
        let Approach { link, ends } = Approach::find(wanted)?;
        load.sources.clone_from(&ends.sources);
        let config = af_xdp::sockets_on(&link, queues);
        let (port, steering) =
            af_xdp::steered(&config, &ends.sources, (Protocol::Tcp, ports.clone()), replace)?;
        let name = port.info().name.clone();
        let way = Way { sources: ends.sources, mac: ends.source_mac, hop: ends.target_mac, ports };
        let frames = over(Box::new(port), &way, load)?;
        Ok(OverAfXdp { _steering: steering, frames, name })
    }

    /// What it runs over, for the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What carries the connections.
    pub fn carrier(&mut self) -> &mut Frames {
        &mut self.frames
    }
}

/// A stack of our own over `port`, told of the one way it needs.
pub(in crate::generator) fn over(port: Box<dyn Port>, way: &Way, load: &Load) -> io::Result<Frames> {
    let mut entropy = [0; 64];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let slots = load.slots();
    let stack = volley_tcp::Config {
        max_connections: slots,
        pool_bytes: POOL,
        max_segments_in_flight: slots.saturating_mul(4).max(131_072),
        max_time_wait: MOST_TIME_WAIT,
        time_wait: TIME_WAIT,
        mtu: port.info().mtu.min(MTU) as u16,
        ephemeral_ports: (*way.ports.start(), *way.ports.end()),
        connect_timeout: PATIENCE,
        ..volley_tcp::Config::default()
    };
    let streams = OwnStreams::new(&OwnConfig {
        listen: Vec::new(),
        stack,
        buffer: BUFFER,
        slow_reader_ns: PATIENCE.as_nanos() as u64,
        keep_alive_secs: PATIENCE.as_secs() as u32,
        entropy,
    });
    let (links, mut known) = neighbours::subscription(Arc::new(Waker::new(|| ())));
    let target = mapped(load.target.ip());
    let neighbour = Neighbour { tag: Tag::default(), address: target };
    let route = Route {
        prefix: target,
        prefix_len: 128,
        metric: 0,
        gateway: None,
        source: way.sources.first().map(|source| mapped(*source)),
        tag: Tag::default(),
    };
    let mtu = port.info().mtu as u32;
    let updates = [
        Update::Link(Link::Present { up: true, mac: way.mac, mtu }),
        Update::Route(route, true),
        Update::Neighbour(neighbour, Some(Reached { mac: way.hop, stale: false })),
    ];
    let addresses = way.sources.iter().map(|source| Update::Address(mapped(*source), true));
    for update in updates.into_iter().chain(addresses).chain([Update::Complete]) {
        known.updates.push(update).map_err(|_| io::Error::other("more source addresses than 1,000"))?;
    }
    let net = Net::new(port, NetConfig { links: Some(links), ..NetConfig::default() });
    let mut frames = Frames::new(net.with_streams(streams, None));
    // It hears a bounded number of news a turn, and a first SYN that finds no way would be sent again a second later.
    while known.updates.slots() < known.updates.buffer().capacity() {
        frames.receive(Clock::new().now())?;
    }
    Ok(frames)
}

/// Kernel sockets.
///
/// # Errors
/// When descriptors are short.
pub fn over_sockets(load: &Load) -> Result<EpollStreams, StreamOpenError> {
    let config = StreamConfig {
        connections: Some(load.slots()),
        slow_reader_ns: PATIENCE.as_nanos() as u64,
        ..StreamConfig::default()
    };
    EpollStreams::for_connects(&config)
}

/// Our own stack over a DPDK device.
#[cfg(feature = "dpdk")]
pub struct OverDpdk {
    // Dropped in this order: the port before the device it is a queue of.
    frames: Frames,
    _dpdk: crate::port::dpdk::Dpdk,
    name: String,
}

#[cfg(feature = "dpdk")]
impl OverDpdk {
    /// Starts EAL and the one device of `options` and takes its first queue, for the calling thread. The server is the next hop,
    /// at `mac`.
    ///
    /// # Errors
    /// See [`crate::generator::dpdk::OpenError`]; nothing is left behind then.
    pub fn open(
        load: &Load,
        mac: Mac,
        ports: RangeInclusive<u16>,
        options: &crate::engine::config::Dpdk,
    ) -> Result<OverDpdk, crate::generator::dpdk::OpenError> {
        let (dpdk, port) = crate::generator::dpdk::device(options)?;
        let info = port.info().clone();
        let own = info.mac.unwrap_or_default();
        let way = Way { sources: load.sources.clone(), mac: own, hop: mac, ports };
        let frames = over(Box::new(port), &way, load)?;
        Ok(OverDpdk { frames, _dpdk: dpdk, name: info.name })
    }

    /// What it runs over, for the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What carries the connections.
    pub fn carrier(&mut self) -> &mut Frames {
        &mut self.frames
    }
}
