//! An attached program: its rules, sockets and counters.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::MapError;
use volley_steer::abi::{ABI_VERSION, Counters, MAX_QUEUES};

use crate::attach::{self, AttachError, AttachOptions};
use crate::foreign::Takeover;
use crate::interface::Interface;
use crate::link::{AttachMode, Link, Mode};
use crate::lock::PidLock;
use crate::maps::Maps;
use crate::owner::{Owner, OwnerError, ProgramRecord, RunDir};
use crate::pin::{Found, PinDir};
use crate::program::Program;
use crate::rule::Rule;
use crate::sys;
use crate::table::{self, TableError};

/// The steering program on one interface, as one process uses it.
///
/// Dropping it takes back what this process gave: its rules and its sockets. If the process attached the program
/// itself it ends too; a pinned one goes on without them.
pub struct Steering {
    interface: Interface,
    mode: Mode,
    program: sys::ProgramInfo,
    /// Ours to hold; `None` when it is pinned.
    link: Option<Link>,
    pins: PinDir,
    run: RunDir,
    takeover: Option<Takeover>,
    state: Mutex<State>,
}

struct State {
    maps: Maps,
    claims: Vec<Claim>,
    queues: Vec<(u32, PidLock)>,
}

/// Rules of this process under one owner's name.
struct Claim {
    owner: String,
    rules: Vec<Rule>,
    _lock: PidLock,
}

/// Facts about an attached program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where it runs.
    pub interface: Interface,
    /// The kernel's number for it.
    pub program_id: u32,
    /// Its name.
    pub program_name: String,
    /// Hash over its instructions, as `bpftool` shows it.
    pub tag: u64,
    /// Native or generic.
    pub mode: Mode,
    /// Where it is pinned, if it is.
    pub pinned: Option<PathBuf>,
    /// Version of its maps.
    pub abi: u32,
    /// How often its rules have changed.
    pub generation: u32,
    /// Everyone with rules in it.
    pub owners: Vec<Owner>,
}

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The owner's name or lock.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A living owner has rules for the same packets.
    #[error(
        "rule `{rule}` collides with `{theirs}` of owner `{owner}` (process {pid}): stop it, or use other ports"
    )]
    Collision {
        /// Ours.
        rule: Box<Rule>,
        /// Theirs.
        theirs: Box<Rule>,
        /// Who they are.
        owner: String,
        /// Their process.
        pid: u32,
    },
    /// The rules do not fit the table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Why a socket is not behind its queue.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The queue is another process', or its lock cannot be used.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// No such queue in the map.
    #[error("queue {queue} cannot have a socket: the program serves queues 0 to {}", MAX_QUEUES - 1)]
    NoSuchQueue {
        /// The queue.
        queue: u32,
    },
    /// The kernel refused.
    #[error("the socket for queue {queue} of {interface} cannot be set: {source}")]
    Map {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's word.
        source: MapError,
    },
}

impl Steering {
    /// Uses the program that is pinned for the interface, or else loads one and attaches it by a link that ends
    /// with this process.
    ///
    /// # Errors
    /// [`AttachError`]; nothing is left behind then.
    pub fn attach(options: &AttachOptions) -> Result<Steering, AttachError> {
        let interface = Interface::find(&options.interface)?;
        attach::check_privileges()?;
        let run = RunDir::of(&interface);
        let _writer = run.writer()?;
        let pins = PinDir::of(&interface);
        match pins.find(&interface)? {
            Found::Nothing => {}
            Found::Stale(why) => pins.remove_stale(&why)?,
            Found::Running(found) => {
                if found.abi != ABI_VERSION {
                    return Err(AttachError::Abi { interface: interface.name, found: found.abi });
                }
                if !found.whole {
                    return Err(AttachError::HalfUpgraded { interface: interface.name });
                }
                let unwanted = match options.mode {
                    AttachMode::Native => found.mode != Mode::Native,
                    AttachMode::Generic => found.mode != Mode::Generic,
                    AttachMode::Auto => false,
                };
                if unwanted {
                    log::warn!(
                        "the program pinned for {interface} was loaded in {} mode, and stays so",
                        found.mode
                    );
                }
                let state = State { maps: pins.maps()?, claims: Vec::new(), queues: Vec::new() };
                return Ok(Steering {
                    mode: found.mode,
                    program: found.program,
                    link: None,
                    takeover: None,
                    state: Mutex::new(state),
                    interface,
                    pins,
                    run,
                });
            }
        }
        let attached = attach::attach(&interface, options)?;
        if let Some(takeover) = &attached.takeover {
            log::warn!("{} taken off {interface}; {:?} without a program", takeover.from, takeover.gap);
        }
        let Program { maps, info, .. } = attached.program;
        run.write_program(ProgramRecord { program_id: info.id, map_ids: maps.ids })?;
        let state = State { maps, claims: Vec::new(), queues: Vec::new() };
        Ok(Steering {
            mode: attached.mode,
            program: info,
            link: Some(attached.link),
            takeover: attached.takeover,
            state: Mutex::new(state),
            interface,
            pins,
            run,
        })
    }

