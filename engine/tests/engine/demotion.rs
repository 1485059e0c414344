//! Queues that stall while traffic runs, and queues that cannot be bound: the engine steps down, and the app does not notice.

use crate::peer::{FAMILIES, PORT, assert_answers, assert_kernel_has_the_rest, socket};
use crate::running::{PATIENCE, Running, VOLLEY};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use volley::app::tcp::TcpEcho;
use volley::app::{App, Beside, Ctx, Echo, WorkerId};
use volley::datagram::Datagram;
use volley::engine::config::{Numbers, Ports, Tcp, TcpIo};
use volley::engine::ladder::Rung;
use volley::engine::{Config, Engine, Notice, Report};
use volley::net::Path;
use volley::port::af_xdp::{AfXdp, AfXdpConfig};
use volley::stream::{CloseReason, Peer, StreamEvent};
use volley_testlab::{Lab, require_root};

/// An app with a state that would be missed: it counts, and it remembers who came first.
struct Memory {
    worker: WorkerId,
    seen: u64,
    first: Option<Path>,
}

impl App for Memory {
    type Msg = ();

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, ()>) {
        self.seen += 1;
        let first = *self.first.get_or_insert(datagram.path());
        if datagram.payload() == b"remember" {
            // Over the port on which they came, whatever that is now.
            assert_eq!(ctx.send(&first, b"you came first"), Ok(()));
        }
        let answer = format!("{} {}", self.worker.0, self.seen);
        datagram.reply_with(answer.as_bytes());
    }
}

/// Eight flows in each family, their answers held against what was answered before.
struct Clients {
    sockets: Vec<UdpSocket>,
    /// The last count each worker has told each of them.
    seen: Vec<[u64; 2]>,
    answers: u64,
    greeted: u64,
}

impl Clients {
    fn new(lab: &Lab) -> Clients {
        let sockets: Vec<_> = FAMILIES
            .into_iter()
            .flat_map(|family| (0..8).map(move |_| socket(lab, family, PORT)))
            .collect();
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        Clients { seen: vec![[0; 2]; sockets.len()], sockets, answers: 0, greeted: 0 }
    }

    /// Everybody asks once, and hears what has come.
    fn round(&mut self, question: &[u8]) {
        for socket in &self.sockets {
            let _ = socket.send(question);
        }
        std::thread::sleep(Duration::from_millis(5));
        let mut buffer = [0; 64];
        for (socket, flow) in self.sockets.iter().zip(&mut self.seen) {
            while let Ok(len) = socket.recv(&mut buffer) {
                let answer = std::str::from_utf8(&buffer[..len]).unwrap();
                if answer == "you came first" {
                    self.greeted += 1;
                    continue;
                }
                let (worker, seen) = answer.split_once(' ').unwrap();
                let (worker, seen): (usize, u64) = (worker.parse().unwrap(), seen.parse().unwrap());
                // Packets of one flow may overtake one another by a few; a fresh app would begin at one.
                let last = &mut flow[worker];
                assert!(seen + 200 > *last, "worker {worker} forgot: {seen} after {last}");
                *last = seen.max(*last);
                self.answers += 1;
            }
        }
    }

    /// Rounds until so many more answers have come.
    fn answered(&mut self, more: u64) {
        let (until, wanted) = (Instant::now() + PATIENCE, self.answers + more);
        while self.answers < wanted {
            assert!(Instant::now() < until, "{} of {wanted} answers", self.answers);
            self.round(b"how many?");
        }
    }

    /// Rounds until the engine has something to say.
    fn notice(&mut self, engine: &Engine) -> Notice {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(notice) = engine.wait(Duration::from_millis(1)) {
                return notice;
            }
            assert!(Instant::now() < until, "no notice: {}", engine.report().unwrap());
            self.round(b"how many?");
        }
    }
}

