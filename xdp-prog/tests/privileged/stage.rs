//! What the tests stand on: a lab, a holder process in it, traffic through it.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use volley_testlab::Lab;
use volley_xdp::{Action, AttachError, AttachOptions, Counter, Protocol, Rule, Steering, Unbound, load};

/// Capabilities that are enough, for `setpriv --bounding-set`: root gets no others from there.
pub const LEAST: &str = "-all,+net_admin,+bpf,+net_raw,+ipc_lock";

/// Longest wait for something that happens at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn options(lab: &Lab) -> AttachOptions {
    AttachOptions { interface: lab.engine_if().to_owned(), ..AttachOptions::default() }
}

pub fn attach(lab: &Lab) -> Result<Steering, AttachError> {
    lab.engine().run(|| Steering::attach(&options(lab)))
}

/// `volley load`, and `volley unload` when the test ends, however it ends.
pub struct Pinned<'a>(pub &'a Lab);

impl<'a> Pinned<'a> {
    pub fn load(lab: &'a Lab) -> (Pinned<'a>, load::Loaded) {
        let loaded = lab.engine().run(|| load::load(&options(lab), false)).unwrap();
        (Pinned(lab), loaded)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let _ = self.0.engine().run(|| load::unload(self.0.engine_if(), true));
    }
}

/// The number of the program that runs on the engine's interface.
pub fn program_on(lab: &Lab) -> Option<u32> {
    let text = lab.engine().exec(["ip", "-d", "link", "show", "dev", lab.engine_if()]);
    let (_, rest) = text.split_once("prog/xdp")?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Waits until `done` holds.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn udp(ports: std::ops::RangeInclusive<u16>, action: Action) -> Rule {
    Rule { protocol: Protocol::Udp, ports, addresses: Vec::new(), action, syn_limit: None }
}

pub const REDIRECT_ELSE_DROP: Action = Action::Redirect { unbound: Unbound::Drop };

pub fn count(steering: &Steering, counter: Counter) -> u64 {
    steering.counters().unwrap().get(counter)
}

/// A kernel socket at each end of the lab.
pub struct Sockets {
    pub engine: UdpSocket,
    pub peer: UdpSocket,
}

impl Sockets {
    /// The engine's on `port`, the peer's connected to it.
    pub fn on(lab: &Lab, port: u16) -> Sockets {
        let engine = lab.engine().run(|| UdpSocket::bind(("10.77.0.1", port)).unwrap());
        engine.set_read_timeout(Some(PATIENCE)).unwrap();
        let peer = lab.peer().run(|| {
            let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
            socket.connect(("10.77.0.1", port)).unwrap();
            socket
        });
        Sockets { engine, peer }
    }

    /// Sends one datagram and waits for it at the engine's kernel socket.
    #[track_caller]
    pub fn assert_delivered(&self) {
        self.peer.send(b"hello").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(self.engine.recv(&mut buffer).unwrap(), 5);
    }

    /// True when nothing waits at the engine's kernel socket.
    pub fn is_silent(&self) -> bool {
        self.engine.set_nonblocking(true).unwrap();
        let silent = self.engine.recv(&mut [0; 64]).is_err();
        self.engine.set_nonblocking(false).unwrap();
        silent
    }
}

/// A `volley-xdp-holder` process in the engine's namespace; killed with the test.
pub struct Holder {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Holder {
    pub fn start(lab: &Lab, capabilities: Option<&str>, arguments: &[&str]) -> Holder {
        let holder = env!("CARGO_BIN_EXE_volley-xdp-holder");
        let mut command = match capabilities {
            None => lab.engine().command(holder),
            Some(set) => {
                let mut command: Command = lab.engine().command("setpriv");
                command.arg(format!("--bounding-set={set}")).arg(holder);
                command
            }
        };
        command.arg(lab.engine_if()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Holder { child, lines }
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The program's number in its first line.
    #[track_caller]
    pub fn attached(&mut self) -> u32 {
        let line = self.line();
        let id = line.strip_prefix("attached ").and_then(|rest| rest.split(' ').next());
        id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("the holder says: {line}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in order and returns its log.
    pub fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.child.wait().unwrap();
        log
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
