//! `volley run --io dpdk` as a process: what it says, and what it leaves behind.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

pub const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");

/// Longest to wait for a process to start or end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `volley run --io dpdk --no-huge`. Killed when dropped.
pub struct Running {
    child: Child,
    said: BufReader<ChildStderr>,
    text: String,
    report: PathBuf,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.json");
        let mut command = Command::new(VOLLEY);
        command.args(["run", "--io", "dpdk", "--no-huge", "--memory", "64", "--no-pin"]);
        if !arguments.contains(&"--frames") {
            command.args(["--frames", "2048"]);
        }
        command.args(arguments).arg("--report").arg(&report);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        while !text.contains("ready: ") {
            let more = said.read_line(&mut text).unwrap();
            assert!(more > 0, "{arguments:?} does not start: {text}");
        }
        Running { child, said, text, report, _directory: directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
    }

    /// Stops it as a user does, and gives its report. It must end well.
    #[track_caller]
    pub fn stop(self) -> serde_json::Value {
        self.stop_and_hear().0
    }

    /// As [`Running::stop`], with all it has said.
    #[track_caller]
    pub fn stop_and_hear(mut self) -> (serde_json::Value, String) {
        self.signal(nix::libc::SIGINT);
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "it does not stop"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.said.read_to_string(&mut self.text).unwrap();
        assert!(status.success(), "{status}: {}", self.text);
        let report = std::fs::read_to_string(&self.report).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["total"]["ledger_balances"], true, "{report}");
        assert_eq!(report["dpdk"]["mbufs_missing"], 0, "{report}");
        assert_eq!(report["workers"][0]["state"], "drained", "{report}");
        (report, std::mem::take(&mut self.text))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it for as long as it wants to, which is not long: it must fail. What it said.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(VOLLEY);
    command.args(["run", "--io", "dpdk", "--duration", "5"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// One line, that says `words`.
#[track_caller]
fn assert_sentence(said: &str, words: &[&str]) {
    assert_eq!(said.lines().count(), 1, "more than a sentence: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

/// What EAL and the engine keep for a process.
pub fn traces(pid: u32) -> Vec<PathBuf> {
    let look = |directory: &str, has: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(has))
            .collect::<Vec<_>>()
    };
    let mut found = look("/var/run/dpdk", &format!("volley-{pid}"));
    found.extend(look("/run/volley", &format!(".{pid}.")));
    found.extend(look("/dev/hugepages", &format!("volley-{pid}")));
    found
}

#[test]
fn what_cannot_be_is_one_sentence_with_a_remedy() {
    assert_sentence(&refused(&[]), &["--pci", "--vdev"]);
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_null0", "--address", "224.0.0.1/4"]),
        &["224.0.0.1"],
    );
    let off_link =
        ["--no-huge", "--vdev", "net_null0", "--address", "10.0.0.1/24", "--gateway", "10.1.0.1"];
    assert_sentence(&refused(&off_link), &["gateway 10.1.0.1"]);
    assert_sentence(&refused(&["--no-huge", "--pci", "eth0"]), &["no PCI address", "lspci -D"]);
    assert_sentence(
        &refused(&["--no-huge", "--pci", "0000:ff:1f.7"]),
        &["no PCI device 0000:ff:1f.7", "here are"],
    );
    assert_sentence(&refused(&["--no-huge", "--vdev", "net_nonsense0"]), &["net_nonsense0 is no port"]);
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_pcap0,rx_pcap=/no/such.pcap"]),
        &["net_pcap0", "/no/such.pcap"],
    );
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_null0", "--eal", "--no-such-flag"]),
        &["DPDK does not start"],
    );
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_null0", "--queues", "0-4999"]),
        &["net_null0", "queues"],
    );
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_null0", "--queues", "1-2"]),
        &["queue", "from 0 on"],
    );
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_ring0", "--frames", "1000000"]),
        &["no memory", "--memory"],
    );
    assert_sentence(
        &refused(&["--no-huge", "--vdev", "net_ring0", "--chunk", "128"]),
        &["net_ring0", "headroom"],
    );
}

/// Huge pages for a test, on top of those there are; given back at the end.
struct HugePages {
    pages: u32,
    _turn: volley_testlab::Turn,
}

