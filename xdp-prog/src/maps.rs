//! The program's maps as this process holds them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, PerCpuArray, XskMap};
use volley_steer::abi::{COUNTER_SLOTS, Control, Counters, GRACE_MS, RuleTable, maps};

use crate::mapped::MappedRules;
use crate::sys;

/// The maps that outlive a load, in the order in which they are pinned.
pub(crate) const PINNED: [&str; 3] = [maps::RULES, maps::SOCKETS, maps::COUNTERS];

/// Rules, sockets and counters of one loaded program.
pub(crate) struct Maps {
    rules: MappedRules,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; COUNTER_SLOTS]>,
    /// aya's typed maps do not lend theirs.
    descriptors: [OwnedFd; 3],
    /// The kernel's numbers for them, in the order of [`PINNED`].
    pub(crate) ids: [u32; 3],
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
    pub(crate) fn with_ids(ids: [u32; 3]) -> Result<Maps, MapError> {
        let mut ids = ids.into_iter();
        Maps::collect(|_| MapData::from_id(ids.next().unwrap_or(0)).and_then(Map::from_map_data))
    }

    /// The number of the rules map: tells which program's rules an owner speaks of.
    pub(crate) fn rules_id(&self) -> u32 {
        self.ids[0]
    }

    fn collect(mut map: impl FnMut(&str) -> Result<Map, MapError>) -> Result<Maps, MapError> {
        let all = PINNED.map(|name| map(name).and_then(Part::of));
        let [rules, sockets, counters] = all;
        let (rules, sockets, counters) = (rules?, sockets?, counters?);
        Ok(Maps {
            ids: [rules.id, sockets.id, counters.id],
            rules: MappedRules::of(rules.fd.as_fd()).map_err(MapError::IoError)?,
            sockets: sockets.map.try_into()?,
            counters: counters.map.try_into()?,
            descriptors: [rules.fd, sockets.fd, counters.fd],
        })
    }

    /// Their descriptors, in the order of [`PINNED`].
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        self.descriptors.each_ref().map(AsFd::as_fd)
    }

    /// Version of the loader that filled them, and the generation of the rules.
    pub(crate) fn control(&self) -> Control {
        self.rules.control()
    }

    /// Marks fresh maps with this loader's version.
    pub(crate) fn stamp(&mut self) {
        self.rules.stamp();
    }

    /// Replaces all rules: fills the half that is not read, then turns to it. The caller is the only writer.
    pub(crate) fn write_rules(&mut self, table: &RuleTable) {
        // A program that began before the last turn may still read the half that is written next.
        if let Err(error) = sys::wait_for_running_programs() {
            log::debug!("membarrier: {error}; waiting {GRACE_MS} ms instead");
            std::thread::sleep(std::time::Duration::from_millis(GRACE_MS));
        }
        self.rules.replace(table);
    }

    /// Puts a socket behind a queue, in place of the one that may be there.
    pub(crate) fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.sockets.set(queue, socket.as_raw_fd(), 0)
    }

    /// Whether a queue has a socket. The kernel does not let a socket map be read, so a socket that is bound nowhere is offered
    /// for the place if it is free; it stands there for a moment, in which the queue's packets are dropped, when it was.
    pub(crate) fn has_socket(&mut self, queue: u32) -> Result<bool, MapError> {
        /// `BPF_NOEXIST` of linux/bpf.h.
        const IF_FREE: u64 = 1;
        let stranger = sys::unbound_socket().map_err(MapError::IoError)?;
        match self.sockets.set(queue, stranger.as_raw_fd(), IF_FREE) {
            Ok(()) => self.clear_socket(queue).map(|()| false),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
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
    /// Bytes of the largest value that any version may have: 20 times this one's.
    const ROOM: usize = 16 << 20;
    let map = sys::pinned(&dir.join(maps::RULES))?;
    let size = MapData::from_fd(map.try_clone()?)
        .and_then(|map| map.info().map(|info| info.value_size() as usize))
        .map_err(std::io::Error::other)?;
    if !(size_of::<u32>()..=ROOM).contains(&size) {
        return Err(std::io::Error::other(format!("{} holds {size} bytes", maps::RULES)));
    }
    let mut value = vec![0; size];
    sys::array_lookup(map.as_fd(), 0, &mut value)?;
    Ok(u32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
}
