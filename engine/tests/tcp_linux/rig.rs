//! An engine and its kernel clients on a lab, and what all tests check at the end.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use volley::app::App;
use volley::engine::config::{Ports, Tcp, TcpIo};
use volley::engine::{Config, Engine, Report};
use volley::stream::StreamStats;
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, LabOptions, Netns};

/// Longest wait for anything that must happen: a loaded machine, and timeouts that double.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PORT: u16 = 7777;
pub const V4: SocketAddr = SocketAddr::new(IpAddr::V4(ENGINE_IPV4), PORT);
pub const V6: SocketAddr = SocketAddr::new(IpAddr::V6(ENGINE_IPV6), PORT);

pub struct Rig {
    pub lab: Lab,
    engine: Option<Engine>,
}

impl Rig {
    /// An engine with our own TCP on one end of a lab.
    pub fn start<A: App<Msg = ()>>(app: impl Fn() -> A + Send + Sync + 'static) -> Rig {
        Rig::with(LabOptions::default(), |_| {}, app)
    }

    pub fn with<A: App<Msg = ()>>(
        lab: LabOptions,
        change: impl FnOnce(&mut Tcp),
        app: impl Fn() -> A + Send + Sync + 'static,
    ) -> Rig {
        Rig::on(Lab::with(lab), change, app)
    }

    /// On a lab that was made ready before.
    pub fn on<A: App<Msg = ()>>(
        lab: Lab,
        change: impl FnOnce(&mut Tcp),
        app: impl Fn() -> A + Send + Sync + 'static,
    ) -> Rig {
        let mut tcp = Tcp { ports: Ports(PORT..=PORT), io: TcpIo::Own, ..Tcp::default() };
        change(&mut tcp);
        let config = Config {
            interface: Some(lab.engine_if().into()),
            require_xdp: true,
            pin: false,
            tcp: Some(tcp),
            ..Config::default()
        };
        let engine = lab.engine().run(move || Engine::start(config, move |_| app()).unwrap());
        Rig { lab, engine: Some(engine) }
    }

    /// A kernel client at the other end.
    pub fn connect(&self, address: SocketAddr) -> TcpStream {
        connect(&self.lab, address)
    }

    pub fn report(&self) -> Report {
        self.engine.as_ref().unwrap().report().unwrap()
    }

    /// Waits until the counters say so.
    #[track_caller]
    pub fn wait(&self, what: &str, until: impl Fn(&StreamStats) -> bool) -> StreamStats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if until(&report.total.streams) {
                return report.total.streams;
            }
            assert!(Instant::now() < deadline, "not seen: {what}\n{report}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the last connection to end by itself, then stops: nothing is stuck, nothing has leaked.
    #[track_caller]
    pub fn stop(mut self) -> Report {
        self.wait("the last connection ends and the pool is empty", |s| s.open == 0 && s.pool_bytes == 0);
        let report = self.engine.take().unwrap().stop().unwrap();
        assert!(report.total.ledger_balances && report.total.ledger.app == 0, "{report}");
        assert_eq!(report.total.streams.bad_checksum, 0, "{report}");
        report
    }
}

/// A kernel client of that lab.
pub fn connect(lab: &Lab, address: SocketAddr) -> TcpStream {
    connect_from(lab.peer(), address)
}

/// A kernel client in that namespace.
pub fn connect_from(netns: &Netns, address: SocketAddr) -> TcpStream {
    let stream = netns.run(|| TcpStream::connect_timeout(&address, PATIENCE));
    let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
    patient(&stream);
    stream
}

pub fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// Bytes of which every stretch is different, also from those of another seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Says where two byte strings part, rather than print millions of bytes.
#[track_caller]
pub fn assert_same(got: &[u8], sent: &[u8], whose: &str) {
    if got != sent {
        let at = got.iter().zip(sent).position(|(a, b)| a != b).unwrap_or(got.len().min(sent.len()));
        panic!("{whose}: {} of {} bytes, and they part at {at}", got.len(), sent.len());
    }
}

/// Sends `data`, half-closes, and wants it back, byte for byte, and then the end.
#[track_caller]
pub fn assert_echoed(stream: &TcpStream, data: &[u8]) {
    let mut reader = stream;
    let mut got = Vec::new();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream;
            writer.write_all(data)?;
            writer.shutdown(Shutdown::Write)
        });
        reader.read_to_end(&mut got)
    });
    assert!(outcome.is_ok(), "{outcome:?} after {} of {} bytes", got.len(), data.len());
    assert_same(&got, data, "the echo");
}
