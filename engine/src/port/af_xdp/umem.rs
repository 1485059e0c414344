//! The UMEM: one memfd that the kernel and we read and write packets in.
//!
//! ```text
//!   0          chunk        2·chunk                                    frames·chunk
//!   ├──────────┼────────────┼─── … ────────────────────────────────────┤
//!   │256│head│ packet      │                    chunk address = index · chunk
//! ```
//!
//! It is a memfd, so that a successor process could take it over. It never looks inside a packet.

use super::AfXdpError;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Once;

/// The huge page size we ask for. 1 GiB pages would waste most of one.
const HUGE_PAGE: usize = 2 << 20;

/// The mapped memory. Dropping it unmaps.
#[derive(Debug)]
pub struct Umem {
    memory: NonNull<u8>,
    mapped: usize,
    bytes: usize,
    huge: bool,
    _fd: OwnedFd,
}

// SAFETY: the mapping belongs to this value; who may touch which chunk is decided by frame tokens and rings.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps `bytes` bytes, on huge pages when `huge` and there are any, preferably on `numa_node`.
    ///
    /// # Errors
    /// [`AfXdpError::Memory`].
    pub fn new(bytes: usize, huge: bool, numa_node: Option<u32>) -> Result<Umem, AfXdpError> {
        if huge {
            match Umem::map(bytes, true, numa_node) {
                Ok(umem) => return Ok(umem),
                Err(error) => {
                    static SAID: Once = Once::new();
                    SAID.call_once(|| {
                        log::info!(
                            "no 2 MiB huge pages for the UMEM ({error}): using plain pages; \
                             reserve some with `sysctl vm.nr_hugepages={}`",
                            bytes.div_ceil(HUGE_PAGE)
                        );
                    });
                }
            }
        }
        Umem::map(bytes, false, numa_node).map_err(|source| AfXdpError::Memory { bytes, source })
    }

    fn map(bytes: usize, huge: bool, numa_node: Option<u32>) -> io::Result<Umem> {
        let flags = libc::MFD_CLOEXEC | if huge { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
        let mapped = if huge { bytes.next_multiple_of(HUGE_PAGE) } else { bytes };
        // SAFETY: the name is a C string.
        let fd = check(unsafe { libc::memfd_create(c"volley-umem".as_ptr(), flags) })?;
        // SAFETY: the descriptor was just made and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain system call on our descriptor.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), mapped as libc::off_t) })?;
        // Not MAP_POPULATE: the memory policy is set first. Registering the UMEM faults every page in.
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of our descriptor; no address is asked for.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), mapped, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        let umem = Umem { memory, mapped, bytes, huge, _fd: fd };
        if let Some(node) = numa_node {
            umem.prefer_node(node)?;
        }
        Ok(umem)
    }

    /// Asks for pages of `node`; others are taken when it has none.
    fn prefer_node(&self, node: u32) -> io::Result<()> {
        let mut mask = [0u64; 16];
        let word = mask.get_mut(node as usize / 64);
        *word.ok_or_else(|| io::Error::other(format!("NUMA node {node} is out of range")))? |=
            1 << (node % 64);
        // SAFETY: the range is our mapping, the mask has as many bits as said (the kernel wants one more in the count).
        let done = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.memory.as_ptr(),
                self.mapped,
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                mask.len() * 64 + 1,
                0,
            )
        };
        match done {
            0 => Ok(()),
            // Kernels without NUMA have no such call, and one node only.
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// First byte.
    #[inline(always)]
    pub fn memory(&self) -> NonNull<u8> {
        self.memory
    }

    /// Bytes to register: all chunks.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when it lies on huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of this length; its owner never drops it while a frame points into it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.mapped) };
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_mapped_writable_and_on_the_node_asked_for() {
        let umem = Umem::new(64 * 2048, true, Some(0)).unwrap();
        assert_eq!(umem.bytes(), 64 * 2048);
        // SAFETY: the last byte of the mapping, which nobody else uses.
        unsafe {
            umem.memory().add(umem.bytes() - 1).write(7);
            assert_eq!(umem.memory().add(umem.bytes() - 1).read(), 7);
        }
    }

    #[test]
    fn plain_pages_are_used_only_when_there_are_no_huge_ones() {
        let free = || {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
            line.map_or(0, |count| count.trim().parse::<u32>().unwrap())
        };
        let before = free();
        let umem = Umem::new(100 * 2048, true, None).unwrap();
        // A page that somebody else took meanwhile must not fail the test: more than one has to be left.
        assert!(umem.is_huge() || before < 2 || free() < 2);
        assert_eq!(umem.bytes(), 100 * 2048, "the rest of a huge page is not handed out");
        assert!(!Umem::new(100 * 2048, false, None).unwrap().is_huge());
    }

    #[test]
    fn what_cannot_be_had_is_a_typed_error() {
        let error = Umem::new(usize::MAX / 4, false, None).unwrap_err();
        assert!(matches!(error, AfXdpError::Memory { .. }), "{error}");
    }
}
