//! What EAL is told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where packet memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Huge pages, without a file in hugetlbfs: nothing is left behind even after SIGKILL, and no other process can join.
    #[default]
    Anonymous,
    /// Huge pages in files of hugetlbfs under the file prefix, unlinked at once; tools that join as a secondary process
    /// (`dpdk-proc-info`) find the rest.
    Files,
    /// Ordinary pages. For virtual devices only: no device can do DMA to them.
    NoHuge,
}

/// What EAL is told. The default takes huge pages as they are needed, no device at all, and leaves the terminal alone.
#[derive(Clone, Debug, Default)]
pub struct EalArgs {
    /// Where memory comes from.
    pub memory: Memory,
    /// MiB to take at the start; more is taken when needed, except from [`Memory::NoHuge`], where this is all there is.
    pub megabytes: Option<u32>,
    /// Sets this process apart from others in `/var/run/dpdk`; `None`: "volley-" and the process's number.
    pub file_prefix: Option<String>,
    /// Cores the main thread and EAL's own threads may run on; no thread is pinned to one of them. Empty: core 0.
    pub cores: Vec<usize>,
    /// PCI devices to take, by address, with their arguments: `0000:01:00.0`, `0000:01:00.0,key=value`. No other is touched.
    pub pci: Vec<String>,
    /// Further arguments as EAL takes them, after ours.
    pub more: Vec<String>,
    /// Set by whoever wants the start given up (a signal handler, say): some devices wait for their other end, for as long as it takes.
    pub give_up: Option<Arc<AtomicBool>>,
}

impl EalArgs {
    /// True once the start is to be given up.
    pub(crate) fn given_up(&self) -> bool {
        self.give_up.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    /// The prefix in use.
    pub fn prefix(&self) -> String {
        self.file_prefix.clone().unwrap_or_else(|| format!("{PREFIX}{}", std::process::id()))
    }

    /// As a command line, program name first.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let mut line = vec!["volley".to_owned()];
        let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
        // One lcore that floats over the cores we may use: EAL pins the thread that starts it to its lcore's set.
        let mut lcores = "0@(".to_owned();
        for (n, core) in self.cores.iter().enumerate() {
            let _ = write!(lcores, "{}{core}", if n > 0 { "," } else { "" });
        }
        lcores.push_str(if self.cores.is_empty() { "0)" } else { ")" });
        add(&["--lcores", &lcores]);
        add(&["--no-telemetry"]);
        match self.memory {
            Memory::Anonymous => add(&["--in-memory"]),
            Memory::Files => add(&["--huge-unlink=always"]),
            Memory::NoHuge => add(&["--no-huge", "--no-shconf"]),
        }
        add(&["--file-prefix", &self.prefix()]);
        let megabytes = match self.memory {
            Memory::NoHuge => Some(self.megabytes.unwrap_or(NO_HUGE_MEGABYTES)),
            _ => self.megabytes,
        };
        if let Some(megabytes) = megabytes {
            add(&["-m", &megabytes.to_string()]);
        }
        match self.pci.is_empty() {
            true => add(&["--no-pci"]),
            false => self.pci.iter().for_each(|device| add(&["-a", device])),
        }
        line.extend(self.more.iter().cloned());
        line
    }
}

/// How our own file prefixes begin; the process's number follows.
pub(crate) const PREFIX: &str = "volley-";

/// MiB without huge pages when nothing is said: a pool of 16 Ki mbufs and room for a few rings. With less, a device of several
/// queues does not start; more costs nothing until it is touched.
pub const NO_HUGE_MEGABYTES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_devices_are_taken_and_nothing_is_left_behind() {
        let line = EalArgs { cores: vec![0, 3], ..EalArgs::default() }.command_line().join(" ");
        assert!(line.contains("--lcores 0@(0,3)") && line.contains("--no-pci"), "{line}");
        assert!(line.contains("--in-memory") && line.contains(&format!("volley-{}", std::process::id())));
        let args = EalArgs {
            memory: Memory::Files,
            pci: vec!["0000:01:00.0".into()],
            file_prefix: Some("other".into()),
            more: vec!["--log-level=8".into()],
            ..EalArgs::default()
        };
        let line = args.command_line().join(" ");
        assert!(line.contains("-a 0000:01:00.0") && !line.contains("--no-pci"), "{line}");
        assert!(line.contains("--file-prefix other") && line.ends_with("--log-level=8"), "{line}");
    }
}