impl HugePages {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    fn reserve(pages: u32) -> HugePages {
        let turn = volley_testlab::turn_at("huge-pages");
        HugePages::change(i64::from(pages));
        HugePages { pages, _turn: turn }
    }

    fn change(by: i64) {
        let now: i64 = std::fs::read_to_string(Self::COUNT).unwrap().trim().parse().unwrap();
        std::fs::write(Self::COUNT, (now + by).max(0).to_string()).unwrap();
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        HugePages::change(-i64::from(self.pages));
    }
}

#[test]
fn huge_pages_and_a_file_prefix_are_taken_and_given_back() {
    if !volley_testlab::require_root() {
        return;
    }
    // A machine without any: as a mount namespace of its own sees it.
    let none = "mount -t tmpfs none /sys/kernel/mm/hugepages && exec \"$@\"";
    let volley = [VOLLEY, "run", "--io", "dpdk", "--vdev", "net_null0", "--no-pin"];
    let inside = |script: &str, more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).args(volley).args(more).stdin(Stdio::null());
        command
    };
    let output = inside(none, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_sentence(&String::from_utf8(output.stderr).unwrap(), &["no free huge pages", "vm.nr_hugepages"]);

    let _pages = HugePages::reserve(96);
    let prefix = format!("volley-test-{}", std::process::id());
    let mounted = "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && exec \"$@\"";
    let named = ["--file-prefix", &prefix, "--frames", "2048", "--memory", "32"];
    let mut first = inside(mounted, &named).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(first.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("ready: ") {
        assert!(said.read_line(&mut text).unwrap() > 0, "it does not start: {text}");
    }
    let runtime = Path::new("/var/run/dpdk").join(&prefix);
    assert!(runtime.exists());
    // Another engine cannot have that name; with one of its own it runs beside.
    let output = inside(mounted, &named).output().unwrap();
    let refused = String::from_utf8(output.stderr).unwrap();
    assert_sentence(&refused, &["another DPDK process", &prefix, "--file-prefix"]);
    assert!(runtime.exists(), "the first one's directory is left alone");
    let other = format!("{prefix}b");
    let beside = ["--file-prefix", &other, "--frames", "2048", "--memory", "32", "--duration", "0.2"];
    // And leaves no file in its hugetlbfs, which is gone with its shell.
    let swept = "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && \"$@\" && test -z \"$(ls -A /dev/hugepages)\"";
    let output = inside(swept, &beside).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let pid = nix::unistd::Pid::from_raw(first.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(first.wait().unwrap().success());
    for gone in [&prefix, &other] {
        assert!(!Path::new("/var/run/dpdk").join(gone).exists(), "{gone} is left behind");
    }
}

#[test]
fn what_another_engine_has_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let memif =
        format!("net_memif0,role=server,socket-abstract=no,socket={}/m", directory.path().display());
    let vhost = format!("net_vhost0,iface={}/v", directory.path().display());
    let engine = Running::start(&["--vdev", &memif, "--vdev", &vhost]);
    assert_sentence(
        &refused(&["--no-huge", "--vdev", &memif]),
        &["net_memif0", "another process", "socket="],
    );
    assert_sentence(&refused(&["--no-huge", "--vdev", &vhost]), &["net_vhost0"]);
    engine.stop();
}

#[test]
fn a_signal_leaves_nothing_and_a_kill_little() {
    let socket = std::env::temp_dir().join(format!("volley-test-{}.memif", std::process::id()));
    let device = format!("net_memif0,role=server,id=0,socket-abstract=no,socket={}", socket.display());
    let engine = Running::start(&["--vdev", &device]);
    let pid = engine.pid();
    assert!(socket.exists(), "the memif socket is there");
    assert_eq!(traces(pid).len(), 2, "the runtime directory and the status socket: {:?}", traces(pid));
    // What `volley status` shows meanwhile.
    let status = Command::new(VOLLEY).args(["status"]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains(&format!("pid {pid}")) && status.contains("net_memif0 (net_memif): link down"),
        "{status}"
    );
    let report = engine.stop();
    assert_eq!(report["io"], "dpdk");
    assert_eq!(traces(pid), Vec::<PathBuf>::new());
    assert!(!Path::new(&socket).exists(), "the memif socket is still there");
}

#[test]
fn sockets_of_killed_engines_are_not_in_the_way_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let memif = format!("net_memif0,role=server,socket-abstract=no,socket={}", at("m").display());
    let vhost = format!("net_vhost0,iface={}", at("v").display());
    // Dropped, an engine is killed.
    drop(Running::start(&["--vdev", &memif, "--vdev", &vhost]));
    assert!(at("m").exists() && at("v").exists(), "what SIGKILL leaves");
    Running::start(&["--vdev", &memif, "--vdev", &vhost]).stop();
    assert!(!at("m").exists() && !at("v").exists());
}

