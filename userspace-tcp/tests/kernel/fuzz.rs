//! Random traffic with the kernel, over a wire on which everything happens.
//!
//! ```text
//!   seed ─► MTU, sysctls, the stack's configuration ─► games: opened by either side, random calls by both applications
//!        └► weather, new every half second: loss, duplicates, late packets, turned bits, forgeries, a link that is cut
//! ```
//!
//! What must hold: every byte read is the one that was written there; who does not give up gets all of them, and the end, and
//! [`volley_tcp::CloseReason::Finished`]; nobody is stuck; and when all are gone, nothing is left in the stack.
//!
//! `VOLLEY_FUZZ_SECONDS` says for how long (12), `VOLLEY_FUZZ_SEED` with which seed; the kernel's clock is real, so a seed repeats
//! what is tried and not its timing.

use crate::game::Game;
use crate::wire::{KERNEL_V4, KERNEL_V6, OURS_V4, OURS_V6, Seen, Weather, Wire};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};
use volley_tcp::{
    Config, ConnectionOptions, Counters, Ecn, EventKind, ListenOptions, ListenerId, Population, SynCookies,
};
use volley_testlab::{in_fresh_ns, require_root};

const OUR_PORT: u16 = 7;
const KERNEL_PORT: u16 = 9;
/// One set of MTU, sysctls and configuration.
const ROUND: Duration = Duration::from_secs(3);
const WEATHER: Duration = Duration::from_millis(500);
const GAMES: usize = 24;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn random_traffic_with_the_kernel_is_exact_and_leaves_nothing_behind() {
    if !require_root() {
        return;
    }
    let seconds = number("VOLLEY_FUZZ_SECONDS").unwrap_or(12);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 >> 10;
    let first = number("VOLLEY_FUZZ_SEED").unwrap_or(fresh % 1_000_000);
    let until = Clock::now() + Duration::from_secs(seconds);
    let mut seed = first;
    while Clock::now() < until {
        println!("VOLLEY_FUZZ_SEED={seed}");
        let (played, seen, counters) = in_fresh_ns(|| Round::new(seed).play());
        println!("  {played}, {seen:?}, {} resent", counters.retransmits);
        seed += 1;
    }
}

struct Round {
    rng: SmallRng,
    wire: Wire,
    listener: ListenerId,
    server: TcpListener,
    options: ConnectionOptions,
    games: Vec<Game>,
    v6: bool,
    played: u64,
    bytes: u64,
}

fn sysctls(rng: &mut SmallRng) -> Vec<String> {
    let mut settings = vec![
        "net.ipv4.tcp_fin_timeout=5".to_owned(),
        // Loss of some tenths is not the end here.
        "net.ipv4.tcp_syn_retries=8".to_owned(),
        "net.ipv4.tcp_mtu_probing=1".to_owned(),
    ];
    for (name, chance) in [
        ("tcp_sack", 0.7),
        ("tcp_timestamps", 0.7),
        ("tcp_window_scaling", 0.7),
        ("tcp_dsack", 0.7),
        ("tcp_ecn", 0.5),
        ("tcp_recovery", 0.7),
        ("tcp_frto", 0.7),
    ] {
        settings.push(format!("net.ipv4.{name}={}", u8::from(rng.random_bool(chance))));
    }
    if rng.random_bool(0.3) {
        settings.push("net.ipv4.tcp_rmem=4096 8192 16384".to_owned());
    }
    settings
}

fn config(rng: &mut SmallRng) -> Config {
    Config {
        max_connections: 1024,
        // Sometimes there is never enough for everybody.
        pool_bytes: if rng.random_bool(0.3) { 512 << 10 } else { 32 << 20 },
        max_segments_in_flight: if rng.random_bool(0.2) { 256 } else { 16_384 },
        syn_table: if rng.random_bool(0.2) { 2 } else { 64 },
        syn_cookies: [SynCookies::WhenFull, SynCookies::WhenFull, SynCookies::Always]
            [rng.random_range(0..3)],
        mtu: [576, 1280, 1500, 1500, 9000][rng.random_range(0..5)],
        timestamps: rng.random_bool(0.8),
        window_scaling: rng.random_bool(0.8),
        sack: rng.random_bool(0.8),
        fin_wait_2: Duration::from_secs(3),
        // An old duplicate SYN stays half-open for as long, while the kernel is in TIME-WAIT and answers with no reset.
        syn_ack_attempts: 4,
        orphan_timeout: Duration::from_secs(10),
        ecn: [Ecn::Off, Ecn::Accept, Ecn::Request][rng.random_range(0..3)],
        ..Config::default()
    }
}

