//! Opens what carries the connections: a stack of our own over AF_XDP or DPDK, or kernel sockets.

use super::Load;
use super::carrier::{Carrier, Frames};
use crate::generator::af_xdp::{self, OpenError};
use crate::generator::approach::{Approach, Wanted};
use crate::net::neighbours::{self, Link, Neighbour, Reached, Route, Update};
use crate::net::standalone::StandaloneConfig;
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
#[cfg(feature = "dpdk")]
use std::sync::atomic::AtomicBool;
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
/// Bytes of an IP packet, at most: what the engine's own sends where the device carries such.
const MTU: usize = 9000;

/// A way to the server: who we are, and the next hop.
#[derive(Clone, Debug)]
pub struct Way {
    /// Addresses to connect from.
    pub sources: Vec<IpAddr>,
    /// The port's own MAC.
    pub mac: Mac,
    /// The next hop's.
    pub hop: Mac,
    /// Ports to connect from.
    pub ports: RangeInclusive<u16>,
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
        let frames = over_port(Box::new(port), &way, load, None)?;
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

/// A stack of our own over `port`, told of the one way it needs. Where no kernel stands behind the port, `host` answers for the
/// sources.
///
/// # Errors
/// With more sources than can be told at once, and without a source of entropy.
pub fn over_port(
    port: Box<dyn Port>,
    way: &Way,
    load: &Load,
    host: Option<StandaloneConfig>,
) -> io::Result<Frames> {
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
    let settings = NetConfig { links: Some(links), standalone: host, ..NetConfig::default() };
    let mut net = Net::new(port, settings);
    let mtu = net.largest_packet().min(MTU) as u16;
    let mut frames = Frames::new(net.with_streams(stack(way, load, mtu)?, None));
    // It hears a bounded number of news a turn, and a first SYN that finds no way would be sent again a second later.
    while known.updates.slots() < known.updates.buffer().capacity() {
        frames.receive(Clock::new().now())?;
    }
    Ok(frames)
}

/// The stack, for packets of at most `mtu` bytes.
fn stack(way: &Way, load: &Load, mtu: u16) -> io::Result<OwnStreams> {
    let mut entropy = [0; 64];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let slots = load.slots();
    let config = volley_tcp::Config {
        max_connections: slots,
        pool_bytes: POOL,
        max_segments_in_flight: slots.saturating_mul(4).max(131_072),
        max_time_wait: MOST_TIME_WAIT,
        time_wait: TIME_WAIT,
        mtu,
        ephemeral_ports: (*way.ports.start(), *way.ports.end()),
        connect_timeout: PATIENCE,
        ..volley_tcp::Config::default()
    };
    Ok(OwnStreams::new(&OwnConfig {
        listen: Vec::new(),
        stack: config,
        buffer: BUFFER,
        slow_reader_ns: PATIENCE.as_nanos() as u64,
        keep_alive_secs: PATIENCE.as_secs() as u32,
        entropy,
    }))
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
    /// What was not given, and was found.
    found: Option<String>,
}

#[cfg(feature = "dpdk")]
impl OverDpdk {
    /// Starts EAL and the one device of `options` and takes its first queue, for the calling thread. `mac` is the next hop's;
    /// without it, it is asked for. Sets the sources of `load` when it names none. Whoever asks on the link for one of them is
    /// answered.
    ///
    /// # Errors
    /// See [`crate::generator::dpdk::OpenError`]; nothing is left behind then.
    pub fn open(
        load: &mut Load,
        mac: Option<Mac>,
        ports: RangeInclusive<u16>,
        options: &crate::engine::config::Dpdk,
        stop: &AtomicBool,
    ) -> Result<OverDpdk, crate::generator::dpdk::OpenError> {
        use crate::generator::dpdk;
        let dpdk::Approach { port, dpdk, sources, hop, found } =
            dpdk::Approach::find(load.target, mac, &load.sources, options, stop)?;
        load.sources.clone_from(&sources);
        let own = dpdk.mac(0);
        let host = dpdk::host(&sources, own);
        let name = port.info().name.clone();
        let way = Way { sources, mac: own, hop, ports };
        let frames = over_port(Box::new(port), &way, load, Some(host))?;
        Ok(OverDpdk { frames, _dpdk: dpdk, name, found })
    }

    /// What it runs over, and what was found on the way, for the report.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.found.iter().chain([&self.name])
    }

    /// What carries the connections.
    pub fn carrier(&mut self) -> &mut Frames {
        &mut self.frames
    }
}
