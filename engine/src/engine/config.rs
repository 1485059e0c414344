//! What an engine is told: from code, from a TOML file, from flags.

mod dpdk;
mod numbers;

pub use dpdk::{Dpdk, LinkAddress, Memory, Rss, Steering};
pub use numbers::{Numbers, Ports};

use crate::datagram::socket::Spread;
use crate::worker::IdlePolicy;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The game port when none is named.
pub const DEFAULT_PORT: u16 = 7777;

/// Everything an engine is told. The default serves UDP port 7777 on every address, with whatever the machine offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The interface to take traffic from. `None`: kernel sockets only.
    pub interface: Option<String>,
    /// UDP ports to serve: `7777` or `"7777-7780"`.
    pub ports: Ports,
    /// Addresses to serve; empty: all. At most four.
    pub addresses: Vec<IpAddr>,
    /// What carries the packets.
    pub io: Io,
    /// With [`Io::AfXdp`]: fail rather than fall back to kernel sockets.
    pub require_xdp: bool,
    /// Take the interface over from another XDP program.
    pub replace: bool,
    /// How the XDP program is attached.
    pub attach: Attach,
    /// Whether the device's DMA goes straight to our memory.
    pub zero_copy: ZeroCopy,
    /// Receive queues to serve: `"0-3,6"`; `None`: all there are.
    pub queues: Option<Numbers>,
    /// Workers; `None`: one for each queue, but no more than cores.
    pub workers: Option<u16>,
    /// Cores to pin workers to, in the order of the workers; empty: the highest allowed ones.
    pub cores: Numbers,
    /// Pin workers to cores.
    pub pin: bool,
    /// What an idle worker does; `None`: sleep below four cores, else spin.
    pub idle: Option<IdlePolicy>,
    /// What happens to a worker that panics.
    pub on_panic: OnPanic,
    /// What becomes of a steered packet on a queue that no worker serves.
    pub unbound: Unbound,
    /// Ticks a second ([`crate::app::App::on_tick`]); 0: none.
    pub tick_hz: u32,
    /// Time to drain when stopping, in milliseconds.
    pub drain_ms: u64,
    /// Seed of the workers' random generators; `None`: from the system.
    pub seed: Option<u64>,
    /// AF_XDP memory and rings.
    pub af_xdp: Rings,
    /// Kernel sockets.
    pub sockets: Sockets,
    /// DPDK.
    pub dpdk: Dpdk,
    /// TCP beside the UDP; `None`: none.
    pub tcp: Option<Tcp>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interface: None,
            ports: Ports(DEFAULT_PORT..=DEFAULT_PORT),
            addresses: Vec::new(),
            io: Io::default(),
            require_xdp: false,
            replace: false,
            attach: Attach::default(),
            zero_copy: ZeroCopy::default(),
            queues: None,
            workers: None,
            cores: Numbers::default(),
            pin: true,
            idle: None,
            on_panic: OnPanic::default(),
            unbound: Unbound::default(),
            tick_hz: 0,
            drain_ms: 500,
            seed: None,
            af_xdp: Rings::default(),
            sockets: Sockets::default(),
            dpdk: Dpdk::default(),
            tcp: None,
        }
    }
}

/// TCP: streams for the app ([`crate::app::App::on_stream`]) on the same addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tcp {
    /// TCP ports to serve: `7777` or `"7777-7780"`.
    pub ports: Ports,
    /// Whose TCP it is.
    pub io: TcpIo,
    /// Connections of each worker at once; `None`: 16,384, or what the descriptor limit leaves room for.
    pub connections: Option<u32>,
    /// Ports that connections opened by the app leave from, with our own TCP: steered and reserved as well. `None`: the app
    /// opens none.
    pub local_ports: Option<Ports>,
    /// SYNs that each CPU lets through in a second to our own TCP, and that its stack answers with cookies once its table of
    /// half-open connections is full; what is beyond is dropped in XDP and counted. 0: no limit.
    pub syn_rate: u32,
    /// How long a peer may take nothing while bytes wait for it, in milliseconds, before it is disconnected.
    pub slow_reader_ms: u64,
    /// Seconds without a sign of a peer before it is asked whether it is there.
    pub keep_alive_secs: u32,
}