impl Round {
    fn new(seed: u64) -> Round {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (config, sysctls) = (config(&mut rng), sysctls(&mut rng));
        println!("  {sysctls:?}, MTU {}, pool {}, {:?}", config.mtu, config.pool_bytes, config.syn_cookies);
        let mut wire = Wire::new(seed, config, &sysctls);
        let options = ConnectionOptions {
            receive_buffer: 1 << rng.random_range(12..20),
            send_buffer: 1 << rng.random_range(12..20),
            ..ConnectionOptions::default()
        };
        let listen = ListenOptions { connection: options, ..ListenOptions::default() };
        let listener = wire.stack.listen(SocketAddr::from(([0u16; 8], OUR_PORT)), listen).unwrap();
        let server = TcpListener::bind(SocketAddr::from(([0u16; 8], KERNEL_PORT))).unwrap();
        server.set_nonblocking(true).unwrap();
        let v6 = config.mtu >= 1280;
        Round { rng, wire, listener, server, options, games: Vec::new(), v6, played: 0, bytes: 0 }
    }

    fn play(mut self) -> (String, Seen, Counters) {
        let began = Clock::now();
        let mut weather_ends = began;
        while began.elapsed() < ROUND || !self.games.is_empty() {
            let open = began.elapsed() < ROUND;
            if Clock::now() >= weather_ends {
                self.wire.weather = if open { self.weather() } else { Weather::default() };
                // A link that is cut is so for less than anybody's patience.
                let cut = self.wire.weather.loss == 1.0;
                weather_ends = Clock::now() + if cut { WEATHER / 2 } else { WEATHER };
            }
            while open && self.games.len() < GAMES {
                self.open();
            }
            if !open {
                self.games.iter_mut().for_each(Game::hurry);
            }
            self.wire.turn(Duration::from_millis(2));
            self.events();
            self.accept();
            self.steps();
        }
        let over = began.elapsed();
        self.wire.weather = Weather::default();
        self.empty();
        println!("  over after {over:?}, empty after {:?}", began.elapsed());
        let (retransmits, dropped) = {
            let counters = self.wire.stack.counters();
            (counters.retransmits, counters.drops().filter(|(_, n)| *n > 0).collect::<Vec<_>>())
        };
        let played = format!(
            "{} games, {} bytes, {retransmits} retransmits, dropped {dropped:?}",
            self.played, self.bytes
        );
        (played, self.wire.seen, *self.wire.stack.counters())
    }

    fn weather(&mut self) -> Weather {
        let rng = &mut self.rng;
        if rng.random_bool(0.05) {
            let floor = if self.v6 { 1280 } else { 552 };
            self.wire.path_mtu = self.wire.path_mtu.min(rng.random_range(floor..=9000));
        }
        let mut some = |most: f64| rng.random_range(0.0..most);
        match (some(9.0)) as u32 {
            0 => Weather::default(),
            1 => Weather { loss: some(0.02), ..Weather::default() },
            2 => Weather { loss: some(0.25), ..Weather::default() },
            3 => Weather { duplicate: some(0.5), ..Weather::default() },
            4 => Weather { hold: some(0.5), ..Weather::default() },
            5 => Weather { corrupt: some(0.1), ..Weather::default() },
            6 => Weather { forge: some(1.0), ..Weather::default() },
            7 => Weather { loss: 1.0, ..Weather::default() },
            _ => Weather {
                loss: some(0.05),
                duplicate: some(0.1),
                hold: some(0.1),
                corrupt: some(0.02),
                forge: some(0.5),
            },
        }
    }

