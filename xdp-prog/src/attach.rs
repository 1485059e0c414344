//! Getting an attached program: the pinned one, or one of our own.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use volley_steer::abi::ABI_VERSION;

use crate::foreign::{self, Foreign, Kind, Takeover};
use crate::interface::{Interface, NoInterface};
use crate::link::{AttachMode, Link, LinkError, Mode};
use crate::owner::OwnerError;
use crate::pin::PinError;
use crate::privilege::{self, Capability};
use crate::program::{LoadError, Program};

/// What to attach to, and how.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// The interface's name.
    pub interface: String,
    /// Native, generic, or native if possible. A pinned program keeps the mode it was loaded with.
    pub mode: AttachMode,
    /// Take the place of a program that is there. It is not put back afterwards.
    pub replace: bool,
}

/// Why there is no program of ours on the interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Wrong name or namespace.
    #[error(transparent)]
    NoInterface(#[from] NoInterface),
    /// Capabilities are missing.
    #[error(
        "attaching XDP needs {}, which this process lacks: run it as root, or grant them (`setcap \
         cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock+ep` on the binary, or AmbientCapabilities= of systemd)",
        missing.iter().map(Capability::to_string).collect::<Vec<_>>().join(" and ")
    )]
    Privileges {
        /// What is missing.
        missing: Vec<Capability>,
    },
    /// The program could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Somebody else's program is there.
    #[error("{interface} already runs {foreign}: {}", remedy(foreign))]
    Occupied {
        /// The interface.
        interface: String,
        /// Who it is.
        foreign: Foreign,
    },
    /// The kernel or driver refuses.
    #[error("{interface} refuses an XDP program in {mode} mode: {source}; {}", refusal_remedy(*mode))]
    Refused {
        /// The interface.
        interface: String,
        /// The mode tried last.
        mode: Mode,
        /// The kernel's word.
        source: io::Error,
    },
    /// What was attached is not a link, or not where it should be. It was taken off again.
    #[error(
        "the XDP program could not be attached to {interface} by a bpf_link ({why}): Linux 5.9 or newer is needed"
    )]
    NotALink {
        /// The interface.
        interface: String,
        /// What is wrong.
        why: String,
    },
    /// A program could not be taken over.
    #[error(
        "{interface} already runs {foreign}, and it cannot be taken off: {source}{}",
        takeover_remedy(foreign, source)
    )]
    Takeover {
        /// The interface.
        interface: String,
        /// Who stays.
        foreign: Foreign,
        /// The kernel's word.
        source: io::Error,
    },
    /// The pinned program is another version's.
    #[error(
        "the program pinned for {interface} speaks ABI {found}, this volley speaks {ABI_VERSION}: `volley load \
         {interface} --upgrade` swaps it without a gap"
    )]
    Abi {
        /// The interface.
        interface: String,
        /// Its version.
        found: u32,
    },
    /// An upgrade was killed half-way.
    #[error(
        "an upgrade of {interface} was cut short, its link runs another program than the pinned one: `volley load \
         {interface} --upgrade` finishes it"
    )]
    HalfUpgraded {
        /// The interface.
        interface: String,
    },
    /// An upgrade to another ABI would pull the maps from under a running process.
    #[error(
        "owner `{owner}` (process {pid}) still uses the ABI {found} program of {interface}: stop it, then upgrade"
    )]
    InUse {
        /// The interface.
        interface: String,
        /// The owner of rules.
        owner: String,
        /// Its process.
        pid: u32,
        /// The version in use.
        found: u32,
    },
    /// There is nothing to unload.
    #[error("no volley program is pinned for {interface}{}", if *running {
        ": the one that runs there belongs to a volley process and ends with it"
    } else {
        ""
    })]
    NotPinned {
        /// The interface.
        interface: String,
        /// True if an unpinned program of ours runs there.
        running: bool,
    },
    /// Unloading would pull the program from under a running process.
    #[error(
        "owner `{owner}` (process {pid}) uses the program of {interface}: stop it first, or add --force"
    )]
    StillUsed {
        /// The interface.
        interface: String,
        /// The owner of rules.
        owner: String,
        /// Its process.
        pid: u32,
    },
    /// Pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Locks under /run/volley.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// rtnetlink did not say what runs on the interface.
    #[error("rtnetlink does not tell which XDP program runs on {interface}: {source}")]
    Netlink {
        /// The interface.
        interface: String,
        /// The kernel's word.
        source: io::Error,
    },
}

