//! `dpdk-testpmd`, Debian's: a peer in our engine's place, or the far end of a wire.

use std::fs;
use std::path::PathBuf;

/// What a testpmd is started with. One queue, bursts of 64, main and forwarding lcore both on one core.
#[derive(Clone, Debug)]
pub struct Testpmd {
    /// The core.
    pub core: usize,
    /// Drivers beside the mempool's.
    pub drivers: &'static [&'static str],
    /// The device.
    pub vdev: String,
    /// Where memory comes from, and what else EAL is told.
    pub eal: &'static [&'static str],
    /// How it forwards.
    pub forward: &'static str,
    /// Mbufs.
    pub mbufs: u32,
    /// What else testpmd is told.
    pub more: Vec<String>,
}

impl Testpmd {
    /// Its command line, from the program on.
    pub fn words(&self) -> Vec<String> {
        // Into a file it would write its lines only when it ends, and somebody waits for one of them.
        let mut words: Vec<String> = ["-oL", "dpdk-testpmd", "--lcores"].map(String::from).into();
        words.push(format!("0@{0},1@{0}", self.core));
        words.extend(["--no-pci", "--no-telemetry"].map(String::from));
        words.extend(self.eal.iter().map(|&word| word.to_owned()));
        words.extend(["--file-prefix".into(), prefix(self.core)]);
        for path in ["mempool_ring"].iter().chain(self.drivers).filter_map(|name| driver(name)) {
            words.extend(["-d".into(), path.display().to_string()]);
        }
        words.extend(["--vdev".into(), self.vdev.clone(), "--".into()]);
        words.push(format!("--forward-mode={}", self.forward));
        words.extend(
            ["--burst=64", "--nb-cores=1", "--rxq=1", "--txq=1", "--no-mlockall"].map(String::from),
        );
        words.push(format!("--total-num-mbufs={}", self.mbufs));
        words.extend(self.more.iter().cloned());
        words
    }

    /// Its program: `stdbuf`, which starts the real one.
    pub const PROGRAM: &'static str = "stdbuf";

    /// What it prints once it forwards.
    pub fn ready(&self) -> &'static str {
        match self.prints_statistics() {
            true => "NIC statistics",
            false => "Press enter to exit",
        }
    }

    /// It then does not wait for a key.
    fn prints_statistics(&self) -> bool {
        self.more.iter().any(|word| word.starts_with("--stats-period"))
    }

    /// The directory of its sockets, which it leaves behind.
    pub fn leftover(core: usize) -> PathBuf {
        PathBuf::from("/var/run/dpdk").join(prefix(core))
    }

    /// Why it cannot run here, and what to do about it.
    pub fn missing(drivers: &[&str]) -> Option<String> {
        let there = |name: &&str| driver(name).is_some();
        match on_path("dpdk-testpmd") && ["mempool_ring"].iter().chain(drivers).all(there) {
            true => None,
            false => Some(format!(
                "dpdk-testpmd or its driver ({}) is not installed: hw-setup/deps bench",
                drivers.join(", ")
            )),
        }
    }
}

/// DPDK's name for this run.
fn prefix(core: usize) -> String {
    format!("volley-bench-{}-{core}", std::process::id())
}

/// A DPDK driver of Debian's packages: the plug-in must be of the same build as the linked libraries.
fn driver(name: &str) -> Option<PathBuf> {
    let multiarch =
        fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("dpdk/pmds-23.0"));
    multiarch.map(|directory| directory.join(format!("librte_{name}.so"))).find(|path| path.is_file())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
