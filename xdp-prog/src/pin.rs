//! Pins: programs, maps and links that outlive the process, as files in a BPF file system.
//!
//! ```text
//! /sys/fs/bpf/volley/<netns inode>-<ifindex>/
//!     program   link   volley_control   volley_sockets   volley_counters
//! ```
//!
//! A directory is built under another name and then renamed, so that it is complete or absent. The first word
//! of `volley_control` is the ABI version, in every version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::interface::Interface;
use crate::link::{Link, Mode};
use crate::maps::{self, Maps, PINNED};
use crate::sys;

/// Where the BPF file system is by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// Where our directories are.
const ROOT: &str = "/sys/fs/bpf/volley";

const PROGRAM: &str = "program";
const LINK: &str = "link";

/// Why pins cannot be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system and none can be mounted.
    #[error(
        "no BPF file system is mounted at {BPFFS} and it cannot be mounted ({0}): as root, `mount -t bpf bpf {BPFFS}`"
    )]
    NoFileSystem(io::Error),
    /// One pin or directory.
    #[error("pin {}: {source}", path.display())]
    Io {
        /// The pin.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The pinned maps.
    #[error("the maps pinned in {} cannot be used: {source}; `volley unload` removes them", dir.display())]
    Maps {
        /// Their directory.
        dir: PathBuf,
        /// The reason.
        source: aya::maps::MapError,
    },
}

/// The pins of one interface.
#[derive(Clone, Debug)]
pub(crate) struct PinDir {
    path: PathBuf,
}

/// What is found under an interface's pins.
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Left from an interface that is gone, or from a program that was taken off.
    Stale(String),
    /// A program that runs on the interface.
    Running(Running),
}

/// A pinned program that runs on its interface.
pub(crate) struct Running {
    pub(crate) link: Link,
    pub(crate) mode: Mode,
    /// Version of the maps.
    pub(crate) abi: u32,
    /// What the link runs.
    pub(crate) program: sys::ProgramInfo,
    /// False when an upgrade was cut short: the link runs another program than the pinned one.
    pub(crate) whole: bool,
}

/// Mounts the BPF file system if there is none; true if that was done.
pub(crate) fn ensure_file_system() -> Result<bool, PinError> {
    if statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(false);
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| PinError::NoFileSystem(errno.into()))?;
    Ok(true)
}

/// Removes the pins of interfaces that are gone, in all namespaces. Returns what was removed.
pub(crate) fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let gone = |dir: &Path| Link::pinned(&dir.join(LINK)).is_ok_and(|link| link.info.interface == Some(0));
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| gone(dir) && PinDir { path: dir.clone() }.remove().is_ok())
        .collect()
}

impl PinDir {
    /// Where an interface's pins are, if there are any.
    pub(crate) fn of(interface: &Interface) -> PinDir {
        PinDir { path: Path::new(ROOT).join(interface.key()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at what is there.
    pub(crate) fn find(&self, interface: &Interface) -> Result<Found, PinError> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // The file system is root's alone by custom. If there are pins, their program will be in the way.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                log::debug!("{}: {error}: going on as if nothing were pinned", self.path.display());
                return Ok(Found::Nothing);
            }
            Err(source) => return Err(PinError::Io { path: self.path.clone(), source }),
            Ok(_) => {}
        }
        let link = match Link::pinned(&self.path.join(LINK)) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::Stale("the pins lack a link".to_owned()));
            }
            Err(source) => return Err(self.error(LINK, source)),
        };
        let mode = match link.mode_on(interface) {
            Ok(mode) => mode,
            Err(why) => return Ok(Found::Stale(why)),
        };
        let program =
            sys::pinned(&self.path.join(PROGRAM)).map_err(|source| self.error(PROGRAM, source))?;
        let program = sys::program_info(std::os::fd::AsFd::as_fd(&program))
            .map_err(|source| self.error(PROGRAM, source))?;
        let abi = maps::pinned_abi(&self.path).map_err(|source| self.error("ABI word", source))?;
        let whole = program.id == link.info.program_id;
        Ok(Found::Running(Running { link, mode, abi, program, whole }))
    }

    /// The maps that are pinned.
    pub(crate) fn maps(&self) -> Result<Maps, PinError> {
        Maps::pinned(&self.path).map_err(|source| PinError::Maps { dir: self.path.clone(), source })
    }

    /// A directory beside this one, empty, to build its successor in.
    pub(crate) fn staging(&self) -> Result<PinDir, PinError> {
        // No dot: the BPF file system reserves names with one.
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push("-new");
        let staging = PinDir { path: self.path.with_file_name(name) };
        staging.remove()?;
        fs::create_dir_all(&staging.path).map_err(|source| staging.error("", source))?;
        Ok(staging)
    }

    /// Pins a whole program here.
    pub(crate) fn fill(
        &self,
        program: impl std::os::fd::AsFd,
        maps: &Maps,
        link: &Link,
    ) -> Result<(), PinError> {
        for (name, map) in PINNED.iter().zip(maps.descriptors()) {
            sys::pin(map, &self.path.join(name)).map_err(|source| self.error(name, source))?;
        }
        sys::pin(program, &self.path.join(PROGRAM)).map_err(|source| self.error(PROGRAM, source))?;
        sys::pin(link, &self.path.join(LINK)).map_err(|source| self.error(LINK, source))
    }

    /// Puts a filled staging directory in this one's place, in one step, and removes what was here.
    pub(crate) fn replace_with(&self, staging: PinDir) -> Result<(), PinError> {
        if !self.path.exists() {
            return fs::rename(&staging.path, &self.path).map_err(|source| self.error("", source));
        }
        renameat2(AT_FDCWD, &staging.path, AT_FDCWD, &self.path, RenameFlags::RENAME_EXCHANGE)
            .map_err(|errno| self.error("", errno.into()))?;
        staging.remove()
    }

    /// Removes all pins here, the link first; and the directory. Nothing there is no error.
    pub(crate) fn remove(&self) -> Result<(), PinError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.error("", source)),
            Ok(entries) => entries,
        };
        let _ = fs::remove_file(self.path.join(LINK));
        for entry in entries.flatten() {
            let path = entry.path();
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(PinError::Io { path, source });
                }
                _ => {}
            }
        }
        fs::remove_dir(&self.path).map_err(|source| self.error("", source))
    }

    /// Removes what [`PinDir::find`] found to be left over, and says so.
    pub(crate) fn remove_stale(&self, why: &str) -> Result<(), PinError> {
        self.remove()?;
        log::info!("pins in {} removed: {why}", self.path.display());
        Ok(())
    }

    fn error(&self, name: &str, source: io::Error) -> PinError {
        PinError::Io { path: self.path.join(name), source }
    }
}
