//! One connection between the stack and a kernel socket: random use by both applications, then both finish, and everything that was
//! promised is checked.

use crate::wire::Wire;
use rand::Rng;
use rand::rngs::SmallRng;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::time::{Duration, Instant as Clock};
use volley_tcp::{
    CloseReason, CongestionControl, ConnectionId, Error, EventKind, KeepAlive, Shutdown, SocketOption,
};

/// Longest that two applications which want to be done may take: several doubled timeouts of a busy machine.
const STUCK: Duration = Duration::from_secs(60);

/// What one application has done. Its bytes are a function of seed and position.
#[derive(Debug, Default)]
struct End {
    seed: u64,
    sent: u64,
    got: u64,
    /// It will write no more.
    shut: bool,
    /// It has read to the end.
    ended: bool,
    /// It has given the connection up without having read everything, or by a reset.
    rude: bool,
    gone: bool,
}

pub struct Game {
    name: String,
    pub connection: Option<ConnectionId>,
    pub socket: Option<TcpStream>,
    ours: End,
    kernels: End,
    actions: u32,
    finishing: Option<Clock>,
    /// What the events have said and the calls have not taken back: only so much is tried.
    readable: bool,
    writable: bool,
    peer_closed: bool,
    established: bool,
    read_shut: bool,
    reason: Option<CloseReason>,
    diary: Vec<String>,
}

/// The eight bytes at `index` of a stream.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut word = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)).to_le_bytes()
}

fn stretch(seed: u64, from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|at| word(seed, at / 8)[(at % 8) as usize]).collect()
}

impl End {
    fn new(seed: u64) -> End {
        End { seed, ..End::default() }
    }

    /// Bytes that came from `from` must be the next ones.
    #[track_caller]
    fn take(&mut self, bytes: &[u8], from: &End, who: &str) {
        let expected = stretch(from.seed, self.got, bytes.len());
        if let Some(at) = bytes.iter().zip(&expected).position(|(a, b)| a != b) {
            panic!(
                "{who}: byte {} is wrong, of {} read and {} sent",
                self.got + at as u64,
                self.got,
                from.sent
            );
        }
        self.got += bytes.len() as u64;
        assert!(self.got <= from.sent, "{who} got {} of {} bytes", self.got, from.sent);
    }
}

impl Game {
    pub fn new(
        name: String,
        connection: Option<ConnectionId>,
        socket: Option<TcpStream>,
        rng: &mut SmallRng,
    ) -> Game {
        let mut game = Game {
            name,
            connection: None,
            socket: None,
            ours: End::new(rng.random()),
            kernels: End::new(rng.random()),
            actions: rng.random_range(10..400),
            finishing: None,
            readable: false,
            writable: true,
            peer_closed: false,
            established: false,
            read_shut: false,
            reason: None,
            diary: Vec::new(),
        };
        game.connection = connection;
        if let Some(socket) = socket {
            game.attach(socket);
        }
        game
    }

