//! A chat room in under 60 lines: whatever one player says, the others hear. Over kernel sockets on a laptop:
//!
//! ```text
//! cargo run --example chat                 then, in two other terminals:  nc -u 127.0.0.1 7777
//! cargo run --example chat -- eth1         over AF_XDP, as root
//! ```
use std::time::Duration;
use volley::app::{App, Ctx};
use volley::datagram::Datagram;
use volley::engine::{Config, Engine};
use volley::net::Path;
use volley::wire::DropReason;

/// Players in a room, and longest line, in bytes: nothing a stranger sends makes the server's memory grow.
const PLAYERS: usize = 64;
const LINE: usize = 512;

#[derive(Default)]
struct Room {
    players: Vec<Path>,
}

impl App for Room {
    type Msg = ();

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, ()>) {
        let speaker = datagram.path();
        if datagram.payload().len() > LINE {
            return datagram.drop(DropReason::AppMalformed);
        }
        // A path may change on its way (queue, MAC): a player is an address.
        if let Some(known) = self.players.iter_mut().find(|player| player.peer() == speaker.peer()) {
            *known = speaker;
        } else if self.players.len() < PLAYERS {
            self.players.push(speaker);
        } else {
            return datagram.reply_with(b"the room is full\n");
        }
        for player in self.players.iter().filter(|player| player.peer() != speaker.peer()) {
            // Full or unresolved: this player misses a line, the others do not wait.
            let _ = ctx.send(player, datagram.payload());
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One worker, one room.
    let config = Config { interface: std::env::args().nth(1), workers: Some(1), ..Config::default() };
    let engine = Engine::start(config, |_| Room::default())?;
    println!("chat on UDP 7777 ({})", engine.description());
    while engine.wait(Duration::from_secs(3600)).is_none() {}
    Err("the room is closed".into())
}
