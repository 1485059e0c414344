//! Opens the DPDK way to a target: a device of our own, on one queue, with no kernel behind it.

use super::frames::FrameLink;
use super::link::Link;
use super::resolve::{self, ResolveError};
use super::session::Session;
use super::template::{Ends, EndsError, Templates, headers_len};
use crate::engine::config::Dpdk as Options;
use crate::net::standalone::{LocalAddress, Standalone, StandaloneConfig};
use crate::port::Port;
use crate::port::dpdk::{Dpdk, DpdkError, DpdkPort};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use volley_wire::ethernet::{EthernetHeader, Mac};

/// What is known of the way. There is no kernel to ask for the rest.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the packets go.
    pub target: SocketAddr,
    /// The next hop's MAC; `None`: it is asked for.
    pub mac: Option<Mac>,
    /// Source addresses; none: the target's neighbour in number.
    pub sources: Vec<IpAddr>,
    /// The first source port.
    pub first_port: u16,
    /// Flows.
    pub flows: usize,
    /// Bytes of the longest payload.
    pub longest: usize,
}

/// Why the way cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The device.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// The stack above it.
    #[error("a TCP stack: {0}")]
    Stack(#[from] io::Error),
    /// Not exactly one device.
    #[error("--mode dpdk sends through one device, and {0} were named: give one --vdev or one --pci")]
    Devices(usize),
    /// A packet is longer than the device takes.
    #[error("{longest} bytes of payload do not fit the MTU {mtu} of {device}: the most is {most}")]
    TooLong {
        /// What was asked.
        longest: usize,
        /// The device.
        device: String,
        /// Its MTU.
        mtu: usize,
        /// What fits.
        most: usize,
    },
    /// Source addresses and ports.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// The next hop.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

/// The device, and the way to a target over it.
pub(super) struct Approach {
    // Dropped in this order: the port before the device it is a queue of.
    pub port: DpdkPort,
    pub dpdk: Dpdk,
    pub sources: Vec<IpAddr>,
    /// The next hop's MAC.
    pub hop: Mac,
    /// What was not given, and was found.
    pub found: Option<String>,
}

impl Approach {
    /// Starts EAL and the one device of `options`, takes its first queue, for the calling thread, and asks on the link for the next
    /// hop unless its `mac` is given.
    pub fn find(
        target: SocketAddr,
        mac: Option<Mac>,
        sources: &[IpAddr],
        options: &Options,
        stop: &AtomicBool,
    ) -> Result<Approach, OpenError> {
        let mut sources = sources.to_vec();
        if sources.is_empty() {
            sources.push(resolve::source_beside(target.ip())?);
        }
        let (dpdk, port) = device(options)?;
        if let Some(hop) = mac {
            return Ok(Approach { port, dpdk, sources, hop, found: None });
        }
        let router = options.gateways.iter().find(|router| router.is_ipv4() == target.is_ipv4());
        let address = router.copied().unwrap_or(target.ip());
        let hop = resolve::next_hop(Box::new(port), sources[0], address, dpdk.mac(0), stop)?;
        // Closed by whom it was lent to: the queue is taken anew.
        let port = dpdk.port(0, 0)?;
        let words = hop.map(|byte| format!("{byte:02x}")).join(":");
        let found = Some(format!("from {}; {address} is at {words}", sources[0]));
        Ok(Approach { port, dpdk, sources, hop, found })
    }
}

/// Frames over a DPDK device.
pub struct DpdkLink {
    // Dropped in this order: the port before the device it is a queue of.
    frames: FrameLink,
    _dpdk: Dpdk,
    name: String,
    /// What was not given, and was found.
    found: Option<String>,
}

impl DpdkLink {
    /// Starts EAL and the one device of `options` and takes its first queue, for the calling thread.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind then.
    pub fn open(wanted: &Wanted, options: &Options, stop: &AtomicBool) -> Result<DpdkLink, OpenError> {
        let Wanted { target, mac, longest, first_port, flows, .. } = *wanted;
        let Approach { port, dpdk, sources, hop, found } =
            Approach::find(target, mac, &wanted.sources, options, stop)?;
        let info = port.info().clone();
        let most = (info.mtu + EthernetHeader::LEN).saturating_sub(headers_len(target.is_ipv4()));
        if longest > most {
            return Err(OpenError::TooLong { longest, device: info.name, mtu: info.mtu, most });
        }
        let source_mac = dpdk.mac(0);
        let host = Standalone::new(&mut host(&sources, source_mac), source_mac);
        let templates =
            Templates::new(Ends { target, target_mac: hop, sources, source_mac, first_port, flows })?;
        Ok(DpdkLink {
            frames: FrameLink::new(Box::new(port), templates).with_host(host),
            _dpdk: dpdk,
            name: info.name,
            found,
        })
    }

    /// What it runs over, for the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`FrameLink::notes`].
    pub fn notes(&self) -> Vec<String> {
        self.found.iter().cloned().chain(self.frames.notes()).collect()
    }
}

/// Who answers for the source addresses while packets are generated: neighbours ask where they are, at the latest when what they heard
/// while the next hop was being asked for has become stale.
pub(super) fn host(sources: &[IpAddr], mac: Mac) -> StandaloneConfig {
    let on_link = |&address: &IpAddr| LocalAddress { address, prefix_len: 0, vlan: None };
    let addresses = sources.iter().map(on_link).collect();
    StandaloneConfig { addresses, mac: Some(mac), ..StandaloneConfig::default() }
}

/// Starts EAL and the one device of `options` and takes its first queue, for the calling thread.
fn device(options: &Options) -> Result<(Dpdk, DpdkPort), OpenError> {
    let devices = options.devices().count();
    if devices != 1 {
        return Err(OpenError::Devices(devices));
    }
    let dpdk = Dpdk::open(options, 1)?;
    let port = dpdk.port(0, 0)?;
    Ok((dpdk, port))
}

impl Link for DpdkLink {
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()> {
        self.frames.send(session, count)
    }

    fn recv(&mut self, session: &mut Session) -> io::Result<usize> {
        self.frames.recv(session)
    }
}
