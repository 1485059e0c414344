//! A small HTTP/1.1 responder on the stream port, for curl, wrk, sockperf and nping to be pointed at.
//!
//! `GET /` answers with a line of text, `GET /bytes/N` with N bytes (at most 1 GiB), `HEAD` with their headers alone. Connections are
//! kept alive and requests may be pipelined. Anything else gets an error and the end of the connection.
//!
//! ```sh
//! cargo run --release --example http -- - 8080         # kernel TCP on every address
//! cargo run --release --example http -- eth1 8080      # our own TCP on an interface
//! cargo run --release --features volley/dpdk --example http -- engine.toml    # what `volley run --config` takes: over DPDK, say
//! curl -s http://127.0.0.1:8080/bytes/1000000 | wc -c
//! ```

use volley::app::{App, Ctx};
use volley::stream::{Peer, Shutdown, Stream, StreamError, StreamEvent};

/// Longest request head that is looked for its end, in bytes.
const HEAD_MAX: usize = 8 << 10;
/// Longest body that is made, in bytes.
const BODY_MAX: u64 = 1 << 30;
/// Bytes that one callback writes on one stream before others have their turn.
const PER_TURN: usize = 256 << 10;
const TEXT: &[u8] = b"volley: a packet engine says hello\n";

/// What is under way on one connection.
#[derive(Default)]
struct Connection {
    /// The start of a request that is not whole yet.
    request: Vec<u8>,
    /// What is to be written before the body.
    head: Vec<u8>,
    /// Bytes of the body still to be written, and which of them is next.
    left: u64,
    at: u64,
    /// The text rather than the pattern.
    text: bool,
    /// No request is taken any more: our direction is closed when everything is written, and the rest when the peer has closed
    /// its own. Closing at once would reset a peer that is still writing, and the reset would overtake the answer.
    last: bool,
    peer_closed: bool,
}

/// The app: connections by slot.
pub struct Http {
    connections: Vec<Connection>,
    /// What bodies are made of.
    pattern: Box<[u8]>,
}

impl Default for Http {
    fn default() -> Self {
        Http { connections: Vec::new(), pattern: (0..1 << 16).map(|n| b'a' + (n % 26) as u8).collect() }
    }
}

impl App for Http {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let slot = peer.slot();
        if self.connections.len() <= slot {
            self.connections.resize_with((slot + 1).next_power_of_two(), Connection::default);
        }
        let connection = &mut self.connections[slot];
        match event {
            StreamEvent::Opened | StreamEvent::Closed(_) => {
                *connection = Connection::default();
                return;
            }
            StreamEvent::PeerClosed => connection.peer_closed = true,
            StreamEvent::Readable | StreamEvent::Writable => {}
        }
        if let Ok(mut stream) = ctx.stream(peer) {
            // An error means that the stream has ended; `Closed` follows.
            let _ = connection.go_on(&mut stream, &self.pattern);
        }
    }
}

impl Connection {
    /// Writes what is to be written, then takes the next request, until either side has to wait.
    fn go_on(&mut self, stream: &mut Stream<'_>, pattern: &[u8]) -> Result<(), StreamError> {
        let mut budget = PER_TURN;
        loop {
            while !self.head.is_empty() {
                let written = stream.write(&self.head)?;
                self.head.drain(..written);
                if !self.head.is_empty() {
                    return Ok(());
                }
            }
            while self.left > 0 {
                let source = if self.text { TEXT } else { pattern };
                let from = (self.at % source.len() as u64) as usize;
                let piece = &source[from..];
                let piece = &piece[..piece.len().min(self.left.min(usize::MAX as u64) as usize)];
                let written = stream.write(piece)?;
                (self.at, self.left) = (self.at + written as u64, self.left - written as u64);
                if written < piece.len() {
                    return Ok(());
                }
                budget = budget.saturating_sub(written);
                if budget == 0 {
                    return stream.again();
                }
            }
            if !self.next_request(stream)? {
                return match (self.last, self.peer_closed) {
                    (_, true) => stream.close(),
                    (true, false) => stream.shutdown(Shutdown::Write),
                    _ => Ok(()),
                };
            }
        }
    }

