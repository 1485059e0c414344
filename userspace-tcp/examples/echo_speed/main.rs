//! How fast a stack echoes 64-byte messages in memory, in bursts of 64, the client's work not counted; and connect–echo–close.
//! Ours, and smoltcp in its place: the same client, the same bursts.
//!
//! `cargo run --release -p volley-tcp --example echo_speed [-- ROW…]`, each ROW `ours/CONNECTIONS`, `smoltcp/CONNECTIONS` or
//! `ours/connect`. One line of JSON each; `volley-bench tcp-memory` interleaves them.

mod client;
mod ours;
mod theirs;

use client::{ACK, Client, FIN, PSH, SYN};
use std::time::Duration;

/// Payload of a message, bytes.
pub const MESSAGE: usize = 64;
/// Segments handed in at once.
pub const BURST: usize = 64;
/// The server's address and port.
pub const SERVER: [u8; 4] = [10, 0, 0, 1];
/// Echo.
pub const PORT: u16 = 7;

/// A segment of a client's, in an IPv4 packet with 20 bytes of header.
pub struct Frame {
    /// Room for the packet.
    pub bytes: [u8; 256],
    /// Its length.
    pub len: usize,
    /// Which client sent it.
    pub client: usize,
}

/// A server under test.
pub trait Server {
    /// Makes room for these clients' connections, in the order in which they will connect.
    fn expect(&mut self, connections: usize);

    /// Its turn: takes the burst, echoes, leaves its answers. Returns the messages echoed, and how long that took.
    fn serve(&mut self, frames: &[Frame], now: Duration, answers: &mut Vec<Vec<u8>>) -> (u64, Duration);

    /// Connections it has.
    fn connections(&self) -> usize;

    /// Bytes of memory per connection, idle; and in all.
    fn memory(&self) -> (usize, usize);
}

/// Server, clients and the time between them.
struct Bench<'s> {
    server: &'s mut dyn Server,
    frames: Vec<Frame>,
    answers: Vec<Vec<u8>>,
    now: Duration,
    spent: Duration,
    echoed: u64,
}

impl Bench<'_> {
    fn new(server: &mut dyn Server) -> Bench<'_> {
        let now = Duration::from_secs(1);
        Bench { server, frames: Vec::new(), answers: Vec::new(), now, spent: Duration::ZERO, echoed: 0 }
    }

    /// One burst of segments of the given clients, the first of which is the `base`th, and their answers.
    fn turn(&mut self, base: usize, clients: &mut [Client], flags: u8, payload: usize) -> usize {
        // A burst is full: few clients send several messages each.
        let rounds = if payload > 0 { (BURST / clients.len()).max(1) } else { 1 };
        self.frames.clear();
        for _ in 0..rounds {
            for (i, client) in clients.iter_mut().enumerate() {
                self.frames.push(client.frame(base + i, flags, payload, self.now.as_millis() as u32));
            }
        }
        self.answers.clear();
        let (echoed, spent) = self.server.serve(&self.frames, self.now, &mut self.answers);
        self.echoed += echoed;
        self.spent += spent;
        for (i, answer) in self.answers.iter().enumerate() {
            // Answers come in the order of the questions, mostly.
            let here = i % clients.len();
            let at = if clients[here].is_for(answer) {
                Some(here)
            } else {
                clients.iter().position(|client| client.is_for(answer))
            };
            if let Some(at) = at {
                clients[at].take(answer);
            }
        }
        self.frames.len()
    }
}

/// Messages a second over connections that are all busy.
fn echo(server: &mut dyn Server, connections: usize, messages: usize, stamps: bool) -> String {
    server.expect(connections);
    let mut bench = Bench::new(server);
    let mut clients: Vec<Client> = (0..connections).map(|i| Client::new(i, stamps)).collect();
    for (i, some) in clients.chunks_mut(BURST).enumerate() {
        bench.turn(i * BURST, some, SYN, 0);
        bench.turn(i * BURST, some, ACK, 0);
    }
    assert_eq!(bench.server.connections(), connections);
    let (each, total) = bench.server.memory();
    (bench.spent, bench.echoed) = (Duration::ZERO, 0);
    let mut sent = 0;
    // Virtual time passes as if the machine did a million messages a second.
    while sent < messages {
        for (i, some) in clients.chunks_mut(BURST).enumerate() {
            bench.now += Duration::from_micros(some.len() as u64);
            sent += bench.turn(i * BURST, some, ACK | PSH, MESSAGE);
        }
    }
    assert_eq!(bench.echoed as usize, sent, "messages were lost");
    let rate = bench.echoed as f64 / bench.spent.as_secs_f64();
    format!("\"per_second\":{rate:.0},\"bytes_per_connection\":{each},\"bytes\":{total}")
}

/// Connections a second that open, echo once and close.
fn connect(server: &mut dyn Server) -> String {
    let mut bench = Bench::new(server);
    let rounds = 4_000;
    for round in 0..rounds {
        let mut some: Vec<Client> = (0..BURST).map(|i| Client::new(round * BURST + i, true)).collect();
        for client in &mut some {
            client.port = client.port.wrapping_add((round >> 8) as u16);
        }
        bench.now += Duration::from_micros(200);
        bench.turn(0, &mut some, SYN, 0);
        bench.turn(0, &mut some, ACK, 0);
        bench.turn(0, &mut some, ACK | PSH, MESSAGE);
        bench.turn(0, &mut some, ACK | FIN, 0);
        assert!(some.iter().all(|client| client.finished));
        bench.turn(0, &mut some, ACK, 0);
    }
    assert_eq!(bench.server.connections(), 0);
    let rate = (rounds * BURST) as f64 / bench.spent.as_secs_f64();
    format!("\"per_second\":{rate:.0}")
}

fn main() {
    let mut rows: Vec<String> = std::env::args().skip(1).collect();
    if rows.is_empty() {
        let all = ["ours/10", "smoltcp/10", "ours/10000", "smoltcp/10000", "ours/100000", "ours/connect"];
        rows = all.map(String::from).to_vec();
    }
    for row in rows {
        let (stack, what) = row.split_once('/').unwrap_or((&row, ""));
        let said = match (stack, what, what.parse::<usize>()) {
            ("ours", "connect", _) => connect(&mut ours::Ours::new(1024)),
            ("ours", _, Ok(n)) => echo(&mut ours::Ours::new(n), n, 2_000_000.max(n * 10), true),
            // Enough for a figure; a full scan takes its time.
            ("smoltcp", _, Ok(n)) => {
                echo(&mut theirs::Smoltcp::new(), n, 1_000_000.min(50_000_000 / n).max(n), false)
            }
            _ => {
                eprintln!("{row}: ours/CONNECTIONS, smoltcp/CONNECTIONS or ours/connect");
                std::process::exit(2);
            }
        };
        println!("{{\"row\":\"{row}\",{said}}}");
    }
}
