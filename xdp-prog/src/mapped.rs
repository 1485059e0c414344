//! The rules map as memory of this process: written in place, seen by the program at once.
//!
//! ```text
//! version | generation ──lowest bit──┐
//! half 0: ports, lists  ◄────────────┤ one is read by programs,
//! half 1: ports, lists  ◄────────────┘ the other is written here
//! ```
//!
//! The half that is read is never written, not even with the bytes it has. The generation is stored with
//! release ordering after the other half; a program reads the half through an address made from the
//! generation, which no CPU does in the wrong order.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use volley_steer::abi::{ABI_VERSION, Control, RuleTable, Rules};

/// The value of the rules map, shared with the kernel and with other loaders.
pub(crate) struct MappedRules {
    memory: NonNull<Rules>,
}

// SAFETY: the mapping belongs to no thread; writing takes `&mut self`, and the two words are atomic.
unsafe impl Send for MappedRules {}

impl MappedRules {
    /// Maps the value. One that is smaller is refused, as that of ABI 1 is; its version is the caller's to
    /// check.
    pub(crate) fn of(map: BorrowedFd<'_>) -> io::Result<MappedRules> {
        // SAFETY: a new mapping at an address of the kernel's choice. It refuses a map that is not
        // mappable, or whose value has fewer pages.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Rules>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(memory.cast())
            .map(|memory| MappedRules { memory })
            .ok_or(io::ErrorKind::OutOfMemory.into())
    }

    /// Version of the loader that filled it, and the generation of the rules.
    pub(crate) fn control(&self) -> Control {
        Control {
            abi_version: self.abi_version().load(Ordering::Acquire),
            generation: self.generation().load(Ordering::Acquire),
        }
    }

    /// Marks it with this loader's version.
    pub(crate) fn stamp(&mut self) {
        self.abi_version().store(ABI_VERSION, Ordering::Release);
    }

    /// Fills the half that is not read, then turns to it. The caller is the only writer, and no program
    /// still reads that half from before the last turn.
    pub(crate) fn replace(&mut self, table: &RuleTable) {
        let control = self.control();
        // SAFETY: within the mapping, which is page-aligned; by the caller's promise nobody reads or writes
        // this half meanwhile. `table` is memory of this process and not the mapping, to which no reference
        // is lent.
        unsafe {
            let half = (&raw mut (*self.memory.as_ptr()).halves).cast::<RuleTable>();
            half.add(control.inactive_half() as usize).copy_from_nonoverlapping(table, 1);
        }
        self.generation().store(control.generation.wrapping_add(1), Ordering::Release);
    }

    fn abi_version(&self) -> &AtomicU32 {
        // SAFETY: an aligned word of the mapping, which lives as long as `self` and is only accessed
        // atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.as_ptr()).control.abi_version) }
    }

    fn generation(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.as_ptr()).control.generation) }
    }
}

impl Drop for MappedRules {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping, to which no reference outlives `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), size_of::<Rules>()) };
    }
}
