//! Bursts of echoes for an instruction counter: `benches/instructions` runs this under callgrind.
//!
//! Arguments: how many bursts. What it does besides them is the same for every number, so the difference of two runs
//! divided by the packets is what a packet costs.

mod echo;

use echo::{Carousel, echo};
use volley::datagram::{Batch, DatagramPort, Verdicts};
use volley::frame::BURST;
use volley::net::{Net, NetConfig};
use volley::port::Port;

fn main() {
    // `cargo bench` and `cargo test` pass flags of their own; only a number means something here.
    let bursts: u64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1);
    let ipv4 = !std::env::args().any(|argument| argument == "ipv6");
    let port: Box<dyn Port> = Box::new(Carousel::new(if ipv4 { 60 } else { 80 }, ipv4));
    let mut net: Net = Net::new(port, NetConfig::default());
    let (mut batch, mut verdicts) = (Batch::default(), Verdicts::new());
    for _ in 0..bursts {
        echo(&mut net, &mut batch, &mut verdicts);
    }
    assert_eq!(net.stats().answered, bursts * BURST as u64);
}