fn remedy(foreign: &Foreign) -> &'static str {
    if foreign.volley {
        "stop that volley process, `volley load` the program so that several can share it, or take it over with \
         --replace"
    } else if foreign.name.is_none() {
        "remove it, or take its place with --replace (it is not put back); what `volley load` has put there is root's to use"
    } else {
        "remove it, or take its place with --replace (it is not put back)"
    }
}

fn refusal_remedy(mode: Mode) -> &'static str {
    match mode {
        Mode::Generic => "an MTU above 3498, LRO or a bond above it are common reasons",
        _ => {
            "the driver, the MTU or too few queues are common reasons; --mode generic works on any interface, slowly"
        }
    }
}

fn takeover_remedy(foreign: &Foreign, source: &io::Error) -> &'static str {
    if foreign.kind == Kind::Link && source.raw_os_error() == Some(libc::EPERM) {
        "; a program attached by link is taken off by its owner, or by --replace with CAP_SYS_ADMIN (as root)"
    } else {
        ""
    }
}

/// Fails when the capabilities for attaching are missing, before anything else is tried.
pub(crate) fn check_privileges() -> Result<(), AttachError> {
    let missing = privilege::missing(&[Capability::NetAdmin, Capability::Bpf]);
    if missing.is_empty() { Ok(()) } else { Err(AttachError::Privileges { missing }) }
}

/// A program of ours, attached.
pub(crate) struct Attachment {
    pub(crate) program: Program,
    pub(crate) link: Link,
    pub(crate) mode: Mode,
    pub(crate) takeover: Option<Takeover>,
}

/// Loads our program and attaches it to an interface by link.
pub(crate) fn attach(interface: &Interface, options: &AttachOptions) -> Result<Attachment, AttachError> {
    let program = Program::load(None)?;
    let netlink = |source| AttachError::Netlink { interface: interface.name.clone(), source };
    let foreign = foreign::find(interface, program.as_fd()).map_err(netlink)?;
    let removed = match foreign {
        None => None,
        Some(foreign) if !options.replace => {
            return Err(AttachError::Occupied { interface: interface.name.clone(), foreign });
        }
        Some(foreign) => Some(foreign::remove(interface, foreign.clone()).map_err(|source| {
            AttachError::Takeover { interface: interface.name.clone(), foreign, source }
        })?),
    };
    match create_link(interface, &program, options.mode) {
        Ok((link, mode)) => {
            let takeover = removed.map(foreign::Removed::succeeded);
            Ok(Attachment { program, link, mode, takeover })
        }
        Err(error) => {
            if removed.is_some_and(|removed| !removed.put_back(interface)) {
                log::warn!("{interface} is left without an XDP program: the previous one was taken off");
            }
            // Somebody may have been faster than us.
            let busy = matches!(&error, AttachError::Refused { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)));
            match foreign::find(interface, program.as_fd()) {
                Ok(Some(foreign)) if busy => {
                    Err(AttachError::Occupied { interface: interface.name.clone(), foreign })
                }
                _ => Err(error),
            }
        }
    }
}

fn create_link(
    interface: &Interface,
    program: &Program,
    wanted: AttachMode,
) -> Result<(Link, Mode), AttachError> {
    let create = |mode| match Link::create(program.as_fd(), program.info.id, interface, mode) {
        Ok(link) => Ok((link, mode)),
        Err(LinkError::Refused(source)) => {
            Err(AttachError::Refused { interface: interface.name.clone(), mode, source })
        }
        Err(LinkError::Unverified(why)) => {
            Err(AttachError::NotALink { interface: interface.name.clone(), why })
        }
    };
    match wanted {
        AttachMode::Native => create(Mode::Native),
        AttachMode::Generic => create(Mode::Generic),
        AttachMode::Auto => create(Mode::Native).or_else(|error| {
            let AttachError::Refused { source, .. } = &error else { return Err(error) };
            if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::ENODEV)) {
                return Err(error);
            }
            let generic = create(Mode::Generic)?;
            log::warn!(
                "{interface} refuses native XDP ({source}): attached in generic mode, which costs most of the speed"
            );
            Ok(generic)
        }),
    }
}

/// Directories of pins whose interface is gone, removed with a line of log.
pub(crate) fn sweep_pins() -> Vec<PathBuf> {
    let swept = crate::pin::sweep();
    for dir in &swept {
        log::info!("{} removed: its interface is gone", dir.display());
    }
    swept
}
