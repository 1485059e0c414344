//! Who owns which rules: one lock and one record per owner under /run/volley.
//!
//! ```text
//! /run/volley/<netns inode>-<ifindex>/
//!     writer                  lock: one process changes rules or pins at a time
//!     owners/<owner>.lock     lock: held by the living owner, with its pid
//!     owners/<owner>.json     its rules, so that any process can write the whole set
//!     queues/<queue>.lock     lock: whose socket is behind the queue
//!     program.json            the program that a process attached without pins, and its maps
//! ```
//!
//! Locks are flock(2): the kernel releases them when the process ends in whatever way. A record without a live
//! lock belongs to nobody any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::interface::Interface;
use crate::lock::{LockError, PidLock};
use crate::rule::{Action, Prefix, Protocol, Rule, SynLimit, Unbound};

/// Where owners and their locks are. A tmpfs: what it says does not outlive the programs it speaks of.
const RUN: &str = "/run/volley";

/// How long to wait for another writer. One takes milliseconds; longer means that it is stopped.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for an owner's or queue's lock: somebody who merely asks whether it is held has it for
/// microseconds.
const HOLDER_PATIENCE: Duration = Duration::from_millis(100);

/// What an owner's rules are, and whether it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The name it chose.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// True while that process holds its lock.
    pub alive: bool,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// The rules map they were written to.
    pub(crate) rules_id: u32,
}

/// Why something under /run/volley cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// A file or directory cannot be used.
    #[error(
        "{}: {source}; owners of rules are kept there: run as root, or make {RUN} this user's (RuntimeDirectory=volley \
         of systemd)",
        path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another process is changing rules or pins and does not finish.
    #[error("{} has been changing the rules of this interface for {WRITER_PATIENCE:?}: is it stopped?", process(*pid))]
    Busy {
        /// That process, if it could be told.
        pid: Option<u32>,
    },
    /// The owner's name is in use.
    #[error("owner `{owner}` is alive: {}; stop it, or choose another owner name", process(*pid))]
    Alive {
        /// The name.
        owner: String,
        /// That process, if it could be told.
        pid: Option<u32>,
    },
    /// A queue's socket is another process'.
    #[error("queue {queue} already has the socket of {}: stop it, or choose another queue", process(*pid))]
    QueueTaken {
        /// The queue.
        queue: u32,
        /// That process, if it could be told.
        pid: Option<u32>,
    },
    /// Not a name for an owner.
    #[error(
        "`{0}` cannot name an owner of rules: use 1 to 64 letters, digits, dots, dashes or underscores"
    )]
    BadName(String),
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The directory of one interface.
#[derive(Clone, Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    pid: u32,
    rules_id: u32,
    rules: Vec<RuleRecord>,
}

#[derive(Serialize, Deserialize)]
struct RuleRecord {
    protocol: ProtocolRecord,
    first: u16,
    last: u16,
    addresses: Vec<Prefix>,
    action: ActionRecord,
    #[serde(default)]
    syn_limit: Option<SynLimit>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProtocolRecord {
    Udp,
    Tcp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionRecord {
    RedirectElsePass,
    RedirectElseDrop,
    Pass,
    Drop,
}

/// The program that a process attached without pins. The kernel would tell its name and those of its maps, had
/// they any: aya gives none when it lacks CAP_PERFMON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramRecord {
    pub(crate) program_id: u32,
    /// Numbers of its maps, in the order in which they are pinned.
    pub(crate) map_ids: [u32; 3],
}

impl RunDir {
    /// The directory of an interface; it need not exist, nothing is made.
    pub(crate) fn of(interface: &Interface) -> RunDir {
        RunDir { path: Path::new(RUN).join(interface.key()) }
    }

    /// Excludes every other process that changes rules or pins of this interface. Makes the directories.
    pub(crate) fn writer(&self) -> Result<PidLock, OwnerError> {
        let path = self.path.join("writer");
        loop {
            self.make()?;
            match PidLock::take(&path, WRITER_PATIENCE) {
                Ok(lock) => {
                    // The previous writer may have been the last user, who tidied up.
                    self.make()?;
                    return Ok(lock);
                }
                Err(LockError::Held { pid }) => return Err(OwnerError::Busy { pid }),
                // Tidied up between the two lines above: make it again.
                Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(LockError::Io(source)) => return Err(OwnerError::Io { path, source }),
            }
        }
    }

    fn make(&self) -> Result<(), OwnerError> {
        for part in ["owners", "queues"] {
            let path = self.path.join(part);
            fs::create_dir_all(&path).map_err(|source| OwnerError::Io { path, source })?;
        }
        Ok(())
    }

    /// Ends writing and removes the directories, if nothing is left in them.
    pub(crate) fn tidy(&self, writer: PidLock) {
        let _ = fs::remove_dir(self.path.join("owners"));
        let _ = fs::remove_dir(self.path.join("queues"));
        drop(writer);
        let _ = fs::remove_dir(&self.path);
    }