/// SYNs a second by default: half as much again as a flood of 100,000 a second, during which new clients shall still come in, and a
/// fraction of what a worker receives. Much less turns clients away with the flood; without a limit the worker does nothing but
/// answer SYNs.
const SYN_RATE: u32 = 150_000;

impl Default for Tcp {
    fn default() -> Self {
        Tcp {
            ports: Ports(DEFAULT_PORT..=DEFAULT_PORT),
            io: TcpIo::default(),
            connections: None,
            local_ports: None,
            syn_rate: SYN_RATE,
            slow_reader_ms: 30_000,
            keep_alive_secs: 60,
        }
    }
}

/// Whose TCP it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TcpIo {
    /// Our own over AF_XDP or DPDK, where these carry the UDP; else the kernel's, over io_uring where that carries the UDP, else epoll.
    #[default]
    Auto,
    /// Our own, over the frames of AF_XDP or DPDK.
    Own,
    /// The kernel's, over epoll.
    Epoll,
    /// The kernel's, over io_uring.
    IoUring,
}

impl TcpIo {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            TcpIo::Auto => "auto",
            TcpIo::Own => "own",
            TcpIo::Epoll => "epoll",
            TcpIo::IoUring => "io-uring",
        }
    }
}

/// What carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Io {
    /// AF_XDP, with kernel sockets for what reaches the kernel all the same.
    #[default]
    AfXdp,
    /// Kernel sockets: select, recvfrom and sendto; descriptors below 1,024.
    Select,
    /// Kernel sockets: poll, recvfrom and sendto.
    Poll,
    /// Kernel sockets: epoll, recvfrom and sendto, one datagram a call.
    Epoll,
    /// Kernel sockets: edge-triggered epoll, recvfrom and sendto.
    EpollEt,
    /// Kernel sockets: epoll, recvmmsg and sendmmsg.
    Mmsg,
    /// Kernel sockets: epoll, recvmmsg and sendmmsg, UDP GRO and GSO.
    Gso,
    /// Kernel sockets: io_uring.
    IoUring,
    /// Kernel sockets: mio (epoll, kqueue or IOCP), recvfrom and sendto.
    Mio,
    /// DPDK: the devices of [`Config::dpdk`], polled, with no kernel behind them. Needs the cargo feature `dpdk`.
    Dpdk,
}

impl Io {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Io::AfXdp => "af-xdp",
            Io::Select => "select",
            Io::Poll => "poll",
            Io::Epoll => "epoll",
            Io::EpollEt => "epoll-et",
            Io::Mmsg => "mmsg",
            Io::Gso => "gso",
            Io::IoUring => "io-uring",
            Io::Mio => "mio",
            Io::Dpdk => "dpdk",
        }
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// In the driver if it can, else generic, with a warning.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack: slow, works with every driver.
    Generic,
}

/// Whether the device's DMA goes straight to our memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroCopy {
    /// When the device says it can.
    #[default]
    Auto,
    /// Or fail.
    Require,
    /// Let the kernel copy.
    Never,
}

/// Who finishes the checksums of what is sent over AF_XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TxChecksum {
    /// The device when it says it can, else the engine.
    #[default]
    Auto,
    /// The kernel, in copy mode: slow, for tests.
    Kernel,
    /// The engine.
    Never,
}

/// What becomes of a steered packet on a queue that no worker serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unbound {
    /// The kernel gets it, and the engine answers it through its kernel socket.
    #[default]
    Pass,
    /// It is dropped.
    Drop,
}

/// What happens to a worker that panics. Its queues are the kernel's at once either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnPanic {
    /// It stays down; the command drains the others and exits with a failure.
    #[default]
    Exit,
    /// It is started anew, with a fresh app; at most eight times.
    Restart,
}