    /// Puts rules in force under an owner's name, in place of those it had; together with the rules of all
    /// other owners, in one step. An owner is locked by its process until it is [released](Steering::release)
    /// or the process ends; what a dead owner left is taken over.
    ///
    /// # Errors
    /// [`RuleError`]; the rules in force are then unchanged.
    pub fn claim(&self, owner: &str, rules: &[Rule]) -> Result<(), RuleError> {
        let mut state = self.state();
        let _writer = self.run.writer()?;
        let at = state.claims.iter().position(|claim| claim.owner == owner);
        let fresh = match at {
            Some(_) => None,
            None => Some(self.run.lock_owner(owner)?),
        };
        let others = self.others(&state, Some(owner))?;
        for rule in rules {
            collision(rule, &others)?;
        }
        let mine = state.claims.iter().filter(|claim| claim.owner != owner).flat_map(|claim| &claim.rules);
        let all = others.iter().flat_map(|other| &other.rules).chain(mine).chain(rules);
        let table = table::build(all)?;
        self.run.write(owner, state.maps.rules_id(), rules)?;
        state.maps.write_rules(&table);
        match (at, fresh) {
            (Some(at), _) => state.claims[at].rules = rules.to_vec(),
            (None, Some(lock)) => {
                state.claims.push(Claim { owner: owner.to_owned(), rules: rules.to_vec(), _lock: lock });
            }
            (None, None) => unreachable!("a new owner has just been locked"),
        }
        Ok(())
    }

    /// Takes back an owner's rules; nothing happens when this process has no such owner.
    ///
    /// # Errors
    /// [`RuleError::Table`] or [`RuleError::Owner`]; the owner's rules may then still be in force.
    pub fn release(&self, owner: &str) -> Result<(), RuleError> {
        let mut state = self.state();
        let Some(at) = state.claims.iter().position(|claim| claim.owner == owner) else { return Ok(()) };
        let _writer = self.run.writer()?;
        let others = self.others(&state, Some(owner))?;
        let mine = state.claims.iter().filter(|claim| claim.owner != owner).flat_map(|claim| &claim.rules);
        let table = table::build(others.iter().flat_map(|other| &other.rules).chain(mine))?;
        state.maps.write_rules(&table);
        self.run.forget(owner);
        state.claims.remove(at);
        Ok(())
    }

    /// The living owners with rules in this program that are not this process' claims. Dead ones are buried.
    fn others(&self, state: &State, claiming: Option<&str>) -> Result<Vec<Owner>, OwnerError> {
        let mut living = Vec::new();
        for owner in self.run.owners() {
            if state.claims.iter().any(|claim| claim.owner == owner.name) {
                continue;
            }
            if claiming == Some(&owner.name) {
                // Its lock is already ours, so whoever wrote the record is dead.
                log::info!(
                    "owner `{}` (process {}) is gone: its rules are taken over",
                    owner.name,
                    owner.pid
                );
            } else if !owner.alive {
                log::info!(
                    "owner `{}` (process {}) is gone: its rules are taken off",
                    owner.name,
                    owner.pid
                );
                self.run.bury(&owner.name);
            } else if owner.rules_id == state.maps.rules_id() {
                living.push(owner);
            }
        }
        Ok(living)
    }

    /// Puts an AF_XDP socket behind the queue it is bound to. A queue without one follows its rules' `unbound`.
    /// Take it back before closing the socket; the kernel forgets a closed one by itself, but the queue stays
    /// reserved for this process until then.
    ///
    /// # Errors
    /// [`SocketError`]; also when another process has a socket behind that queue.
    pub fn bind_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SocketError> {
        if queue >= MAX_QUEUES {
            return Err(SocketError::NoSuchQueue { queue });
        }
        let mut state = self.state();
        let fresh = match state.queues.iter().any(|(bound, _)| *bound == queue) {
            true => None,
            false => Some(self.run.lock_queue(queue)?),
        };
        let outcome = state.maps.set_socket(queue, socket);
        outcome.map_err(|source| self.socket_error(queue, source))?;
        state.queues.extend(fresh.map(|lock| (queue, lock)));
        Ok(())
    }

    /// Takes the socket from a queue; nothing happens when this process has none there.
    ///
    /// # Errors
    /// [`SocketError::Map`].
    pub fn unbind_socket(&self, queue: u32) -> Result<(), SocketError> {
        let mut state = self.state();
        let Some(at) = state.queues.iter().position(|(bound, _)| *bound == queue) else { return Ok(()) };
        state.maps.clear_socket(queue).map_err(|source| self.socket_error(queue, source))?;
        state.queues.swap_remove(at);
        Ok(())
    }

