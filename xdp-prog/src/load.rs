//! Leaving the program on an interface on purpose: some drivers drop the link for seconds on attach, so that a
//! server that restarts should find it there. And swapping and removing it.

use std::os::fd::AsFd;
use std::path::PathBuf;

use volley_steer::abi::ABI_VERSION;

use crate::attach::{self, AttachError, AttachOptions, Attachment};
use crate::foreign::Takeover;
use crate::inspect;
use crate::interface::Interface;
use crate::link::Mode;
use crate::owner::RunDir;
use crate::pin::{self, Found, PinDir, PinError, Running};
use crate::program::Program;

/// What [`load`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The interface.
    pub interface: Interface,
    /// The program that runs now.
    pub program_id: u32,
    /// Native or generic.
    pub mode: Mode,
    /// Where it is pinned.
    pub pins: PathBuf,
    /// True when a BPF file system had to be mounted.
    pub mounted: bool,
    /// What happened.
    pub change: Change,
}

/// How the program came to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was there, with this ABI: nothing was done.
    None,
    /// Attached anew, perhaps in somebody's place.
    Attached(Option<Takeover>),
    /// Swapped under the same link.
    Upgraded {
        /// The program before.
        from_program: u32,
        /// Its ABI.
        from_abi: u32,
        /// True when rules, sockets and counters went on in the same maps.
        maps_kept: bool,
    },
}

/// Attaches the program and pins it, its maps and its link. With `upgrade` a program that is already pinned is
/// swapped for this version's under its link, so that every packet meets one of the two; of the same ABI, it goes
/// on with the same rules, sockets and counters.
///
/// # Errors
/// [`AttachError`]; an interface that had our program then still has it.
pub fn load(options: &AttachOptions, upgrade: bool) -> Result<Loaded, AttachError> {
    let interface = Interface::find(&options.interface)?;
    attach::check_privileges()?;
    let mounted = pin::ensure_file_system()?;
    attach::sweep_pins();
    let run = RunDir::of(&interface);
    let _writer = run.writer()?;
    let pins = PinDir::of(&interface);
    match pins.find(&interface)? {
        Found::Nothing => {}
        Found::Stale(why) => pins.remove_stale(&why)?,
        Found::Running(found) if upgrade => return self::upgrade(interface, &run, &pins, found, mounted),
        Found::Running(found) if found.abi != ABI_VERSION => {
            return Err(AttachError::Abi { interface: interface.name, found: found.abi });
        }
        Found::Running(found) if !found.whole => {
            return Err(AttachError::HalfUpgraded { interface: interface.name });
        }
        Found::Running(found) => {
            let (program_id, mode) = (found.program.id, found.mode);
            let pins = pins.path().to_owned();
            return Ok(Loaded { interface, program_id, mode, pins, mounted, change: Change::None });
        }
    }
    // Made before attaching: where pins are impossible, the interface is left alone.
    let staging = pins.staging()?;
    let pinned = attach::attach(&interface, options).and_then(|attached| {
        let Attachment { program, link, mode, takeover } = attached;
        staging.fill(program.as_fd(), &program.maps, &link)?;
        pins.replace_with(staging.clone())?;
        Ok((program.info.id, mode, takeover))
    });
    match pinned {
        Ok((program_id, mode, takeover)) => {
            let pins = pins.path().to_owned();
            Ok(Loaded { interface, program_id, mode, pins, mounted, change: Change::Attached(takeover) })
        }
        Err(error) => {
            staging.remove()?;
            Err(error)
        }
    }
}

fn upgrade(
    interface: Interface,
    run: &RunDir,
    pins: &PinDir,
    mut found: Running,
    mounted: bool,
) -> Result<Loaded, AttachError> {
    let maps_kept = found.abi == ABI_VERSION;
    if !maps_kept {
        // Its rules could be carried over, its sockets could not: the kernel does not give them out.
        if let Some(owner) = run.owners().into_iter().find(|owner| owner.alive) {
            let (interface, found) = (interface.name, found.abi);
            return Err(AttachError::InUse { interface, owner: owner.name, pid: owner.pid, found });
        }
    }
    let program = Program::load(maps_kept.then(|| pins.path()))?;
    let staging = pins.staging()?;
    let swapped = staging.fill(program.as_fd(), &program.maps, &found.link).and_then(|()| {
        let path = pins.path().to_owned();
        found.link.update(program.as_fd()).map_err(|source| PinError::Io { path, source })
    });
    if let Err(error) = swapped {
        staging.remove()?;
        return Err(error.into());
    }
    pins.replace_with(staging)?;
    Ok(Loaded {
        program_id: program.info.id,
        mode: found.mode,
        pins: pins.path().to_owned(),
        mounted,
        change: Change::Upgraded { from_program: found.program.id, from_abi: found.abi, maps_kept },
        interface,
    })
}

/// Takes the pinned program off an interface and removes its pins; also sweeps those of interfaces that are
/// gone. Returns the program's number.
///
/// # Errors
/// [`AttachError::NotPinned`]; [`AttachError::StillUsed`] while a process has rules in it, unless `force`.
pub fn unload(interface: &str, force: bool) -> Result<u32, AttachError> {
    attach::sweep_pins();
    let interface = Interface::find(interface)?;
    attach::check_privileges()?;
    let run = RunDir::of(&interface);
    let writer = run.writer()?;
    let pins = PinDir::of(&interface);
    match pins.find(&interface)? {
        Found::Running(found) => {
            if let Some(owner) = run.owners().into_iter().find(|owner| owner.alive && !force) {
                let interface = interface.name;
                return Err(AttachError::StillUsed { interface, owner: owner.name, pid: owner.pid });
            }
            // Whoever still holds a descriptor of the link does not keep it attached.
            let detached = found.link.detach();
            pins.remove()?;
            run.tidy(writer);
            match detached {
                Ok(()) => Ok(found.program.id),
                Err(source) => Err(PinError::Io { path: pins.path().to_owned(), source }.into()),
            }
        }
        Found::Stale(why) => {
            pins.remove_stale(&why)?;
            Err(not_pinned(interface))
        }
        Found::Nothing => Err(not_pinned(interface)),
    }
}

fn not_pinned(interface: Interface) -> AttachError {
    let running = inspect::foreign_on(&interface).is_ok_and(|foreign| foreign.is_some_and(|it| it.volley));
    AttachError::NotPinned { interface: interface.name, running }
}
