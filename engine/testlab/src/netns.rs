//! One named network namespace: commands and closures in it.

use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// A network namespace under /run/netns.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of that name; it need not exist yet.
    pub fn named(name: &str) -> Netns {
        Netns { name: name.to_owned() }
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in it: nothing but the network namespace changes, so /sys/fs/bpf stays what it was.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs a command in it to its end and returns its standard output.
    ///
    /// # Panics
    /// When it cannot be started or fails, with what it wrote to standard error.
    pub fn exec<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let mut arguments = arguments.into_iter();
        let mut command = self.command(arguments.next().expect("a program to run"));
        command.args(arguments);
        run(command)
    }

    /// As [`in_ns`].
    ///
    /// # Panics
    /// As [`in_ns`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_ns(&self.name, work)
    }

    /// The MAC of one of its interfaces.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let line = self.exec(["ip", "-brief", "link", "show", "dev", interface]);
        let text = line.split_whitespace().nth(2).unwrap_or_default();
        let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes.try_into().unwrap_or_else(|_| panic!("{interface} has no MAC: {line}"))
    }
}

/// Runs `work` on a fresh thread inside the network namespace `name` and returns what it returns. Sockets and threads it makes
/// stay in that namespace.
///
/// # Panics
/// When the namespace cannot be entered, and with `work`'s own panic.
pub fn in_ns<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Netns::named(name).path();
    let inside = move || {
        let file =
            File::open(&path).unwrap_or_else(|error| panic!("namespace {}: {error}", path.display()));
        setns(&file, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("setns {}: {error}", path.display()));
        work()
    };
    std::thread::scope(|scope| {
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` on a fresh thread in a network namespace that nobody else has, and that ends with it and what it opened. Commands
/// it starts run in there, too.
///
/// # Panics
/// When there is no privilege for it, and with `work`'s own panic.
pub fn in_fresh_ns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a new network namespace: {error}"));
        work()
    };
    std::thread::scope(|scope| {
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command to its end and returns its standard output; panics when it fails.
pub(crate) fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}
