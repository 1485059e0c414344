//! Loading the steering program into the kernel; attaching it is [`link`](crate::link)'s work.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::programs::{ProgramError, ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use volley_steer::abi::programs;

use crate::maps::{Maps, PINNED};
use crate::object;
use crate::privilege::{self, Capability};
use crate::sys;

/// Why the program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object or one of its maps.
    #[error("the XDP program's maps cannot be made: {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier refused it, mostly.
    #[error("the kernel refuses the XDP program: {0}")]
    Program(#[from] ProgramError),
    /// The maps are not what this version expects.
    #[error("the XDP program's maps cannot be used: {0}")]
    Maps(#[from] aya::maps::MapError),
    /// The kernel's description of the program.
    #[error("the loaded XDP program cannot be examined: {0}")]
    Info(#[from] std::io::Error),
    /// The object lacks it.
    #[error("the embedded object has no XDP program {}: it was built from other sources", programs::STEER)]
    Absent,
}

/// A loaded program and its maps. It runs nowhere yet and vanishes with the descriptor.
pub(crate) struct Program {
    fd: ProgramFd,
    pub(crate) maps: Maps,
    pub(crate) info: sys::ProgramInfo,
}

impl Program {
    /// Loads the embedded program. `reuse` names a directory of pinned maps to go on with, of this ABI version.
    pub(crate) fn load(reuse: Option<&Path>) -> Result<Program, LoadError> {
        // Before Linux 5.11 BPF memory counts against this limit; raising it needs CAP_SYS_RESOURCE.
        if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
            log::debug!("RLIMIT_MEMLOCK stays as it is ({errno}): fine from Linux 5.11 on");
        }
        let mut loader = EbpfLoader::new();
        if let Some(dir) = reuse {
            for name in PINNED {
                loader.map_pin_path(name, dir.join(name));
            }
        }
        let mut object: Ebpf = loader.load(object::OBJECT)?;
        let (fd, name) = match load(&mut object, programs::STEER) {
            Err(LoadError::Program(error)) if is_guarded(&error) => {
                log::info!(
                    "without CAP_PERFMON the kernel guards XDP programs against Spectre: loading the variant that \
                     reads packets by helper, which costs some ns per packet"
                );
                (load(&mut object, programs::STEER_GUARDED)?, programs::STEER_GUARDED)
            }
            outcome => (outcome?, programs::STEER),
        };
        let mut maps = Maps::take(&mut object)?;
        maps.stamp();
        let mut info = sys::program_info(fd.as_fd())?;
        // Without CAP_PERFMON aya does not dare to name it.
        name.clone_into(&mut info.name);
        Ok(Program { fd, maps, info })
    }
}

fn load(object: &mut Ebpf, name: &str) -> Result<ProgramFd, LoadError> {
    let program: &mut Xdp = object.program_mut(name).ok_or(LoadError::Absent)?.try_into()?;
    program.load()?;
    Ok(program.fd()?.try_clone()?)
}

/// True when the verifier refused what it would have accepted from a loader with CAP_PERFMON.
fn is_guarded(error: &ProgramError) -> bool {
    let refused = matches!(error, ProgramError::LoadError { io_error, .. }
        if matches!(io_error.raw_os_error(), Some(libc::EACCES | libc::EPERM)));
    refused && !privilege::missing(&[Capability::Perfmon]).is_empty()
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