    /// Becomes the owner of that name.
    pub(crate) fn lock_owner(&self, owner: &str) -> Result<PidLock, OwnerError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=64).contains(&owner.len()) || owner.starts_with('.') || !owner.chars().all(valid) {
            return Err(OwnerError::BadName(owner.to_owned()));
        }
        let path = self.owner_file(owner, "lock");
        PidLock::take(&path, HOLDER_PATIENCE).map_err(|error| match error {
            LockError::Held { pid } => OwnerError::Alive { owner: owner.to_owned(), pid },
            LockError::Io(source) => OwnerError::Io { path, source },
        })
    }

    /// Becomes the one whose socket is behind a queue.
    pub(crate) fn lock_queue(&self, queue: u32) -> Result<PidLock, OwnerError> {
        let path = self.path.join("queues").join(format!("{queue}.lock"));
        PidLock::take(&path, HOLDER_PATIENCE).map_err(|error| match error {
            LockError::Held { pid } => OwnerError::QueueTaken { queue, pid },
            LockError::Io(source) => OwnerError::Io { path, source },
        })
    }

    /// The process whose socket is behind a queue.
    pub(crate) fn queue_holder(&self, queue: u32) -> Option<u32> {
        PidLock::holder(&self.path.join("queues").join(format!("{queue}.lock")))
    }

    /// Notes an owner's rules. The caller holds its lock.
    pub(crate) fn write(&self, owner: &str, rules_id: u32, rules: &[Rule]) -> Result<(), OwnerError> {
        let record = Record {
            pid: std::process::id(),
            rules_id,
            rules: rules.iter().map(RuleRecord::from).collect(),
        };
        let text = serde_json::to_vec_pretty(&record).expect("plain data");
        let path = self.owner_file(owner, "json");
        let new = self.owner_file(owner, "new");
        // Renamed into place, so that a reader never meets half a record.
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| OwnerError::Io { path, source })
    }

    /// Forgets an owner's rules.
    pub(crate) fn forget(&self, owner: &str) {
        // Missing is as good as removed, and a file that stays is taken for a dead owner's.
        let _ = fs::remove_file(self.owner_file(owner, "json"));
    }

    /// Removes what a dead owner left.
    pub(crate) fn bury(&self, owner: &str) {
        self.forget(owner);
        // Taken before it is removed: a process of that name may be starting right now.
        drop(PidLock::try_take(&self.owner_file(owner, "lock")));
    }

    /// Every owner with a record, by name.
    pub(crate) fn owners(&self) -> Vec<Owner> {
        let Ok(entries) = fs::read_dir(self.path.join("owners")) else { return Vec::new() };
        let mut owners: Vec<Owner> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_str()?.strip_suffix(".json")?.to_owned();
                let record: Record = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
                let alive = PidLock::holder(&self.owner_file(&name, "lock")).is_some();
                let rules = record.rules.iter().map(Rule::from).collect();
                Some(Owner { name, pid: record.pid, alive, rules, rules_id: record.rules_id })
            })
            .collect();
        owners.sort_by(|a, b| a.name.cmp(&b.name));
        owners
    }

    /// Notes the program that this process has attached.
    pub(crate) fn write_program(&self, record: ProgramRecord) -> Result<(), OwnerError> {
        let path = self.path.join("program.json");
        let new = self.path.join("program.new");
        let text = serde_json::to_vec(&record).expect("plain data");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| OwnerError::Io { path, source })
    }

    /// The program that a process has attached, if it is this one.
    pub(crate) fn program(&self, program_id: u32) -> Option<ProgramRecord> {
        let text = fs::read(self.path.join("program.json")).ok()?;
        let record: ProgramRecord = serde_json::from_slice(&text).ok()?;
        (record.program_id == program_id).then_some(record)
    }

    /// Forgets the program if it is this one.
    pub(crate) fn forget_program(&self, program_id: u32) {
        if self.program(program_id).is_some() {
            let _ = fs::remove_file(self.path.join("program.json"));
        }
    }

    fn owner_file(&self, owner: &str, suffix: &str) -> PathBuf {
        self.path.join("owners").join(format!("{owner}.{suffix}"))
    }
}

impl From<&Rule> for RuleRecord {
    fn from(rule: &Rule) -> RuleRecord {
        RuleRecord {
            protocol: match rule.protocol {
                Protocol::Udp => ProtocolRecord::Udp,
                Protocol::Tcp => ProtocolRecord::Tcp,
            },
            first: *rule.ports.start(),
            last: *rule.ports.end(),
            addresses: rule.addresses.clone(),
            action: match rule.action {
                Action::Redirect { unbound: Unbound::Pass } => ActionRecord::RedirectElsePass,
                Action::Redirect { unbound: Unbound::Drop } => ActionRecord::RedirectElseDrop,
                Action::Pass => ActionRecord::Pass,
                Action::Drop => ActionRecord::Drop,
            },
            syn_limit: rule.syn_limit,
        }
    }
}

impl From<&RuleRecord> for Rule {
    fn from(record: &RuleRecord) -> Rule {
        Rule {
            protocol: match record.protocol {
                ProtocolRecord::Udp => Protocol::Udp,
                ProtocolRecord::Tcp => Protocol::Tcp,
            },
            ports: record.first..=record.last,
            addresses: record.addresses.clone(),
            action: match record.action {
                ActionRecord::RedirectElsePass => Action::Redirect { unbound: Unbound::Pass },
                ActionRecord::RedirectElseDrop => Action::Redirect { unbound: Unbound::Drop },
                ActionRecord::Pass => Action::Pass,
                ActionRecord::Drop => Action::Drop,
            },
            syn_limit: record.syn_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_its_record() {
        for action in [
            Action::Redirect { unbound: Unbound::Pass },
            Action::Redirect { unbound: Unbound::Drop },
            Action::Pass,
            Action::Drop,
        ] {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let addresses = vec!["10.0.0.0/8".parse().unwrap(), "fd77::1".parse().unwrap()];
                let syn_limit =
                    (protocol == Protocol::Tcp).then_some(SynLimit { per_second: 1000, burst: 64 });
                let rule = Rule { protocol, ports: 7..=65535, addresses, action, syn_limit };
                let text = serde_json::to_string(&RuleRecord::from(&rule)).unwrap();
                assert_eq!(Rule::from(&serde_json::from_str::<RuleRecord>(&text).unwrap()), rule);
            }
        }
    }
}