    /// The kernel's socket is there.
    pub fn attach(&mut self, socket: TcpStream) {
        socket.set_nonblocking(true).unwrap();
        let keep = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(1))
            .with_interval(Duration::from_secs(1))
            .with_retries(8);
        // A reset that is lost leaves a half-open connection, which this finds.
        SockRef::from(&socket).set_tcp_keepalive(&keep).unwrap();
        self.socket = Some(socket);
    }

    /// Our connection is there.
    pub fn established(&mut self, connection: ConnectionId, wire: &mut Wire) {
        self.connection = Some(connection);
        self.established = true;
        let keep = KeepAlive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), probes: 8 };
        wire.stack.set_option(connection, SocketOption::KeepAlive(Some(keep))).unwrap();
    }

    pub fn note(&mut self, kind: EventKind, wire: &mut Wire) {
        self.diary.push(format!("{kind:?}"));
        assert!(self.reason.is_none(), "{kind:?} after the last event");
        match kind {
            EventKind::Established => {}
            EventKind::Readable => self.readable = true,
            EventKind::Writable => self.writable = true,
            EventKind::PeerClosed => {
                assert!(!self.peer_closed, "told twice");
                (self.peer_closed, self.readable) = (true, true);
            }
            EventKind::Closed(reason) => {
                self.reason = Some(reason);
                self.read(usize::MAX, wire);
                if let Some(connection) = self.connection.filter(|_| !self.ours.gone) {
                    wire.stack.close(connection).unwrap();
                }
                self.ours.gone = true;
            }
        }
    }

    /// One step of either application. True when the game is over.
    pub fn step(&mut self, wire: &mut Wire, rng: &mut SmallRng) -> bool {
        if self.reason.is_some() && self.connection.is_some() && self.socket.is_none() {
            self.judge();
            return true;
        }
        // An open that fails: only what was not there cannot be missing.
        if self.connection.is_none() && self.socket.is_none() {
            return true;
        }
        if self.finishing.is_some() || self.actions == 0 {
            self.finish(wire);
        } else if self.established && self.socket.is_some() {
            self.actions -= 1;
            self.act(wire, rng);
        } else if self.ours.gone || self.kernels.gone {
            self.actions = 0;
        }
        false
    }

    /// No more tricks.
    pub fn hurry(&mut self) {
        self.actions = 0;
    }

    fn act(&mut self, wire: &mut Wire, rng: &mut SmallRng) {
        let amount = 1usize << rng.random_range(0..17);
        match rng.random_range(0..1000) {
            0..240 => self.write(rng.random_range(0..=amount), wire),
            240..480 => self.kernel_writes(rng.random_range(0..=amount)),
            480..680 => self.read(rng.random_range(0..=amount), wire),
            680..880 => self.kernel_reads(rng.random_range(1..=amount)),
            880..930 => self.option(wire, rng),
            930..980 => self.kernel_option(rng),
            980..984 => self.shut(wire),
            984..988 => self.kernel_shuts(),
            988..990 => {
                self.diary.push("abort".into());
                self.ours.rude = true;
                self.leave(wire, volley_tcp::Connections::abort);
            }
            990..992 => {
                self.diary.push("close".into());
                self.ours.rude = true;
                self.leave(wire, volley_tcp::Connections::close);
            }
            992..994 => {
                self.diary.push("shutdown read".into());
                if let Some(connection) = self.connection.filter(|_| !self.ours.gone) {
                    (self.read_shut, self.ours.rude) = (true, true);
                    wire.stack.shutdown(connection, Shutdown::Read).unwrap();
                }
            }
            994..996 => {
                self.diary.push("kernel resets".into());
                if let Some(socket) = self.socket.take() {
                    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                }
                (self.kernels.rude, self.kernels.gone) = (true, true);
            }
            996..998 => {
                self.diary.push("kernel closes".into());
                self.socket = None;
                (self.kernels.rude, self.kernels.gone) = (true, true);
            }
            _ => self.actions = 0,
        }
    }

    /// Both applications write no more and read to the end.
    fn finish(&mut self, wire: &mut Wire) {
        if self.finishing.is_none() {
            // Through a window of some hundred bytes megabytes take minutes.
            if let Some(connection) = self.connection.filter(|_| !self.ours.gone) {
                wire.stack.set_option(connection, SocketOption::ReceiveBuffer(1 << 18)).unwrap();
            }
            if let Some(socket) = &self.socket {
                SockRef::from(socket).set_recv_buffer_size(1 << 18).unwrap();
            }
        }
        let since = *self.finishing.get_or_insert_with(Clock::now);
        if since.elapsed() > STUCK {
            let info = self.connection.map(|connection| wire.stack.info(connection));
            panic!("stuck: {info:#?}");
        }
        if self.established {
            self.shut(wire);
        }
        self.kernel_shuts();
        if self.readable {
            self.read(usize::MAX, wire);
        }
        self.kernel_reads(1 << 20);
        if self.ours.ended && !self.ours.gone {
            self.leave(wire, volley_tcp::Connections::close);
        }
        if self.kernels.ended {
            self.socket = None;
            self.kernels.gone = true;
        }
    }

    fn leave(
        &mut self,
        wire: &mut Wire,
        how: fn(&mut volley_tcp::Connections, ConnectionId) -> Result<(), Error>,
    ) {
        let Some(connection) = self.connection.filter(|_| !self.ours.gone) else { return };
        how(&mut wire.stack, connection).unwrap();
        self.ours.gone = true;
    }

    fn write(&mut self, len: usize, wire: &mut Wire) {
        let Some(connection) = self.connection.filter(|_| !self.ours.gone) else { return };
        let bytes = stretch(self.ours.seed, self.ours.sent, len);
        match wire.stack.write(connection, &bytes) {
            Ok(written) => {
                assert!(!self.ours.shut, "written after shutdown");
                self.writable &= written == len;
                self.ours.sent += written as u64;
            }
            Err(Error::ShutDown) => assert!(self.ours.shut, "shut down by nobody"),
            Err(Error::Ended) => {}
            Err(error) => panic!("write: {error}"),
        }
    }

    fn read(&mut self, most: usize, wire: &mut Wire) {
        let Some(connection) = self.connection.filter(|_| !self.ours.gone) else { return };
        let mut left = most;
        while left > 0 {
            let bytes = wire.stack.peek(connection).unwrap();
            let len = bytes.len().min(left);
            if len == 0 {
                self.readable = false;
                self.ours.ended |= self.peer_closed;
                break;
            }
            let bytes = bytes[..len].to_vec();
            assert!(!self.read_shut, "nothing can be read after shutdown");
            self.ours.take(&bytes, &self.kernels, "we");
            assert_eq!(wire.stack.read(connection, len), Ok(len));
            left -= len;
        }
    }

    fn shut(&mut self, wire: &mut Wire) {
        let Some(connection) = self.connection.filter(|_| !self.ours.gone && !self.ours.shut) else {
            return;
        };
        self.diary.push("shutdown".into());
        wire.stack.shutdown(connection, Shutdown::Write).unwrap();
        self.ours.shut = true;
    }

    fn kernel_writes(&mut self, len: usize) {
        let bytes = stretch(self.kernels.seed, self.kernels.sent, len);
        if self.kernels.shut {
            return;
        }
        if let Some(outcome) = self.socket.as_mut().map(|socket| socket.write(&bytes)) {
            self.kernels.sent += self.kernel_result(outcome, "write").unwrap_or(0) as u64;
        }
    }

    fn kernel_reads(&mut self, len: usize) {
        let mut room = vec![0; len.min(1 << 18)];
        let Some(outcome) = self.socket.as_mut().map(|socket| socket.read(&mut room)) else { return };
        match self.kernel_result(outcome, "read") {
            Some(0) => self.kernels.ended = true,
            Some(len) => self.kernels.take(&room[..len], &self.ours, "the kernel"),
            None => {}
        }
    }

    fn kernel_shuts(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| !self.kernels.shut) {
            match socket.shutdown(Half::Write) {
                // Not connected yet: nothing to shut.
                Err(error) if error.kind() == ErrorKind::NotConnected && !self.established => return,
                _ => self.diary.push("kernel shuts".into()),
            }
            self.kernels.shut = true;
        }
    }

    /// What a call of the kernel's gave; an error ends the kernel's part.
    fn kernel_result(&mut self, outcome: std::io::Result<usize>, call: &str) -> Option<usize> {
        match outcome {
            Ok(len) => Some(len),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(error) => {
                self.diary.push(format!("kernel's {call}: {error}"));
                // Before the handshake is done at our end there is nothing that could be promised.
                let excused = self.ours.rude || self.kernels.rude || self.ours.gone || !self.established;
                assert!(excused, "the kernel's {call} failed although nobody gave up: {error}: {self}");
                self.socket = None;
                self.kernels.gone = true;
                self.kernels.rude = true;
                None
            }
        }
    }

    fn option(&mut self, wire: &mut Wire, rng: &mut SmallRng) {
        let Some(connection) = self.connection.filter(|_| !self.ours.gone) else { return };
        let option = match rng.random_range(0..9) {
            0 => SocketOption::NoDelay(rng.random()),
            1 => SocketOption::Cork(rng.random()),
            2 => SocketOption::DelayedAck(Duration::from_millis(rng.random_range(0..200))),
            3 => SocketOption::ReceiveBuffer(1 << rng.random_range(9..21)),
            4 => SocketOption::SendBuffer(1 << rng.random_range(9..21)),
            5 => SocketOption::LowWater(rng.random_range(1..2)),
            6 => SocketOption::Mss(rng.random_range(100..9000)),
            7 => SocketOption::CongestionControl(match rng.random() {
                true => CongestionControl::Cubic,
                false => CongestionControl::NewReno,
            }),
            _ => SocketOption::Tos(rng.random()),
        };
        self.diary.push(format!("{option:?}"));
        wire.stack.set_option(connection, option).unwrap();
    }

    fn kernel_option(&mut self, rng: &mut SmallRng) {
        let Some(socket) = self.socket.as_ref().map(SockRef::from) else { return };
        // Refused when the connection has ended meanwhile.
        let _ = match rng.random_range(0..6) {
            0 => socket.set_tcp_nodelay(rng.random()),
            1 => socket.set_tcp_cork(rng.random()),
            2 => socket.set_tcp_quickack(rng.random()),
            3 => socket.set_recv_buffer_size(1 << rng.random_range(9..20)),
            4 => socket.set_send_buffer_size(1 << rng.random_range(9..20)),
            _ => socket.set_tcp_congestion([b"cubic".as_slice(), b"reno"][rng.random_range(0..2)]),
        };
    }

    /// Everybody is gone.
    fn judge(&self) {
        let reason = self.reason.unwrap_or(CloseReason::Finished);
        if self.ours.rude || self.kernels.rude {
            // A timeout is nobody's fault only where a reset may have been lost.
            assert_ne!(reason, CloseReason::Unreachable, "{self}");
            return;
        }
        assert_eq!(reason, CloseReason::Finished, "{self}");
        assert_eq!(self.ours.got, self.kernels.sent, "we miss bytes: {self}");
        assert_eq!(self.kernels.got, self.ours.sent, "the kernel misses bytes: {self}");
    }

    pub fn bytes(&self) -> u64 {
        self.ours.got + self.kernels.got
    }
}

impl std::fmt::Display for Game {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Game { name, ours, kernels, reason, diary, .. } = self;
        let last = &diary[diary.len().saturating_sub(30)..];
        write!(f, "{name}: {reason:?}\n ours {ours:?}\n kernel's {kernels:?}\n … {}", last.join(", "))
    }
}
