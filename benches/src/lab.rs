//! The veth lab of a run: two network namespaces, made by `hw-setup/veth-lab`, removed when dropped.

use crate::process::{Interrupt, Job};
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where engines and loader keep what is true until the next boot, by `NAMESPACE_INODE-INTERFACE_INDEX`.
const RUN_STATE: &str = "/run/volley";
/// What the script may take; it usually takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// One end of the pair.
#[derive(Clone, Debug, Deserialize)]
pub struct End {
    /// The interface.
    pub interface: String,
    /// The namespace it is in.
    pub netns: String,
    /// Its IPv4 address.
    pub ipv4: IpAddr,
    /// Its IPv6 address.
    pub ipv6: IpAddr,
}

/// Both ends.
#[derive(Clone, Debug, Deserialize)]
pub struct Ends {
    /// Where the engine runs.
    pub engine: End,
    /// Where the generator runs.
    pub peer: End,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    ends: Ends,
    made: Made,
    _lock: UnixListener,
}

/// What is to be removed again. It stands from before anything is made, so that a signal half-way removes the half.
#[derive(Debug)]
struct Made {
    name: String,
    script: PathBuf,
    log: PathBuf,
    gone: bool,
}

impl Lab {
    /// Makes the lab `name` (at most 14 letters) with one queue a side; what an earlier run left under that name is
    /// removed first.
    pub fn up(name: &str, logs: &Path, interrupt: &Interrupt) -> Result<Lab> {
        let lock = lock(name)?;
        let mut made =
            Made { name: name.to_owned(), script: script()?, log: logs.join("veth-lab.log"), gone: false };
        made.script("down").run(LIMIT, interrupt)?;
        let engine_netns = format!("{name}-eng");
        // Permanent neighbours: resolving is no part of what is measured.
        let up = made.script("up").args(["--engine-netns", &engine_netns, "--neighbours", "--json"]);
        let said = match up.run(LIMIT, interrupt) {
            Ok(script) => script.output(),
            Err(error) => {
                made.remove()?;
                return Err(error);
            }
        };
        let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
        let ends = serde_json::from_str(line).with_context(|| format!("veth-lab said {said:?}"))?;
        Ok(Lab { ends, made, _lock: lock })
    }

    /// The engine's end.
    pub fn engine(&self) -> &End {
        &self.ends.engine
    }

    /// The generator's end.
    pub fn peer(&self) -> &End {
        &self.ends.peer
    }

    /// Removes it and says whether that worked. Dropping does the same, and only prints.
    pub fn down(mut self) -> Result<()> {
        self.made.remove()
    }
}

impl Made {
    fn script(&self, action: &str) -> Job {
        Job::new(&self.script, &self.log).args([action, "--name", &self.name])
    }

    fn remove(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.gone, true) {
            return Ok(());
        }
        let namespaces =
            ["eng", "lab"].map(|end| Path::new("/run/netns").join(format!("{}-{end}", self.name)));
        let numbers: Vec<u64> =
            namespaces.iter().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
        // Also on the way out after Ctrl-C, so that signal no longer counts.
        self.script("down").run(LIMIT, &Interrupt::default())?;
        for number in numbers {
            forget(number);
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("volley-bench: the lab {} could not be removed: {error:#}", self.name);
        }
    }
}

impl End {
    /// Runs `work` inside this end's namespace, on a thread of its own. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.netns);
        let inside = || {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", path.display()))?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// Removes the engine's run state (locks of rules, status sockets) for the interfaces of a network namespace that is gone:
/// whoever held it ended before, and nobody can come back for it.
fn forget(namespace: u64) {
    for entry in fs::read_dir(RUN_STATE).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{namespace}-")) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// The script beside this source, or where it was installed.
fn script() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join("hw-setup/veth-lab");
    path.canonicalize()
        .with_context(|| format!("{}: run this from the checkout it was built in", path.display()))
}

/// A name that only one process can hold, and that vanishes with it: an abstract socket (unix(7)) leaves no file behind.
fn lock(name: &str) -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("volley-bench lab {name}"))?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("the lab {name} is in use by another run: wait for it, or choose another with --lab")
        }
        outcome => outcome.with_context(|| format!("cannot reserve the lab {name}")),
    }
}