    /// Takes the next request, if it is whole. False when there is none.
    fn next_request(&mut self, stream: &mut Stream<'_>) -> Result<bool, StreamError> {
        loop {
            if let Some(end) = find(&self.request, b"\r\n\r\n").filter(|_| !self.last) {
                let head: Vec<u8> = self.request.drain(..end + 4).collect();
                self.answer(&head);
                return Ok(true);
            }
            if self.request.len() > HEAD_MAX && !self.last {
                self.refuse("431 Request Header Fields Too Large");
                self.request.clear();
                return Ok(true);
            }
            let bytes = stream.peek()?;
            let n = bytes.len();
            if n == 0 {
                return Ok(false);
            }
            if self.last {
                // Whatever comes after the last request is not wanted.
                stream.consume(n)?;
                continue;
            }
            self.request.extend_from_slice(bytes);
            stream.consume(n)?;
        }
    }

    fn answer(&mut self, head: &[u8]) {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some(version)) = (method, target, version) else {
            return self.refuse("400 Bad Request");
        };
        let header = |name: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let body = header("content-length").is_some_and(|length| length != "0");
        if body || header("transfer-encoding").is_some() {
            return self.refuse("413 Content Too Large");
        }
        let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let keep = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
        self.last |= close || (version == "HTTP/1.0" && !keep);
        if method != "GET" && method != "HEAD" {
            return self.refuse("405 Method Not Allowed");
        }
        self.text = target == "/";
        let asked = target.strip_prefix("/bytes/").and_then(|n| n.parse().ok());
        let length = match (self.text, asked) {
            (true, _) => TEXT.len() as u64,
            (_, Some(n)) if n <= BODY_MAX => n,
            _ => return self.respond("404 Not Found", 0, false),
        };
        self.respond("200 OK", length, method == "GET");
    }

    /// An error after which nothing more is understood.
    fn refuse(&mut self, status: &str) {
        self.last = true;
        self.respond(status, 0, false);
    }

    fn respond(&mut self, status: &str, length: u64, with_body: bool) {
        let connection = if self.last { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\nServer: volley\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n"
        );
        self.head = head.into_bytes();
        (self.at, self.left) = (0, if with_body { length } else { 0 });
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// What the engine is told: an interface or `-`, then the port; or a file such as `volley run --config` takes.
///
/// # Errors
/// When the port is none, or the file cannot be read or holds what is no setting.
#[cfg(target_os = "linux")]
pub fn config(
    mut arguments: impl Iterator<Item = String>,
) -> Result<volley::engine::Config, Box<dyn std::error::Error>> {
    use volley::engine::config::{Config, Io, Ports, Tcp};
    let first = arguments.next().filter(|name| name != "-");
    if let Some(file) = first.as_ref().filter(|name| name.ends_with(".toml")) {
        let mut config = Config::from_toml(&std::fs::read_to_string(file)?)?;
        config.tcp.get_or_insert_default();
        return Ok(config);
    }
    let ports: Ports = arguments.next().unwrap_or("8080".into()).parse()?;
    Ok(Config {
        io: if first.is_some() { Io::AfXdp } else { Io::Mmsg },
        interface: first,
        tcp: Some(Tcp { ports, ..Tcp::default() }),
        ..Config::default()
    })
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = config(std::env::args().skip(1))?;
    let engine = volley::engine::Engine::start(config, |_| Http::default())?;
    eprintln!("ready: {}", engine.description());
    loop {
        if let Some(notice) = engine.wait(std::time::Duration::from_secs(1)) {
            return Err(notice.to_string().into());
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the stream port of this example needs Linux");
}
