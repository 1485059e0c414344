//! `volley_steer`, loaded for testing.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, XskMap};
use aya::programs::Xdp;
use aya::util::nr_cpus;
use aya::{Ebpf, TestRun, TestRunOptions};
use volley_steer::Verdict;
use volley_steer::abi::{COUNTER_SLOTS, Counter, RuleTable, Rules, maps, programs};
use volley_testlab::{cannot_run, require_root};
use zerocopy::{FromZeros, IntoBytes};

use crate::fixtures::{LIMITED, Outcome};

/// Bytes of an Ethernet header: the kernel runs no program on less.
pub const LEAST_FRAME: usize = 14;

/// Every steering program to test: what to call it, and how to load it. Empty when the test cannot run here at all.
pub fn steering() -> Vec<(String, Program)> {
    let variants = |(object, bytes): (&str, &'static [u8])| {
        [programs::STEER, programs::STEER_GUARDED]
            .map(|name| (format!("{name} of the {object} object"), Program::load(bytes, name)))
    };
    objects().into_iter().flat_map(variants).collect()
}

/// The objects to test: name and bytes. Empty when the test cannot run here at all.
pub fn objects() -> Vec<(&'static str, &'static [u8])> {
    let mut objects = Vec::new();
    if !require_root() {
        return objects;
    }
    objects.push(("committed", volley_xdp::object::OBJECT));
    match rebuilt() {
        Ok(bytes) => objects.push(("rebuilt", bytes)),
        Err(why) => {
            cannot_run(&format!("with a rebuilt object: {why}"));
        }
    }
    objects
}

/// The object as the toolchain of this machine builds it now; built once per test run.
fn rebuilt() -> Result<&'static [u8], String> {
    static REBUILT: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let built = REBUILT.get_or_init(|| {
        let object = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rebuilt.bpf.o");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/build-object");
        let output = Command::new(script).arg(&object).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        std::fs::read(&object).map_err(|error| error.to_string())
    });
    built.as_deref().map_err(Clone::clone)
}

/// The loaded program with its maps, and a socket to redirect to.
pub struct Program {
    object: Ebpf,
    name: &'static str,
    map: Array<MapData, [u8; size_of::<Rules>()]>,
    /// What the map holds.
    rules: Box<Rules>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; COUNTER_SLOTS]>,
    socket: OwnedFd,
    bound: bool,
}

impl Program {
    /// Loads it, without any rule and without a socket.
    fn load(object: &[u8], name: &'static str) -> Program {
        let mut object = Ebpf::load(object).expect("the object loads");
        let mut map = |name| object.take_map(name).unwrap_or_else(|| panic!("the object has a map {name}"));
        let rules = map(maps::RULES).try_into().expect("the rules map is an array");
        let sockets = map(maps::SOCKETS).try_into().expect("the sockets map is an XSKMAP");
        let counters = map(maps::COUNTERS).try_into().expect("the counters map is a per-CPU array");
        // As on the host: the bucket of the limited rule is empty for good, so that no fixture depends on the time.
        let mut buckets: PerCpuArray<MapData, u64> =
            map(maps::BUCKETS).try_into().expect("the buckets map is a per-CPU array");
        let empty = vec![u64::MAX / 2; nr_cpus().expect("the number of CPUs")];
        let empty = PerCpuValues::try_from(empty).expect("a value for each CPU");
        buckets.set(LIMITED, empty, 0).expect("the bucket is emptied");
        let program: &mut Xdp = object.program_mut(name).expect("it is there").try_into().expect("XDP");
        program.load().expect("the verifier takes the program");
        // SAFETY: a system call without pointers; what it returns is checked, and nobody else owns it.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        let (map, rules) = (rules, Rules::new_box_zeroed().expect("memory for rule tables"));
        Program { object, name, map, rules, sockets, counters, socket, bound: false }
    }

    /// Writes one half of the rules.
    pub fn set_rules(&mut self, half: usize, table: &RuleTable) {
        self.rules.halves[half].clone_from(table);
        self.write();
    }

    /// Selects the half that is read.
    pub fn set_generation(&mut self, generation: u32) {
        self.rules.control.generation = generation;
        self.write();
    }

    fn write(&mut self) {
        let bytes: &[u8; size_of::<Rules>()] = self.rules.as_bytes().try_into().expect("its own size");
        self.map.set(0, bytes, 0).expect("the rules are written");
    }

    /// Runs the program on a frame of at least [`LEAST_FRAME`] bytes, with or without a socket on queue 0, which
    /// is the queue of every test run. Panics unless exactly one counter rose, by one.
    pub fn run(&mut self, socket: bool, frame: &[u8]) -> Outcome {
        if socket && !self.bound {
            self.sockets.set(0, self.socket.as_raw_fd(), 0).expect("the socket is set");
        } else if !socket && self.bound {
            self.sockets.unset(0).expect("the socket is taken away");
        }
        self.bound = socket;
        let before = self.counters();
        let verdict = match self.action(frame) {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            4 => Verdict::Redirect,
            other => panic!("XDP action {other}"),
        };
        let after = self.counters();
        let rose: Vec<Counter> = (0..COUNTER_SLOTS)
            .flat_map(|slot| {
                let counter = Counter::ALL.get(slot).unwrap_or_else(|| {
                    assert_eq!(after[slot], before[slot], "slot {slot} belongs to no counter");
                    &Counter::Runt
                });
                vec![*counter; (after[slot] - before[slot]) as usize]
            })
            .collect();
        let [counter] = rose[..] else { panic!("counted {rose:?}, not one") };
        (verdict, counter)
    }

    fn action(&mut self, frame: &[u8]) -> u32 {
        let program: &mut Xdp =
            self.object.program_mut(self.name).expect("it is there").try_into().expect("XDP");
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        program.test_run(options).expect("the program runs").return_value
    }

    fn counters(&self) -> [u64; COUNTER_SLOTS] {
        let mut sum = [0; COUNTER_SLOTS];
        for cpu in self.counters.get(&0, 0).expect("the counters are read").iter() {
            for (total, value) in sum.iter_mut().zip(cpu) {
                *total += value;
            }
        }
        sum
    }
}
