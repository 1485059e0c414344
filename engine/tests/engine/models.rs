//! Every app runs over every I/O model: the same traffic, the same answers, the same books. Without privilege, on loopback.

use crate::running::Running;
use clap::ValueEnum;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use volley::app::Sink;
use volley::datagram::socket::Spread;
use volley::engine::config::{Config, Io, Numbers, Ports};
use volley::engine::{Engine, Report};
use volley_testlab::free_port;

const MODELS: [&str; 8] = ["select", "poll", "epoll", "epoll-et", "mmsg", "gso", "io-uring", "mio"];

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
}

fn run(arguments: &[&str]) -> Running {
    let mut command = Command::new(crate::running::VOLLEY);
    command.args(["run", "--address", "127.0.0.1", "--no-pin"]).args(arguments);
    Running::spawn(command).ready()
}

/// Sends 300 datagrams of all sizes from 20 sockets and checks every answer, byte for byte.
fn every_answer(port: u16, what: &str) {
    let clients: Vec<_> = (0..20).map(|_| client(port)).collect();
    for round in 0..15u8 {
        let len = [0, 1, 64, 700, 1400][usize::from(round) % 5];
        let payload: Vec<u8> = (0..len).map(|at| at as u8 ^ round).collect();
        for client in &clients {
            client.send(&payload).unwrap();
        }
        for client in &clients {
            let mut buffer = [0; 2048];
            let len =
                client.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
            assert!(buffer[..len] == payload, "{what}, round {round}");
        }
    }
}

#[test]
fn an_echo_over_every_model_asleep_and_spinning() {
    for model in MODELS {
        for idle in ["sleep", "spin"] {
            let port = free_port();
            let engine = run(&["--io", model, "--port", &port.to_string(), "--idle", idle]);
            every_answer(port, model);
            let ended = engine.stop();
            let name = ended.report["workers"][0]["ports"][0]["name"].as_str().unwrap();
            assert!(name.starts_with(model), "{model}: {name}");
            assert_eq!(
                (ended.total("answered"), ended.total("dropped")),
                (300, 0),
                "{model}: {:#}",
                ended.report
            );
        }
    }
}

/// An engine in this process.
fn engine(io: Io, port: u16, change: impl FnOnce(&mut Config)) -> Engine {
    let mut config = Config {
        io,
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ports: Ports(port..=port),
        pin: false,
        ..Config::default()
    };
    change(&mut config);
    Engine::start(config, |_| Sink).unwrap()
}

/// Waits until the engine's report says what it should.
fn until(engine: &Engine, what: &str, done: impl Fn(&Report) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let report = engine.report().unwrap();
        if done(&report) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {report}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_sink_takes_everything_over_every_model() {
    for model in MODELS {
        let port = free_port();
        let engine = engine(Io::from_str(model, false).unwrap(), port, |_| ());
        let client = client(port);
        (0..100).for_each(|_| _ = client.send(b"nobody answers").unwrap());
        until(&engine, model, |report| report.total.consumed == 100);
        let report = engine.stop().unwrap();
        assert_eq!((report.total.answered, report.total.dropped), (0, 0), "{model}: {report}");
        assert!(report.total.ledger_balances, "{model}: {report}");
    }
}

#[test]
fn several_workers_share_a_port_however_it_is_spread() {
    for model in MODELS {
        for spread in [Spread::Hash, Spread::Address, Spread::Cpu, Spread::IncomingCpu] {
            let port = free_port();
            let engine = engine(Io::from_str(model, false).unwrap(), port, |config| {
                config.workers = Some(3);
                config.sockets.spread = spread;
            });
            // 60 flows from one address, and 20 addresses.
            let flows = (0..60).map(|_| client(port));
            let hosts = (1..21).map(|host| {
                let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, 2, host), 0)).unwrap();
                socket.connect(("127.0.0.1", port)).unwrap();
                socket
            });
            let what = format!("{model}, {spread:?}");
            let shares = |engine: &Engine| -> Vec<u64> {
                let report = engine.report().unwrap();
                report.workers.iter().map(|worker| worker.ports[0].counters.datagrams.received).collect()
            };
            flows.for_each(|socket| _ = socket.send(b"x").unwrap());
            until(&engine, &what, |report| report.total.consumed == 60);
            let of_flows = shares(&engine);
            hosts.for_each(|socket| _ = socket.send(b"x").unwrap());
            until(&engine, &what, |report| report.total.consumed == 80);
            let of_both = shares(&engine);
            let served = |shares: &[u64]| shares.iter().filter(|share| **share > 0).count();
            match (model, spread) {
                // Not attached: mio's sockets are spread as the system does it.
                ("mio", _) | (_, Spread::Hash) => assert_eq!(served(&of_flows), 3, "{what}: {of_flows:?}"),
                (_, Spread::Address) => {
                    assert_eq!(served(&of_flows), 1, "{what}: one host, one worker: {of_flows:?}");
                    assert_eq!(served(&of_both), 3, "{what}: many hosts, all workers: {of_both:?}");
                }
                // Wherever this test happened to run.
                (_, Spread::Cpu | Spread::IncomingCpu) => {}
            }
            assert!(engine.stop().unwrap().total.ledger_balances, "{what}");
        }
    }
}