/// Memory and rings of each worker's AF_XDP port. `None`: the port's own default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rings {
    /// Frames of a worker's UMEM.
    pub frames: Option<u32>,
    /// Bytes of a frame: 2048 or 4096.
    pub chunk: Option<u32>,
    /// Bytes kept free before a received packet, beyond the kernel's 256.
    pub headroom: Option<u32>,
    /// Entries of the receive ring.
    pub rx_ring: Option<u32>,
    /// Entries of the transmit ring.
    pub tx_ring: Option<u32>,
    /// Entries of the fill ring.
    pub fill_ring: Option<u32>,
    /// Entries of the completion ring.
    pub completion_ring: Option<u32>,
    /// Poll the device from our own system calls, this many µs at a time.
    pub busy_poll_us: Option<u32>,
    /// Frames one wake-up may transmit in copy mode.
    pub tx_budget: Option<u32>,
    /// Take 2 MiB huge pages when there are any.
    pub huge_pages: Option<bool>,
    /// Who finishes checksums.
    pub tx_checksum: TxChecksum,
}

/// Kernel sockets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sockets {
    /// UDP GRO and GSO: many datagrams in one kernel buffer. What `io = "gso"` says as well.
    pub offload: bool,
    /// Bytes of the kernel's receive buffer.
    pub receive_buffer: Option<u32>,
    /// Several processes of one user serve the ports together (SO_REUSEPORT). Without it a taken port is an error.
    pub share: bool,
    /// How datagrams are spread over several workers.
    pub spread: Spread,
    /// io_uring: a kernel thread looks for work.
    pub sqpoll: bool,
    /// io_uring: answers of at least this many bytes leave without a copy; `None`: none do.
    pub zero_copy_from: Option<u32>,
}

impl Config {
    /// Whether TCP is our own, over the frames of AF_XDP or DPDK.
    pub fn tcp_is_own(&self) -> bool {
        let io = self.tcp.as_ref().map(|tcp| tcp.io);
        matches!(self.io, Io::AfXdp | Io::Dpdk) && matches!(io, Some(TcpIo::Auto | TcpIo::Own))
    }

    /// Whether TCP is the kernel's over io_uring.
    pub fn tcp_is_uring(&self) -> bool {
        match self.tcp.as_ref().map(|tcp| tcp.io) {
            Some(TcpIo::IoUring) => true,
            Some(TcpIo::Auto) => self.io == Io::IoUring,
            _ => false,
        }
    }

    /// A configuration from a TOML file's text.
    ///
    /// # Errors
    /// With line and column of what is wrong.
    pub fn from_toml(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    /// Time to drain when stopping.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// The addresses to bind kernel sockets to: those named, or both unspecified ones.
    pub fn bind_addresses(&self) -> Vec<IpAddr> {
        match self.addresses.is_empty() {
            true => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            false => self.addresses.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_flags_can_say() {
        let config = Config::from_toml(
            r#"
            interface = "eth1"
            ports = 9000
            addresses = ["10.0.0.1", "fd00::1"]
            queues = "0-3"
            workers = 2
            cores = "2,3"
            idle = "spin"
            on-panic = "restart"
            zero-copy = "require"
            [af-xdp]
            frames = 8192
            chunk = 4096
            [sockets]
            offload = true
            [tcp]
            ports = "8000-8001"
            connections = 100
            "#,
        )
        .unwrap();
        assert_eq!(config.interface.as_deref(), Some("eth1"));
        assert_eq!(config.ports, Ports(9000..=9000));
        assert_eq!(config.queues, Some(Numbers(vec![0, 1, 2, 3])));
        assert_eq!((config.idle, config.on_panic), (Some(IdlePolicy::Spin), OnPanic::Restart));
        assert_eq!((config.af_xdp.frames, config.af_xdp.chunk), (Some(8192), Some(4096)));
        assert!(config.sockets.offload && !config.require_xdp);
        let tcp = config.tcp.unwrap();
        assert_eq!(
            (tcp.ports, tcp.connections, tcp.slow_reader_ms),
            (Ports(8000..=8001), Some(100), 30_000)
        );
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let error = Config::from_toml("quues = \"0-3\"").unwrap_err().to_string();
        assert!(error.contains("quues") && error.contains("queues"), "{error}");
    }

    #[test]
    fn every_default_survives_a_round_trip() {
        let text = toml::to_string(&Config::default()).unwrap();
        let back = Config::from_toml(&text).unwrap();
        assert_eq!(toml::to_string(&back).unwrap(), text);
    }
}
