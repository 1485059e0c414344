//! What runs on an interface, told to any process. Changes nothing.

use std::io;
use std::os::fd::AsFd;

use volley_steer::abi::Counters;
use volley_steer::abi::programs::STEER_GUARDED;

use crate::attach::AttachError;
use crate::foreign::{self, Foreign};
use crate::interface::Interface;
use crate::maps::Maps;
use crate::owner::RunDir;
use crate::pin::{Found, PinDir};
use crate::rtnl;
use crate::steering::Info;
use crate::sys;

/// What runs on an interface.
#[allow(clippy::large_enum_variant)] // one is made per look
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// No XDP program.
    Nothing,
    /// Somebody else's; or an unpinned one of ours, for whose maps the privileges do not suffice.
    Foreign(Foreign),
    /// Ours.
    Volley {
        /// What it is, and whose rules it follows.
        info: Info,
        /// Packets per reason since it was loaded. All zero when its ABI is another.
        counters: Counters,
    },
}

/// What runs on the interface of that name. A pinned program is read through its pins; one that another process
/// holds is found by the kernel's numbers, which takes CAP_SYS_ADMIN.
///
/// # Errors
/// [`AttachError::NoInterface`], [`AttachError::Netlink`], [`AttachError::Pin`].
pub fn inspect(interface: &str) -> Result<Inspection, AttachError> {
    let interface = Interface::find(interface)?;
    let netlink = |source| AttachError::Netlink { interface: interface.name.clone(), source };
    let Some(attached) = rtnl::attached(interface.index).map_err(netlink)?.first().copied() else {
        return Ok(Inspection::Nothing);
    };
    let pins = PinDir::of(&interface);
    if let Ok(Found::Running(found)) = pins.find(&interface) {
        let maps = pins.maps().ok();
        return Ok(volley(&interface, attached, found.program, maps.as_ref(), Some(&pins), found.abi));
    }
    let read = || {
        let record = RunDir::of(&interface).program(attached.program_id)?;
        let program = sys::program_by_id(attached.program_id).ok()?;
        let program = sys::program_info(program.as_fd()).ok()?;
        let maps = Maps::with_ids(record.map_ids).ok()?;
        let abi = maps.control().abi_version;
        Some(volley(&interface, attached, program, Some(&maps), None, abi))
    };
    Ok(read().unwrap_or_else(|| Inspection::Foreign(foreign::describe(&interface, attached))))
}

/// The program on an interface, described as somebody else's.
pub(crate) fn foreign_on(interface: &Interface) -> io::Result<Option<Foreign>> {
    Ok(rtnl::attached(interface.index)?.first().map(|attached| foreign::describe(interface, *attached)))
}

/// The process whose socket is behind a queue of this interface, as far as Volley processes go.
pub fn queue_holder(interface: &Interface, queue: u32) -> Option<u32> {
    RunDir::of(interface).queue_holder(queue)
}

fn volley(
    interface: &Interface,
    attached: rtnl::Attached,
    program: sys::ProgramInfo,
    maps: Option<&Maps>,
    pins: Option<&PinDir>,
    abi: u32,
) -> Inspection {
    let owners = RunDir::of(interface).owners().into_iter();
    let info = Info {
        interface: interface.clone(),
        program_id: attached.program_id,
        program_name: if program.name.is_empty() { STEER_GUARDED.to_owned() } else { program.name },
        tag: program.tag,
        mode: attached.mode,
        pinned: pins.map(|pins| pins.path().to_owned()),
        abi,
        generation: maps.map_or(0, |maps| maps.control().generation),
        owners: owners.filter(|owner| maps.is_some_and(|maps| owner.rules_id == maps.rules_id())).collect(),
    };
    let counters = maps.and_then(|maps| maps.counters().ok()).unwrap_or_default();
    Inspection::Volley { info, counters }
}
