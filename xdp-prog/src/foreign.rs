//! A program of somebody else on the interface: who it is, and taking its place.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use volley_steer::abi::programs;

use crate::interface::Interface;
use crate::link::{Link, Mode};
use crate::owner::RunDir;
use crate::rtnl;
use crate::sys;

/// An XDP program that this process did not attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The kernel's number for it (`bpftool prog show id N`).
    pub program_id: u32,
    /// Its name; `None` when the kernel does not tell without CAP_SYS_ADMIN.
    pub name: Option<String>,
    /// True when it is Volley's own program, attached by another process without pins.
    pub volley: bool,
    /// Where it runs.
    pub mode: Mode,
    /// How it is attached.
    pub kind: Kind,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a bpf_link, which some process or pin holds.
    Link,
    /// By netlink (`ip link set xdp`): it stays until it is taken off.
    Netlink,
    /// The kernel does not tell without CAP_SYS_ADMIN.
    Unknown,
}

impl Foreign {
    fn new(interface: &Interface, attached: rtnl::Attached, kind: Kind) -> Foreign {
        let name = name_of(attached.program_id);
        let volley = matches!(name.as_deref(), Some(programs::STEER | programs::STEER_GUARDED))
            || RunDir::of(interface).program(attached.program_id).is_some();
        Foreign { program_id: attached.program_id, name, volley, mode: attached.mode, kind }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XDP program {}", self.program_id)?;
        match &self.name {
            _ if self.volley => write!(f, " `{}`", programs::STEER)?,
            Some(name) if !name.is_empty() => write!(f, " `{name}`")?,
            Some(_) => f.write_str(" (nameless)")?,
            None => f.write_str(" (its name takes CAP_SYS_ADMIN)")?,
        }
        let kind = match self.kind {
            Kind::Link => "link",
            Kind::Netlink => "netlink",
            Kind::Unknown => "link or netlink (which takes CAP_SYS_ADMIN to tell)",
        };
        write!(f, ", {} mode, attached by {kind}", self.mode)
    }
}

/// What taking an interface over did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The program that was there.
    pub from: Foreign,
    /// How long the interface had no program at most: its packets went to the kernel.
    pub gap: Duration,
}

/// The program on an interface, if there is one. `ours` is any loaded program that is attached nowhere.
pub(crate) fn find(interface: &Interface, ours: BorrowedFd<'_>) -> io::Result<Option<Foreign>> {
    let Some(attached) = rtnl::attached(interface.index)?.first().copied() else { return Ok(None) };
    let held_by_link = rtnl::held_by_link(interface.index, attached.mode, ours)?;
    let kind = if held_by_link { Kind::Link } else { Kind::Netlink };
    Ok(Some(Foreign::new(interface, attached, kind)))
}

/// The same without a program of our own: the links are searched, which takes CAP_SYS_ADMIN.
pub(crate) fn describe(interface: &Interface, attached: rtnl::Attached) -> Foreign {
    let kind = match link_of(interface, attached.program_id) {
        Ok(_) => Kind::Link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Kind::Netlink,
        Err(_) => Kind::Unknown,
    };
    Foreign::new(interface, attached, kind)
}

fn name_of(program_id: u32) -> Option<String> {
    let program = sys::program_by_id(program_id).ok()?;
    sys::program_info(program.as_fd()).ok().map(|info| info.name)
}

/// A program taken off its interface, not yet succeeded.
pub(crate) struct Removed {
    foreign: Foreign,
    program: Option<OwnedFd>,
    since: Instant,
}

/// Takes a foreign program off. A link is ended under its holder's feet, which takes CAP_SYS_ADMIN.
pub(crate) fn remove(interface: &Interface, foreign: Foreign) -> io::Result<Removed> {
    match foreign.kind {
        Kind::Netlink | Kind::Unknown => {
            let program = sys::program_by_id(foreign.program_id).ok();
            let since = Instant::now();
            rtnl::detach(interface.index, foreign.mode, program.as_ref().map(AsFd::as_fd))?;
            Ok(Removed { foreign, program, since })
        }
        Kind::Link => {
            let link = link_of(interface, foreign.program_id)?;
            let since = Instant::now();
            link.detach()?;
            Ok(Removed { foreign, program: None, since })
        }
    }
}

/// The link that holds a program to an interface.
fn link_of(interface: &Interface, program_id: u32) -> io::Result<Link> {
    let mut found = None;
    for link in sys::links() {
        let link = Link::from_fd(link?)?;
        if link.info.program_id != program_id || link.info.interface != Some(interface.index) {
            continue;
        }
        // Interfaces in different namespaces may share an index, and a link does not tell its namespace.
        if found.replace(link).is_some() {
            return Err(io::Error::other(format!(
                "program {program_id} has several links to interfaces number {}: which is {interface}'s cannot be told",
                interface.index
            )));
        }
    }
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("program {program_id} has no link to {interface}"))
    })
}

impl Removed {
    /// The successor is attached: what it took.
    pub(crate) fn succeeded(self) -> Takeover {
        Takeover { gap: self.since.elapsed(), from: self.foreign }
    }

    /// There will be no successor: puts the program back where that is possible, and says whether it was.
    pub(crate) fn put_back(self, interface: &Interface) -> bool {
        self.program.is_some_and(|program| {
            rtnl::attach(interface.index, self.foreign.mode, program.as_fd()).is_ok()
        })
    }
}
