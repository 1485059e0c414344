//! The program's maps as this process holds them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use volley_steer::abi::{ABI_VERSION, COUNTER_SLOTS, Control, Counters, GRACE_MS, RuleTable, maps};
use zerocopy::{IntoBytes, transmute};

use crate::sys;

/// The maps that outlive a load, in the order in which they are pinned.
pub(crate) const PINNED: [&str; 4] = [maps::CONTROL, maps::RULES, maps::SOCKETS, maps::COUNTERS];

type ControlBytes = [u32; 2];
type TableBytes = [u8; size_of::<RuleTable>()];

/// Rules, sockets and counters of one loaded program.
pub(crate) struct Maps {
    control: Array<MapData, ControlBytes>,
    rules: Array<MapData, TableBytes>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; COUNTER_SLOTS]>,
    /// aya's typed maps do not lend theirs.
    descriptors: [OwnedFd; 4],
    /// The kernel's numbers for them, in the order of [`PINNED`].
    pub(crate) ids: [u32; 4],
}

impl Maps {
    /// The maps of a program just loaded.
    pub(crate) fn take(program: &mut Ebpf) -> Result<Maps, MapError> {
        Maps::collect(|name| {
            program.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
        })
    }

    /// The maps pinned in a directory.
    pub(crate) fn pinned(dir: &Path) -> Result<Maps, MapError> {
        Maps::collect(|name| MapData::from_pin(dir.join(name)).and_then(Map::from_map_data))
    }

    /// The maps of these numbers, in the order of [`PINNED`]. Needs CAP_SYS_ADMIN.
    pub(crate) fn with_ids(ids: [u32; 4]) -> Result<Maps, MapError> {
        let mut ids = ids.into_iter();
        Maps::collect(|_| MapData::from_id(ids.next().unwrap_or(0)).and_then(Map::from_map_data))
    }

    /// The number of the rules map: tells which program's rules an owner speaks of.
    pub(crate) fn rules_id(&self) -> u32 {
        self.ids[1]
    }

    fn collect(mut map: impl FnMut(&str) -> Result<Map, MapError>) -> Result<Maps, MapError> {
        let all = PINNED.map(|name| map(name).and_then(Part::of));
        let [control, rules, sockets, counters] = all;
        let (control, rules, sockets, counters) = (control?, rules?, sockets?, counters?);
        Ok(Maps {
            ids: [control.id, rules.id, sockets.id, counters.id],
            control: control.map.try_into()?,
            rules: rules.map.try_into()?,
            sockets: sockets.map.try_into()?,
            counters: counters.map.try_into()?,
            descriptors: [control.fd, rules.fd, sockets.fd, counters.fd],
        })
    }

    /// Their descriptors, in the order of [`PINNED`].
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        self.descriptors.each_ref().map(AsFd::as_fd)
    }

    /// Version of the loader that filled them, and the generation of the rules.
    pub(crate) fn control(&self) -> Result<Control, MapError> {
        Ok(transmute!(self.control.get(&0, 0)?))
    }

    /// Marks fresh maps with this loader's version.
    pub(crate) fn stamp(&mut self) -> Result<(), MapError> {
        let generation = self.control()?.generation;
        self.set_control(Control { abi_version: ABI_VERSION, generation })
    }

    fn set_control(&mut self, control: Control) -> Result<(), MapError> {
        let bytes: ControlBytes = transmute!(control);
        self.control.set(0, bytes, 0)
    }

    /// Replaces all rules: fills the half that is not read, then turns to it. The caller is the only writer.
    pub(crate) fn write_rules(&mut self, table: &RuleTable) -> Result<(), MapError> {
        let mut control = self.control()?;
        // A program that began before the last turn may still read the half that is written next.
        if let Err(error) = sys::wait_for_running_programs() {
            log::debug!("membarrier: {error}; waiting {GRACE_MS} ms instead");
            std::thread::sleep(std::time::Duration::from_millis(GRACE_MS));
        }
        let bytes: &TableBytes = table.as_bytes().try_into().expect("the table's own size");
        self.rules.set(control.inactive_half(), bytes, 0)?;
        control.generation = control.generation.wrapping_add(1);
        self.set_control(control)
    }

    /// Puts a socket behind a queue, in place of the one that may be there.
    pub(crate) fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.sockets.set(queue, socket.as_raw_fd(), 0)
    }

    /// Takes the socket from a queue; no error when there is none.
    pub(crate) fn clear_socket(&mut self, queue: u32) -> Result<(), MapError> {
        match self.sockets.unset(queue) {
            Err(MapError::SyscallError(error))
                if matches!(error.io_error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Packets per reason, summed over all CPUs.
    pub(crate) fn counters(&self) -> Result<Counters, MapError> {
        let mut sum = Counters::default();
        for cpu in self.counters.get(&0, 0)?.iter() {
            for (total, value) in sum.values.iter_mut().zip(cpu) {
                *total = total.wrapping_add(*value);
            }
        }
        Ok(sum)
    }
}

/// A map before it gets its type.
struct Part {
    id: u32,
    fd: OwnedFd,
    map: Map,
}

impl Part {
    fn of(map: Map) -> Result<Part, MapError> {
        let (Map::Array(data) | Map::XskMap(data) | Map::PerCpuArray(data)) = &map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Part { id: data.info()?.id(), fd, map })
    }
}

/// The ABI word of a pinned program, whatever the rest of that map looks like in its version.
pub(crate) fn pinned_abi(dir: &Path) -> std::io::Result<u32> {
    /// Room for the value of any version.
    const ROOM: usize = 4096;
    let map = sys::pinned(&dir.join(maps::CONTROL))?;
    let size = MapData::from_fd(map.try_clone()?)
        .and_then(|map| map.info().map(|info| info.value_size() as usize))
        .map_err(std::io::Error::other)?;
    if size > ROOM {
        return Err(std::io::Error::other(format!("{} holds {size} bytes", maps::CONTROL)));
    }
    let mut value = [0u8; ROOM];
    sys::array_lookup(map.as_fd(), 0, &mut value)?;
    Ok(u32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
}
