//! What an app may do besides answering, over AF_XDP and over kernel sockets.

use crate::peer::{FAMILIES, PORT, socket};
use crate::running::PATIENCE;
use std::net::{SocketAddr, UdpSocket};
use volley::app::{App, Ctx, WorkerId};
use volley::datagram::{Datagram, SendError};
use volley::engine::config::{Io, Numbers};
use volley::engine::{Config, Engine};
use volley::net::Path;
use volley_testlab::{Lab, require_root};

/// Does what the first word of a datagram says, and tells the one who said it.
#[derive(Default)]
struct Butler {
    /// Who waits for a timer, by its key.
    waiting: Vec<Path>,
    /// A stranger to send to, until the link layer knows them.
    stranger: Option<Path>,
    ticks: u64,
}

enum Errand {
    /// Say this to them.
    Tell(Path, String),
    /// Take this to worker 0.
    Pass(Path),
}

impl App for Butler {
    type Msg = Errand;

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, Errand>) {
        let path = datagram.path();
        match datagram.payload() {
            b"timer" => {
                self.waiting.push(path);
                assert!(ctx.timer(ctx.now().ns + 20_000_000, self.waiting.len() as u64 - 1).is_some());
            }
            b"post" => assert!(ctx.post(WorkerId(1), Errand::Pass(path)).is_ok()),
            b"job" => {
                let job = move || Errand::Tell(path, std::thread::current().name().unwrap_or("").into());
                assert!(ctx.offload(job).is_ok());
            }
            b"ticks" => datagram.reply_with(self.ticks.to_string().as_bytes()),
            // An address to send to, unasked and unheard of.
            other => {
                let to: SocketAddr = std::str::from_utf8(other).unwrap().parse().unwrap();
                self.stranger = Path::to(0, path.local(), to);
            }
        }
    }

    fn on_timer(&mut self, key: u64, ctx: &mut Ctx<'_, Errand>) {
        ctx.send(&self.waiting[key as usize], b"time is up").unwrap();
    }

    fn on_tick(&mut self, _: u64, ctx: &mut Ctx<'_, Errand>) {
        self.ticks += 1;
        if let Some(path) = self.stranger {
            match ctx.send(&path, b"hello, stranger") {
                Ok(()) => self.stranger = None,
                Err(error) => assert_eq!(error, SendError::Unresolved),
            }
        }
    }

    fn on_post(&mut self, errand: Errand, ctx: &mut Ctx<'_, Errand>) {
        match errand {
            Errand::Pass(path) => {
                let said = format!("by worker {}", ctx.worker().0);
                assert!(ctx.post(WorkerId(0), Errand::Tell(path, said)).is_ok());
            }
            Errand::Tell(path, what) => ctx.send(&path, what.as_bytes()).unwrap(),
        }
    }
}

fn hear(socket: &UdpSocket) -> String {
    let mut buffer = [0; 128];
    let len = socket.recv(&mut buffer).expect("an answer");
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

#[test]
fn timers_posts_jobs_and_unasked_sends_reach_the_peer() {
    if !require_root() {
        return;
    }
    for io in [Io::AfXdp, Io::Mmsg] {
        let lab = Lab::new(2);
        let config = Config {
            interface: (io == Io::AfXdp).then(|| lab.engine_if().into()),
            require_xdp: io == Io::AfXdp,
            io,
            workers: Some(2),
            // Worker 0 has the queue that everything is sent from again.
            queues: (io == Io::AfXdp).then(|| Numbers(vec![0, 1])),
            pin: false,
            tick_hz: 100,
            ..Config::default()
        };
        let engine = lab.engine().run(|| Engine::start(config, |_| Butler::default()).unwrap());
        for family in FAMILIES {
            let client = socket(&lab, family, PORT);
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(b"timer").unwrap();
            assert_eq!(hear(&client), "time is up");
            client.send(b"post").unwrap();
            assert_eq!(hear(&client), "by worker 1");
            client.send(b"job").unwrap();
            assert_eq!(hear(&client), "volley-helper");
            client.send(b"ticks").unwrap();
            assert!(hear(&client).parse::<u64>().unwrap() > 0);
            // Somebody who has never said a word.
            let stranger = lab.peer().run(|| UdpSocket::bind((family.1, 0)).unwrap());
            stranger.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(stranger.local_addr().unwrap().to_string().as_bytes()).unwrap();
            assert_eq!(hear(&stranger), "hello, stranger");
        }
        let report = engine.stop().unwrap();
        assert!(report.total.ledger_balances, "{report}");
        assert_eq!((report.total.sent, report.total.dropped), (8, 0), "{report}");
    }
}
