//! The attachment of a program to an interface, as a bpf_link: it lives as long as a descriptor or a pin of it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::interface::Interface;
use crate::rtnl;
use crate::sys;

/// Where in the kernel's receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel has built anything around the packet.
    Native,
    /// After the kernel has built an skb: works on every interface, costs most of what XDP saves.
    Generic,
    /// On the NIC itself.
    Offloaded,
}

impl Mode {
    /// `XDP_FLAGS_*_MODE` of linux/if_link.h.
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Mode::Generic => 1 << 1,
            Mode::Native => 1 << 2,
            Mode::Offloaded => 1 << 3,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::Offloaded => "offloaded",
        })
    }
}

/// Which [`Mode`] is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native or not at all.
    Native,
    /// Generic or not at all.
    Generic,
    /// Native, or else generic with a warning.
    #[default]
    Auto,
}

/// A verified XDP link.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
    pub(crate) info: sys::LinkInfo,
}

/// Why a link could not be had.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The kernel refused to make it.
    Refused(io::Error),
    /// What was made is not attached as it should be.
    Unverified(String),
}

impl Link {
    /// Attaches a program by link and verifies that this is what came of it.
    pub(crate) fn create(
        program: BorrowedFd<'_>,
        program_id: u32,
        interface: &Interface,
        mode: Mode,
    ) -> Result<Link, LinkError> {
        let fd = sys::link_create(program, interface.index, mode.flags()).map_err(LinkError::Refused)?;
        let link = Link::from_fd(fd).map_err(LinkError::Refused)?;
        match link.mode_on(interface) {
            Ok(found) if link.info.program_id == program_id && found == mode => Ok(link),
            Ok(found) => Err(LinkError::Unverified(format!(
                "asked for program {program_id} in {mode} mode, got {} in {found} mode",
                link.info.program_id
            ))),
            Err(why) => Err(LinkError::Unverified(why)),
        }
    }

    /// A link by the name it is pinned under.
    pub(crate) fn pinned(path: &Path) -> io::Result<Link> {
        Link::from_fd(sys::pinned(path)?)
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Link> {
        let info = sys::link_info(fd.as_fd())?;
        Ok(Link { fd, info })
    }

    /// The mode in which it serves this interface; otherwise what is wrong. Asks both the link and the
    /// interface, for an index may have been given to another interface since.
    pub(crate) fn mode_on(&self, interface: &Interface) -> Result<Mode, String> {
        match self.info.interface {
            None => return Err(format!("link {} is not an XDP link", self.info.id)),
            Some(0) => return Err(format!("the interface of link {} is gone", self.info.id)),
            Some(index) if index != interface.index => {
                return Err(format!("link {} belongs to interface number {index}", self.info.id));
            }
            Some(_) => {}
        }
        let attached = rtnl::attached(interface.index).map_err(|error| error.to_string())?;
        let ours = attached.iter().find(|attached| attached.program_id == self.info.program_id);
        ours.map(|attached| attached.mode)
            .ok_or_else(|| format!("program {} does not run on {interface}", self.info.program_id))
    }

    /// Swaps the program; every packet meets one of the two.
    pub(crate) fn update(&mut self, program: BorrowedFd<'_>) -> io::Result<()> {
        sys::link_update(self.fd.as_fd(), program)?;
        self.info = sys::link_info(self.fd.as_fd())?;
        Ok(())
    }

    /// Ends the attachment at once, even if others hold descriptors or pins of it.
    pub(crate) fn detach(&self) -> io::Result<()> {
        sys::link_detach(self.fd.as_fd())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
