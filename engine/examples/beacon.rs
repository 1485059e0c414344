//! Sends unasked: whoever has spoken to the server hears from it ten times a second, until it has been silent for five
//! seconds. Shows timers, and sending to a path that was kept.
//!
//! ```text
//! cargo run --example beacon [INTERFACE]        nc -u 127.0.0.1 7777, and press return once
//! ```
use std::time::Duration;
use volley::app::{App, Ctx};
use volley::datagram::Datagram;
use volley::engine::{Config, Engine};
use volley::net::Path;

const BEAT_NS: u64 = 100_000_000;
const SILENCE_NS: u64 = 5_000_000_000;
const LISTENERS: usize = 1024;

#[derive(Default)]
struct Beacon {
    /// Who listens, and when they last spoke.
    listeners: Vec<(Path, u64)>,
    beats: u64,
}

impl App for Beacon {
    type Msg = ();

    fn on_start(&mut self, ctx: &mut Ctx<'_, ()>) {
        ctx.timer(ctx.now().ns + BEAT_NS, 0);
    }

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, ()>) {
        let (path, now) = (datagram.path(), ctx.now().ns);
        if let Some(known) = self.listeners.iter_mut().find(|(known, _)| known.peer() == path.peer()) {
            *known = (path, now);
        } else if self.listeners.len() < LISTENERS {
            self.listeners.push((path, now));
        }
    }

    fn on_timer(&mut self, _: u64, ctx: &mut Ctx<'_, ()>) {
        let now = ctx.now().ns;
        self.beats += 1;
        self.listeners.retain(|(_, spoke)| now - spoke < SILENCE_NS);
        let line = format!("beat {}\n", self.beats);
        for (listener, _) in &self.listeners {
            // A beat that finds no room is not worth sending later.
            let _ = ctx.send(listener, line.as_bytes());
        }
        ctx.timer(now + BEAT_NS, 0);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config { interface: std::env::args().nth(1), workers: Some(1), ..Config::default() };
    let engine = Engine::start(config, |_| Beacon::default())?;
    println!("beacon on UDP 7777 ({})", engine.description());
    while engine.wait(Duration::from_secs(3600)).is_none() {}
    Err("the beacon is out".into())
}