/// Runs `work` on one core.
fn on_core(core: usize, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            volley::worker::affinity::pin(core).unwrap();
            work();
        });
    });
}

#[test]
fn a_packet_is_served_on_the_core_that_received_it() {
    let cores = volley::worker::affinity::allowed();
    assert!(cores.len() > 1, "this needs two cores, and so does a server");
    for spread in [Spread::Cpu, Spread::IncomingCpu] {
        let port = free_port();
        // Worker 0 on the second core: not what counting them would give.
        let order = [cores[1] as u16, cores[0] as u16];
        let engine = engine(Io::Mmsg, port, |config| {
            config.workers = Some(2);
            config.pin = true;
            config.cores = Numbers(order.to_vec());
            config.sockets.spread = spread;
        });
        for (worker, core) in order.iter().enumerate() {
            let before = engine.report().unwrap();
            // On loopback, the core that sends is the core that receives.
            on_core(usize::from(*core), || {
                (0..50).for_each(|_| _ = client(port).send(b"x").unwrap());
            });
            until(&engine, "all arrive", |report| report.total.received == before.total.received + 50);
            let received = |report: &Report| report.workers[worker].ports[0].counters.datagrams.received;
            let after = engine.report().unwrap();
            assert_eq!(received(&after) - received(&before), 50, "{spread:?}, core {core}: {after}");
        }
    }
}

#[test]
fn select_says_where_its_limit_is() {
    // In a process of its own: in this one, the other tests' sets would end there too. The shell takes every descriptor below, where
    // a fork of ours would leave those free that close on exec.
    let take = r#"for ((fd = 3; fd < 1100; fd++)); do eval "exec $fd<&0"; done; exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", take, "bash", crate::running::VOLLEY]);
    command.args(["run", "--io", "select", "--no-pin", "--address", "127.0.0.1"]);
    command.args(["--port", &free_port().to_string()]);
    let mut engine = Running::spawn(command);
    assert!(!engine.wait_for("volley: ready"), "select watches a descriptor above 1,023");
    let said = engine.ended().said;
    assert!(said.contains("its sets end at 1024") && said.contains("--io poll or epoll"), "{said}");
}

#[test]
fn the_limit_of_descriptors_is_named_under_every_model() {
    for model in MODELS {
        let mut command = Command::new("prlimit");
        command.args(["--nofile=40:40", crate::running::VOLLEY, "run", "--io", model, "--no-pin"]);
        command.args(["--address", "127.0.0.1", "--port", "20000-20099"]);
        let mut engine = Running::spawn(command);
        assert!(!engine.wait_for("volley: ready"), "{model}: 100 sockets of 40 descriptors");
        let ended = engine.ended();
        assert_eq!(ended.code, Some(1), "{model}: {}", ended.said);
        assert!(ended.said.contains("no more than 40 descriptors"), "{model}: {}", ended.said);
        assert!(ended.said.contains("ulimit -n"), "{model}: {}", ended.said);
    }
}

/// Makes the kernel refuse io_uring_setup with EPERM to a command, as the seccomp profiles of container runtimes do.
fn forbid_io_uring(command: &mut Command) {
    use nix::libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EPERM, PR_SET_NO_NEW_PRIVS,
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_io_uring_setup,
        prctl, sock_filter, sock_fprog,
    };
    let operation = |code: u32, jf: u8, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
    let program = [
        // The number of the system call.
        operation(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        operation(BPF_JMP | BPF_JEQ | BPF_K, 1, SYS_io_uring_setup as u32),
        operation(BPF_RET | BPF_K, 0, SECCOMP_RET_ERRNO | EPERM as u32),
        operation(BPF_RET | BPF_K, 0, SECCOMP_RET_ALLOW),
    ];
    let forbid = move || {
        let program = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: two system calls, which copy what they are given.
        let done = unsafe {
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes system calls only.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, forbid) };
}

#[test]
fn a_kernel_that_refuses_io_uring_is_an_error_that_names_the_way_out() {
    for (io, refused) in [("io-uring", true), ("mmsg", false)] {
        let mut command = Command::new(crate::running::VOLLEY);
        command.args(["run", "--io", io, "--no-pin", "--address", "127.0.0.1"]);
        command.args(["--port", &free_port().to_string()]);
        forbid_io_uring(&mut command);
        let mut engine = Running::spawn(command);
        assert_eq!(engine.wait_for("volley: ready"), !refused, "{io}: {}", engine.said());
        if refused {
            let ended = engine.ended();
            assert_eq!(ended.code, Some(1), "{}", ended.said);
            for part in ["io_uring_setup", "not permitted", "Linux 6.1", "choose --io mmsg"] {
                assert!(ended.said.contains(part), "{part}: {}", ended.said);
            }
        }
    }
}