#[test]
fn a_signal_ends_a_start_that_waits_for_the_other_end() {
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let socket = std::env::temp_dir().join(format!("volley-test-{}-{signal}.sock", std::process::id()));
        let device = format!("net_virtio_user0,path={},server=1", socket.display());
        let child = Command::new(VOLLEY)
            .args(["run", "--io", "dpdk", "--no-huge", "--memory", "64", "--vdev", &device])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let until = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}: {said}", output.status);
        assert_sentence(
            said.lines().last().unwrap_or_default(),
            &["stopped before it was ready", "net_virtio_user0", "its other end"],
        );
        assert!(!socket.exists(), "the socket is still there");
        assert_eq!(traces(pid), Vec::<PathBuf>::new());
    }
}

#[test]
fn two_engines_run_side_by_side() {
    let engines =
        [["net_null0,copy=1"], ["net_null0,copy=1"]].map(|device| Running::start(&["--vdev", device[0]]));
    std::thread::sleep(Duration::from_millis(200));
    let pids = engines.each_ref().map(Running::pid);
    for (engine, pid) in engines.into_iter().zip(pids) {
        let report = engine.stop();
        assert!(report["dpdk"]["steered"]["ethertype"].as_u64() > Some(1000), "{report}");
        assert_eq!(report["total"]["received"], 0);
        assert!(report["total"]["dropped"].as_u64() > Some(1000), "what net_null makes up is no datagram");
        assert_eq!(traces(pid), Vec::<PathBuf>::new());
    }
}

#[test]
fn several_devices_and_queues_are_dealt_to_workers() {
    let engine =
        Running::start(&["--vdev", "net_null0,copy=1", "--vdev", "net_null1,copy=1", "--workers", "2"]);
    std::thread::sleep(Duration::from_millis(200));
    let report = engine.stop();
    assert_eq!(report["dpdk"]["devices"].as_array().map(Vec::len), Some(2));
    for worker in 0..2 {
        let ports = report["workers"][worker]["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 2, "a queue of each device");
        for port in ports {
            assert!(port["port"]["rx_frames"].as_u64() > Some(0), "{port}");
        }
    }
}

#[test]
fn a_file_says_what_flags_say() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        &file,
        "io = 'dpdk'\nports = '7777-7778'\npin = false\n[dpdk]\nvdev = ['net_null0,copy=1']\nmemory = 'no-huge'\nmegabytes = 64\nframes = 2048\n",
    )
    .unwrap();
    let engine = Running::start(&["--config", file.path().to_str().unwrap()]);
    let report = engine.stop();
    assert_eq!(report["ports"], "7777-7778");
    assert_eq!(report["dpdk"]["devices"][0]["driver"], "net_null");
}

#[test]
fn the_doctor_says_what_a_device_has_and_what_is_on() {
    let doctor = |arguments: &[&str]| {
        let output = Command::new(VOLLEY).args(["doctor", "--dpdk"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(doctor(&[]).contains("PCI network devices: "));
    let text = doctor(&["--no-huge", "--vdev", "net_null0"]);
    assert!(text.contains("net_null0 (net_null)") && text.contains("rss indirection table"), "{text}");
    let text = doctor(&["--no-huge", "--json", "--vdev", "net_null0", "--queues", "0-1"]);
    let tables: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = tables[0]["rows"].as_array().unwrap();
    let row = |what: &str| {
        rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what} in {text}"))
    };
    assert_eq!((&row("queues")["on"], &row("rx timestamp")["has"]), (&"2".into(), &"no".into()));
}