    /// Whether a queue has a socket behind it, this process' or another's. Meant for queues of which one suspects that they have
    /// lost it: to ask about one without a socket costs it the packets of a moment.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn has_socket(&self, queue: u32) -> Result<bool, SocketError> {
        if queue >= MAX_QUEUES {
            return Err(SocketError::NoSuchQueue { queue });
        }
        self.state().maps.has_socket(queue).map_err(|source| self.socket_error(queue, source))
    }

    /// True when owners besides this process' have rules in the program.
    pub fn is_shared(&self) -> bool {
        let state = self.state();
        let ours = |owner: &Owner| state.claims.iter().any(|claim| claim.owner == owner.name);
        let rules_id = state.maps.rules_id();
        self.run.owners().iter().any(|owner| owner.alive && owner.rules_id == rules_id && !ours(owner))
    }

    /// Packets per reason since the program was loaded, summed over all CPUs.
    ///
    /// # Errors
    /// The kernel's, when the map cannot be read.
    pub fn counters(&self) -> Result<Counters, MapError> {
        self.state().maps.counters()
    }

    /// What is attached, and whose rules it follows.
    ///
    /// # Errors
    /// The kernel's, when the maps cannot be read.
    pub fn info(&self) -> Result<Info, MapError> {
        let state = self.state();
        let control = state.maps.control();
        let rules_id = state.maps.rules_id();
        Ok(Info {
            interface: self.interface.clone(),
            program_id: self.program.id,
            program_name: self.program.name.clone(),
            tag: self.program.tag,
            mode: self.mode,
            pinned: self.link.is_none().then(|| self.pins.path().to_owned()),
            abi: control.abi_version,
            generation: control.generation,
            owners: self.run.owners().into_iter().filter(|owner| owner.rules_id == rules_id).collect(),
        })
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Native or generic.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// True when the program was there before this process and stays after it.
    pub fn is_pinned(&self) -> bool {
        self.link.is_none()
    }

    /// What attaching with `replace` took off, and for how long the interface had no program.
    pub fn takeover(&self) -> Option<&Takeover> {
        self.takeover.as_ref()
    }

    /// True while the program still runs on the interface: false once the interface is gone, or somebody took
    /// the program off. To be asked by a thread in the interface's network namespace.
    pub fn is_attached(&self) -> bool {
        let attached = crate::rtnl::attached(self.interface.index).unwrap_or_default();
        // An upgrade of the pinned program changes its number, not its maps.
        attached.iter().any(|attached| self.link.is_none() || attached.program_id == self.program.id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed under this lock by a panic: each change takes effect in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket_error(&self, queue: u32, source: MapError) -> SocketError {
        SocketError::Map { interface: self.interface.name.clone(), queue, source }
    }
}

/// Fails when a packet could match both this rule and one of a living owner.
fn collision(rule: &Rule, others: &[Owner]) -> Result<(), RuleError> {
    for other in others {
        let theirs = other.rules.iter().find(|theirs| {
            let ports =
                rule.ports.start() <= theirs.ports.end() && theirs.ports.start() <= rule.ports.end();
            let addresses = rule.addresses.is_empty()
                || theirs.addresses.is_empty()
                || rule.addresses.iter().any(|a| theirs.addresses.iter().any(|b| a.overlaps(b)));
            rule.protocol == theirs.protocol && ports && addresses
        });
        if let Some(theirs) = theirs {
            return Err(RuleError::Collision {
                rule: Box::new(rule.clone()),
                theirs: Box::new(theirs.clone()),
                owner: other.name.clone(),
                pid: other.pid,
            });
        }
    }
    Ok(())
}

impl Drop for Steering {
    fn drop(&mut self) {
        let owners: Vec<String> = self.state().claims.iter().map(|claim| claim.owner.clone()).collect();
        if self.link.take().is_some() {
            // The program ends with the link: only its records are left to remove.
            let mut state = self.state();
            state.claims.clear();
            state.queues.clear();
            owners.iter().for_each(|owner| self.run.forget(owner));
            self.run.forget_program(self.program.id);
            if let Ok(writer) = self.run.writer() {
                self.run.tidy(writer);
            }
            return;
        }
        // Rules first: from then on nothing is redirected to the sockets.
        for owner in owners {
            if let Err(error) = self.release(&owner) {
                log::warn!("rules of owner `{owner}` are left behind for the next to take over: {error}");
            }
        }
        let queues: Vec<u32> = self.state().queues.iter().map(|(queue, _)| *queue).collect();
        for queue in queues {
            if let Err(error) = self.unbind_socket(queue) {
                log::warn!("{error}");
            }
        }
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("interface", &self.interface)
            .field("mode", &self.mode)
            .field("program", &self.program)
            .field("pinned", &self.link.is_none())
            .finish_non_exhaustive()
    }
}