    /// Somebody opens a connection.
    fn open(&mut self) {
        let v6 = self.v6 && self.rng.random();
        let (ours, kernels) = if v6 { (OURS_V6, KERNEL_V6) } else { (OURS_V4, KERNEL_V4) };
        self.played += 1;
        let name = format!("game {}", self.played);
        if self.rng.random() {
            let socket =
                Socket::new(if v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if self.rng.random_bool(0.2) {
                socket.set_tcp_mss(self.rng.random_range(200..1400)).unwrap();
            }
            // EINPROGRESS: it goes on by itself.
            let _ = socket.connect(&SocketAddr::new(ours, OUR_PORT).into());
            let game = Game::new(
                format!("{name}, opened by the kernel"),
                None,
                Some(socket.into()),
                &mut self.rng,
            );
            self.games.push(game);
        } else {
            let (local, remote) = (SocketAddr::new(ours, 0), SocketAddr::new(kernels, KERNEL_PORT));
            let connection = self.wire.stack.connect(local, remote, 0, &self.options).unwrap();
            let game = Game::new(format!("{name}, opened by us"), Some(connection), None, &mut self.rng);
            self.games.push(game);
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.wire.stack.next_event() {
            let known = self.games.iter().position(|game| game.connection == Some(event.connection));
            if event.kind == EventKind::Established {
                let at = match known {
                    Some(at) => at,
                    None => {
                        let accepted = self.wire.stack.accept(self.listener);
                        assert_eq!(accepted, Some(event.connection));
                        let peer = self.wire.stack.info(event.connection).unwrap().remote;
                        let is_peers = |game: &Game| {
                            let socket = game.socket.as_ref().filter(|_| game.connection.is_none());
                            socket.and_then(|socket| socket.local_addr().ok()) == Some(peer)
                        };
                        match self.games.iter().position(is_peers) {
                            Some(at) => at,
                            None => {
                                // Its kernel socket was given up before the handshake was done.
                                self.wire.stack.abort(event.connection).unwrap();
                                continue;
                            }
                        }
                    }
                };
                self.games[at].established(event.connection, &mut self.wire);
            }
            if let Some(game) = self.games.iter_mut().find(|game| game.connection == Some(event.connection))
            {
                game.note(event.kind, &mut self.wire);
            }
        }
    }

    /// Kernel sockets of connections that we have opened.
    fn accept(&mut self) {
        while let Ok((socket, peer)) = self.server.accept() {
            let local = |game: &Game| {
                let id = game.connection.filter(|_| game.socket.is_none())?;
                Some(self.wire.stack.info(id).ok()?.local)
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            match self.games.iter().position(|game| local(game) == Some(peer)) {
                Some(at) => self.games[at].attach(socket),
                // Ours was given up meanwhile.
                None => SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
            }
        }
    }

    fn steps(&mut self) {
        let mut at = 0;
        while at < self.games.len() {
            let (game, wire) = (&mut self.games[at], &mut self.wire);
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| game.step(wire, &mut self.rng)));
            match outcome {
                Ok(false) => at += 1,
                Ok(true) => {
                    self.bytes += self.games[at].bytes();
                    self.games.swap_remove(at);
                }
                Err(panic) => {
                    eprintln!("{}\n{}", self.games[at], self.wire.last_packets());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// With all applications gone, so is everything they had in the stack.
    fn empty(&mut self) {
        let deadline = Clock::now() + Duration::from_secs(60);
        loop {
            let left = self.wire.stack.population();
            let Population { connections, half_open, segments_in_flight, chunks, ranges, .. } = left;
            if connections + half_open + segments_in_flight + chunks + ranges == 0 {
                return;
            }
            assert!(Clock::now() < deadline, "left behind: {left:?}\n{}", self.wire.last_packets());
            self.wire.turn(Duration::from_millis(5));
            while self.wire.stack.next_event().is_some() {}
            drop::<Result<(TcpStream, _), _>>(self.server.accept());
        }
    }
}
