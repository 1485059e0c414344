//! `volley-bench demo` as a person runs it: to its end, interrupted, killed. Needs root; over loopback it needs nothing.
#![cfg(target_os = "linux")]

mod program;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::volley;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use volley_testlab::require_root;

/// A demo with a lab, a port and a directory of its own.
struct Demo {
    lab: String,
    port: u16,
    out: TempDir,
}

impl Demo {
    fn new() -> Demo {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Demo {
            lab: format!("vd{:x}-{number:x}", std::process::id()),
            port: volley_testlab::free_port(),
            out: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volley-bench"));
        command.args(["demo", "--seconds", "0.3", "--lab", &self.lab, "--port", &self.port.to_string()]);
        command.arg("--volley").arg(volley()).arg("--out").arg(self.out.path()).args(arguments);
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.out.path().join("report.json")).unwrap()).unwrap()
    }

    /// Namespaces and processes whose name holds the lab's; the state file of its lab.
    fn left_behind(&self) -> Vec<String> {
        let mut found: Vec<String> = ["/run/netns", "/sys/class/net", "/run/volley/lab"]
            .into_iter()
            .flat_map(|directory| names(directory).map(move |name| format!("{directory}/{name}")))
            .filter(|path| path.contains(&self.lab))
            .collect();
        for process in names("/proc") {
            let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            // The engine is known by the interface it serves, the generator by where it writes its report.
            if words.contains(&self.lab) || words.contains(&*self.out.path().to_string_lossy()) {
                found.push(words);
            }
        }
        found
    }

    /// Processes take a moment to end after their parent was killed.
    fn wait_until_processes_are_gone(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.left_behind().iter().any(|path| !path.starts_with('/')) {
            assert!(Instant::now() < until, "left behind: {:?}", self.left_behind());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The names in a directory; none when there is no such directory.
fn names(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn wait(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < until, "the demo does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads its output up to the line that contains `text`.
fn wait_for(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(text)), "the demo never said {text:?}");
    // Whoever closes the other end of a pipe kills the writer: go on reading.
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn over_loopback_it_needs_no_privileges() {
    let demo = Demo::new();
    let output = demo.command(&["--loopback"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("loopback") && said.contains("every byte checked"), "{said}");
    let report = demo.report();
    assert_eq!(report["server"], "mmsg");
    assert_eq!(report["fixed"][0]["measured"]["corrupted"], 0);
    assert!(report["tcp"][0]["messages"].as_u64().unwrap() > 0, "{said}");
    assert!(report["fixed"][0]["measured"]["received"].as_u64().unwrap() > 0);
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[test]
fn over_af_xdp_it_reports_and_removes_everything() {
    if !require_root() {
        return;
    }
    let demo = Demo::new();
    let output = demo.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report = demo.report();
    assert_eq!(report["server"], "af-xdp", "{said}");
    assert_eq!(report["failures"], serde_json::json!([]));
    assert_eq!(report["engine"]["total"]["ledger_balances"], true);
    assert_eq!(report["flat_out"].as_array().unwrap().len(), 3, "IPv4, IPv6, and kernel sockets");
    for fixed in report["fixed"].as_array().unwrap() {
        assert!(fixed["measured"]["received"].as_u64().unwrap() > 0, "{fixed}");
    }
    let tcp = report["tcp"].as_array().unwrap();
    assert!(tcp.len() == 2 && tcp.iter().all(|run| run["messages"].as_u64().unwrap() > 0), "{said}");
    assert!(said.contains("over our own TCP"), "{said}");
    let bystanders = report["bystanders"].as_array().unwrap();
    assert_eq!(bystanders.len(), 4, "ping and a kernel socket, IPv4 and IPv6");
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

/// Pages of 2 MiB from the kernel's pool, kept for a mapping that nobody touches until this is dropped.
#[cfg(feature = "dpdk")]
struct Taken(std::ptr::NonNull<std::ffi::c_void>, usize);

#[cfg(feature = "dpdk")]
impl Taken {
    fn pages(count: usize) -> Taken {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        let (bytes, flags) =
            (count << 21, MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB);
        // SAFETY: a new mapping, where the kernel likes.
        let mapped =
            unsafe { mmap_anonymous(None, bytes.try_into().unwrap(), ProtFlags::PROT_READ, flags) };
        Taken(mapped.unwrap(), bytes)
    }
}

#[cfg(feature = "dpdk")]
impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: mapped above, with that length, and nobody looks into it.
        unsafe { nix::sys::mman::munmap(self.0, self.1) }.unwrap();
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn over_dpdk_it_reports_and_gives_the_huge_pages_back() {
    if !require_root() {
        return;
    }
    let pages = || {
        ["nr_hugepages", "nr_overcommit_hugepages"]
            .map(|name| fs::read(format!("/proc/sys/vm/{name}")).unwrap())
    };
    let _turn = volley_testlab::turn_at("huge-pages");
    let (demo, before) = (Demo::new(), pages());
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley-bench"));
    // How fast a debug build is on a busy machine is nobody's business.
    command.args(["demo-dpdk", "--seconds", "1", "--at-least", "1", "--volley"]).arg(volley());
    command.arg("--out").arg(demo.out.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = String::new();
    while !said.contains("the engine listens") {
        let Some(line) = lines.next() else {
            let output = child.wait_with_output().unwrap();
            panic!("the engine does not start: {said}{}", String::from_utf8_lossy(&output.stderr));
        };
        said += &line;
    }
    // Somebody else takes pages from the same pool, as each engine and generator over AF_XDP does.
    let taken = Taken::pages(60);
    said.extend(lines);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    drop(taken);
    let text = fs::read(demo.out.path().join("dpdk.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(report["failures"], serde_json::json!([]));
    assert_eq!(report["engine"]["total"]["ledger_balances"], true);
    assert_eq!(report["engine"]["dpdk"]["mbufs_missing"], 0);
    for run in ["flat_out", "half"].iter().flat_map(|name| report[name].as_array().unwrap()) {
        assert!(run[1]["received"].as_u64().unwrap() > 0 && run[1]["corrupted"] == 0, "{run}");
    }
    let circulated = report["circulated"].as_array().unwrap();
    assert!(circulated.len() == 2 && circulated.iter().all(|row| row[1].as_f64().unwrap() > 0.0), "{said}");
    assert_eq!(pages(), before);
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[test]
fn an_interrupt_at_any_time_leaves_nothing() {
    if !require_root() {
        return;
    }
    for moment in ["demo:", "serves", "flat out, IPv4", "every byte checked", "everything else", "stopping"]
    {
        let demo = Demo::new();
        let mut child = demo.start(&[]);
        wait_for(&mut child, moment);
        let namespace = fs::metadata(format!("/run/netns/{}-eng", demo.lab)).map(|file| file.ino());
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(wait(&mut child), Some(130), "at {moment:?}");
        assert_eq!(demo.left_behind(), Vec::<String>::new(), "at {moment:?}");
        if let Ok(number) = namespace {
            let of_it = |name: &str| name.starts_with(&format!("{number}-"));
            assert!(!names("/run/volley").any(|name| of_it(&name)), "run state left at {moment:?}");
            assert!(!names("/sys/fs/bpf/volley").any(|name| of_it(&name)), "pins left at {moment:?}");
        }
    }
}

#[test]
fn killed_it_takes_its_processes_along_and_the_next_run_removes_the_rest() {
    if !require_root() {
        return;
    }
    let demo = Demo::new();
    let mut child = demo.start(&[]);
    wait_for(&mut child, "every byte checked");
    child.kill().unwrap();
    child.wait().unwrap();
    demo.wait_until_processes_are_gone();
    let output = demo.command(&[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}