/// Takes every socket out of the running program's map, as nobody but a fault would.
fn empty_the_socket_map(lab: &Lab) {
    let key = lab.engine().run(|| volley_xdp::Interface::find(lab.engine_if()).unwrap().key());
    let record = std::fs::read(format!("/run/volley/{key}/program.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let map = bpf::map(record["map_ids"][1].as_u64().unwrap() as u32);
    (0..2).for_each(|queue| bpf::delete(&map, queue));
}

/// The two bpf(2) commands that takes.
mod bpf {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
    const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;

    pub fn map(id: u32) -> OwnedFd {
        let mut attributes = [0u64; 16];
        attributes[0] = u64::from(id);
        // SAFETY: the head of `union bpf_attr` for this command is the number; the rest is zero.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_GET_FD_BY_ID,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        assert!(fd >= 0, "map {id}: {}", std::io::Error::last_os_error());
        // SAFETY: just made, ours alone.
        unsafe { OwnedFd::from_raw_fd(fd as i32) }
    }

    pub fn delete(map: &OwnedFd, key: u32) {
        let attributes = [map.as_raw_fd() as u64, &raw const key as u64, 0, 0];
        // SAFETY: the head of `union bpf_attr` for this command is the map and a pointer to the key, which lives.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_ELEM, attributes.as_ptr(), size_of_val(&attributes))
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

fn config(lab: &Lab) -> Config {
    Config {
        interface: Some(lab.engine_if().into()),
        workers: Some(2),
        queues: Some(Numbers(vec![0, 1])),
        pin: false,
        ..Config::default()
    }
}

/// Datagrams received over AF_XDP so far.
fn over_af_xdp(report: &Report) -> u64 {
    let ports = report.workers.iter().filter_map(|worker| worker.ports.first());
    ports.map(|port| port.counters.datagrams.received).sum()
}

#[test]
fn a_socket_map_that_is_emptied_takes_the_engine_down_rung_by_rung_and_the_app_goes_on() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let apps = Arc::new(AtomicU32::new(0));
    let made = Arc::clone(&apps);
    let app = move |worker| {
        made.fetch_add(1, Ordering::Relaxed);
        Memory { worker, seen: 0, first: None }
    };
    let engine = lab.engine().run(|| Engine::start(config(&lab), app).unwrap());
    let mut clients = Clients::new(&lab);
    clients.answered(200);
    assert_eq!(engine.report().unwrap().rung, Some(Rung::Copy));

    empty_the_socket_map(&lab);
    let Notice::Demoted { from: Rung::Copy, to: Rung::Generic, why } = clients.notice(&engine) else {
        panic!("another notice");
    };
    assert!(why.contains("has stalled") && why.contains("rx ring stays empty"), "{why}");
    // What comes now comes over AF_XDP again, behind the driver.
    let before = over_af_xdp(&engine.report().unwrap());
    let until = Instant::now() + PATIENCE;
    while over_af_xdp(&engine.report().unwrap()) < before + 200 {
        assert!(Instant::now() < until, "{}", engine.report().unwrap());
        clients.round(b"how many?");
    }
    let report = engine.report().unwrap();
    assert_eq!(
        (report.rung, &*report.xdp.as_ref().unwrap().mode),
        (Some(Rung::Generic), "generic"),
        "{report}"
    );

    empty_the_socket_map(&lab);
    let notice = clients.notice(&engine);
    assert!(matches!(notice, Notice::Demoted { from: Rung::Generic, to: Rung::Socket, .. }), "{notice}");
    clients.answered(200);
    // Paths of the first rung lead to the same peers on the last.
    let until = Instant::now() + PATIENCE;
    while clients.greeted == 0 {
        assert!(Instant::now() < until, "nobody was remembered");
        clients.round(b"remember");
    }
    let link = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
    assert!(!link.contains("xdp"), "kernel sockets need no program: {link}");
    let report = engine.stop().unwrap();
    assert_eq!(apps.load(Ordering::Relaxed), 2, "each worker kept its app");
    assert!(report.total.ledger_balances && report.total.ledger.app == 0, "{report}");
    assert_eq!(
        (report.io, report.rung, report.demotions.len()),
        ("mmsg", Some(Rung::Socket), 2),
        "{report}"
    );
    for step in &report.demotions {
        assert!(
            step.ledger.total > 0 && step.ledger.balances() && step.ledger.app == 0,
            "{step}: {}",
            step.ledger
        );
    }
    assert!(report.to_string().contains("stepped down: copy → generic: queue"), "{report}");
    assert!(report.workers.iter().all(|worker| worker.state == "drained"), "{report}");
}

/// Echoes streams, and notes how each ended.
struct Streams(Arc<Mutex<Vec<CloseReason>>>, TcpEcho);

impl App for Streams {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        if let StreamEvent::Closed(reason) = event {
            self.0.lock().unwrap().push(reason);
        }
        self.1.on_stream(peer, event, ctx);
    }
}

/// One exchange over a stream.
fn exchange(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"are you there?")?;
    stream.read_exact(&mut [0; 14])
}

#[test]
fn connections_of_our_own_tcp_end_with_a_reason_and_the_next_rung_takes_new_ones() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let ended: Arc<Mutex<Vec<CloseReason>>> = Arc::default();
    let note = Arc::clone(&ended);
    let app = move |_| Beside(Echo, Streams(Arc::clone(&note), TcpEcho::default()));
    let tcp = Some(Tcp { ports: Ports(PORT..=PORT), io: TcpIo::Own, ..Tcp::default() });
    let engine = lab.engine().run(|| Engine::start(Config { tcp, ..config(&lab) }, app).unwrap());
    // Between two rungs the port is the kernel's, which refuses.
    let connect = || {
        let (address, until) = ((volley_testlab::ENGINE_IPV4, PORT).into(), Instant::now() + PATIENCE);
        loop {
            match lab.peer().run(|| TcpStream::connect_timeout(&address, PATIENCE)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let streams: Vec<_> = (0..6).map(|_| connect()).collect();
    streams.iter().for_each(|stream| exchange(stream).unwrap());
    empty_the_socket_map(&lab);
    // Silence is no stall: somebody must say something that does not arrive.
    let clients: Vec<_> = (0..8).map(|_| socket(&lab, FAMILIES[0], PORT)).collect();
    let until = Instant::now() + PATIENCE;
    let notice = loop {
        if let Some(notice) = engine.wait(Duration::from_millis(5)) {
            break notice;
        }
        assert!(Instant::now() < until, "no notice: {}", engine.report().unwrap());
        clients.iter().for_each(|client| drop(client.send(b"are you there?")));
    };
    assert!(matches!(notice, Notice::Demoted { to: Rung::Generic, .. }), "{notice}");
    while ended.lock().unwrap().len() < streams.len() {
        assert!(Instant::now() < until, "{:?}", ended.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(ended.lock().unwrap().iter().all(|reason| *reason == CloseReason::SteppedDown));
    // The peers hear of it too, at the latest when they say something.
    for stream in &streams {
        assert!(exchange(stream).is_err(), "it goes on");
    }
    exchange(&connect()).unwrap();
    let report = engine.stop().unwrap();
    let total = report.total.streams;
    assert_eq!((total.stepped_down, total.accepted), (6, 7), "{report}");
    assert!(report.total.ledger_balances && report.total.ledger.app == 0, "{report}");
}

#[test]
fn required_xdp_is_not_given_up_and_the_command_fails_when_it_is_lost() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let arguments = ["--queues", "0-1", "--mode", "native", "--require", "xdp", "--no-pin"];
    let engine = Running::start(&lab, &arguments);
    assert_answers(&lab);
    let clients: Vec<_> = (0..8).map(|_| socket(&lab, FAMILIES[0], PORT)).collect();
    empty_the_socket_map(&lab);
    let until = Instant::now() + PATIENCE;
    let pid = engine.pid();
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "it still runs");
        clients.iter().for_each(|client| drop(client.send(b"are you there?")));
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = engine.ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("has stalled") && ended.said.contains("no step down"), "{}", ended.said);
}

#[test]
fn neither_silence_nor_what_is_not_ours_is_a_stall() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    // Queue 0 has no worker: what the kernel's hash puts there finds no socket, all the time.
    let config = Config { queues: Some(Numbers(vec![1])), workers: Some(1), ..config(&lab) };
    let engine = lab.engine().run(|| Engine::start(config, |_| Echo).unwrap());
    let calm = |what: &str, for_ms: u64, traffic: &mut dyn FnMut()| {
        let until = Instant::now() + Duration::from_millis(for_ms);
        while Instant::now() < until {
            traffic();
            if let Some(notice) = engine.wait(Duration::from_millis(10)) {
                panic!("{what}: {notice}");
            }
        }
    };
    assert_answers(&lab);
    calm("silence", 1_500, &mut || {});
    let stray: Vec<_> = (0..16).map(|_| socket(&lab, FAMILIES[0], 9)).collect();
    calm("the kernel's packets", 2_000, &mut || {
        stray.iter().for_each(|socket| drop(socket.send(b"not yours")))
    });
    // One flow, on the queue that nobody serves: try until one is there.
    let flow = loop {
        let unbound = || engine.report().unwrap().xdp.unwrap().counters["no_socket_pass"];
        let (before, flow) = (unbound(), socket(&lab, FAMILIES[0], PORT));
        let _ = flow.send(b"which queue?");
        let _ = flow.recv(&mut [0; 64]);
        if unbound() > before {
            break flow;
        }
    };
    calm("another queue's packets", 2_500, &mut || {
        stray.iter().for_each(|socket| drop(socket.send(b"not yours")));
        let _ = flow.send(b"mine");
    });
    // Without carrier nothing can move.
    lab.peer().exec(["ip", "link", "set", lab.peer_if(), "down"]);
    calm("no carrier", 1_500, &mut || {});
    lab.peer().exec(["ip", "link", "set", lab.peer_if(), "up"]);
    let report = engine.stop().unwrap();
    assert_eq!((report.rung, report.demotions.len()), (Some(Rung::Copy), 0), "{report}");
}

#[test]
fn queues_that_cannot_be_bound_take_the_engine_down_to_sockets_or_are_an_error() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(2);
    let holder = lab.engine().run(|| AfXdp::open(&AfXdpConfig::new(lab.engine_if(), [1])).unwrap());
    let mut command = Command::new(VOLLEY);
    command.args(["run", lab.engine_if(), "--netns", lab.engine_ns(), "--require", "xdp"]);
    let ended = Running::spawn(command).ended();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("queue 1 is bound by another AF_XDP socket"), "{}", ended.said);

    let engine = Running::start(&lab, &[]);
    assert_answers(&lab);
    assert_kernel_has_the_rest(&lab);
    let ended = engine.stop();
    assert_eq!((&ended.report["io"], &ended.report["rung"]), (&"mmsg".into(), &"socket".into()));
    let steps: Vec<_> = (0..2).map(|n| ended.report["demotions"][n]["to"].as_str()).collect();
    assert_eq!(steps, [Some("generic"), Some("socket")], "{:#}", ended.report);
    assert_eq!(ended.said.matches("copy → generic").count(), 1, "each step is said once: {}", ended.said);
    drop(holder);
}
