//! EAL: DPDK's environment in this process.

use crate::args::{EalArgs, Memory, PREFIX};
use crate::error::{Errno, Error, explain};
use crate::memif::Broker;
use crate::port::Port;
use crate::visitor::Visitor;
use crate::{logs, pci, stale};
use std::borrow::Cow;
use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use volley_dpdk_sys as sys;

static STARTED: AtomicBool = AtomicBool::new(false);

/// EAL, running. Cheap to clone: it is cleaned up when the last clone, port, device and pool made with it is gone.
#[derive(Clone, Debug)]
pub struct Eal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Removed at the end.
    runtime: PathBuf,
    /// It is not cleaned up: a device could not be stopped.
    abandoned: AtomicBool,
    /// See [`EalArgs::give_up`].
    give_up: Option<Arc<AtomicBool>>,
    /// EAL keeps pointers into its arguments.
    _arguments: Vec<CString>,
}

// What `argv` points to is owned by `_arguments` for as long as EAL runs.
impl Eal {
    /// Starts EAL, once per process. The calling thread's affinity is as before afterwards.
    ///
    /// # Errors
    /// See [`Error`]: no huge pages, a device that is not there or bound to the kernel, a prefix in use, or what EAL says.
    pub fn start(args: &EalArgs) -> Result<Eal, Error> {
        for device in &args.pci {
            pci::check(device)?;
        }
        if args.memory != Memory::NoHuge {
            huge_pages()?;
        }
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Error::Twice);
        }
        let mut arguments = Vec::new();
        for word in args.command_line() {
            let refused = |_| Error::Refused {
                errno: Errno(libc::EINVAL),
                said: "an argument holds a zero byte".into(),
            };
            arguments.push(CString::new(word).map_err(refused)?);
        }
        let mut argv: Vec<*mut c_char> = arguments.iter().map(|word| word.as_ptr().cast_mut()).collect();
        sweep(&runtime_directory(), Path::new("/proc"));
        // Made by EAL even when nothing is to be shared.
        let runtime = runtime_directory().join(args.prefix());
        logs::capture();
        let affinity = Affinity::of_this_thread();
        let parsed = logs::starting(|| {
            // SAFETY: argv points to argc strings that live as long as EAL; EAL does not write into them.
            unsafe { sys::volley_eal_init(argv.len() as c_int, argv.as_mut_ptr()) }
        });
        affinity.restore();
        if parsed < 0 {
            let error = refusal(args, Errno::last());
            if !matches!(error, Error::PrefixInUse { .. }) {
                let _ = std::fs::remove_dir_all(runtime);
            }
            return Err(error);
        }
        let abandoned = AtomicBool::new(false);
        let give_up = args.give_up.clone();
        let eal = Eal { inner: Arc::new(Inner { runtime, abandoned, give_up, _arguments: arguments }) };
        match args.given_up() {
            true => Err(Error::GivenUp { doing: "DPDK started".into() }),
            false => Ok(eal),
        }
    }

    /// Makes a port of a device: a PCI address among those EAL was told, or a virtual device with its arguments
    /// (`net_memif0,role=client`).
    ///
    /// # Errors
    /// When no driver takes it.
    pub fn probe(&self, device: &str) -> Result<Port, Error> {
        let name = device.split(',').next().unwrap_or_default().trim();
        let refused = |errno: Errno| Error::NoPort { device: device.to_owned(), errno, said: explain() };
        let c_name = CString::new(name).map_err(|_| refused(Errno(libc::EINVAL)))?;
        let (broker, told) = match Broker::of(device)? {
            Some((broker, told)) => (Some(broker), told),
            None => (None, amended(device).into_owned()),
        };
        let c_device = CString::new(told).map_err(|_| refused(Errno(libc::EINVAL)))?;
        if let Some(id) = port_by_name(&c_name) {
            return Port::new(self.clone(), id, device, broker);
        }
        if pci::is_address(name) {
            // EAL has tried it at its start.
            return Err(match pci::holder(name) {
                Some(node) => Error::Busy { device: name.to_owned(), node },
                None => refused(Errno(libc::ENODEV)),
            });
        }
        stale::sweep(device);
        let visitor = Visitor::of(device, self.inner.give_up.as_ref());
        logs::forget();
        // SAFETY: a string that EAL copies.
        let failed = unsafe { sys::rte_dev_probe(c_device.as_ptr()) };
        let called_off = visitor.is_some_and(Visitor::came);
        match port_by_name(&c_name) {
            Some(id) if failed == 0 => Port::new(self.clone(), id, device, broker),
            _ if called_off => {
                Err(Error::GivenUp { doing: format!("{name} waited for its other end ({device})") })
            }
            _ => Err(refused(Errno(failed))),
        }
    }
}

/// The device's arguments, with what its driver needs to work.
///
/// virtio-user, told nothing, uses split rings with buffers in order, and then (seen in 22.11: a vhost stopped for half a second)
/// never sends again once its ring was full. Packed rings are faster, and a vhost without them leaves split rings not in order.
fn amended(device: &str) -> Cow<'_, str> {
    let told = device.contains("in_order=") || device.contains("packed_vq=");
    match device.starts_with("net_virtio_user") && !told {
        true => format!("{device},packed_vq=1,in_order=0").into(),
        false => device.into(),
    }
}

impl Eal {
    /// Leaves the cleaning up to the end of the process.
    pub(crate) fn abandon(&self) {
        self.inner.abandoned.store(true, Ordering::Release);
    }
}

fn port_by_name(name: &CString) -> Option<u16> {
    let mut id = 0;
    // SAFETY: a string to read and a place to write.
    let failed = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) };
    (failed == 0).then_some(id)
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::Acquire) {
            // SAFETY: everything made with this EAL holds a clone of it, so nothing of it is left.
            let failed = unsafe { sys::rte_eal_cleanup() };
            if failed != 0 {
                log::debug!("rte_eal_cleanup: {}", Errno(failed));
            }
        }
        // EAL leaves its files to be found by secondaries that no longer have a primary.
        let _ = std::fs::remove_dir_all(&self.runtime);
    }
}

/// The calling thread as one of EAL's: what gives it a cache in each mempool. Unregistered when dropped, on that thread.
#[derive(Debug)]
pub struct Registered {
    /// A registration belongs to its thread.
    _thread: PhantomData<*const ()>,
    _eal: Eal,
}

impl Registered {
    /// Registers the calling thread. Pin it first: EAL notes its NUMA node.
    ///
    /// # Errors
    /// When EAL knows as many threads as it can.
    pub fn this_thread(eal: &Eal) -> Result<Registered, Error> {
        // SAFETY: EAL runs, since there is an `Eal`.
        match unsafe { sys::rte_thread_register() } {
            0 => Ok(Registered { _thread: PhantomData, _eal: eal.clone() }),
            _ => Err(Error::Thread { errno: Errno::last() }),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread was registered, and EAL still runs.
        unsafe { sys::rte_thread_unregister() };
    }
}

/// A thread's affinity, to be put back.
struct Affinity(libc::cpu_set_t);

impl Affinity {
    fn of_this_thread() -> Affinity {
        // SAFETY: a set of bits, all zero is the empty one.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is as large as said.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        Affinity(set)
    }

    fn restore(&self) {
        // SAFETY: as above. Failing leaves the thread on its lcore's cores, which is no error.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) };
    }
}

/// Where EAL keeps what it shares, as it finds the place itself.
fn runtime_directory() -> PathBuf {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::getuid() } == 0;
    match (root, std::env::var_os("XDG_RUNTIME_DIR")) {
        (true, _) => PathBuf::from("/var/run/dpdk"),
        (false, Some(directory)) => Path::new(&directory).join("dpdk"),
        (false, None) => PathBuf::from("/tmp/dpdk"),
    }
}

/// Removes what killed processes of ours could not: their directories hold their process's number.
fn sweep(directory: &Path, processes: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !processes.join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Looks whether there are free huge pages of any size, or the kernel may make some.
fn huge_pages() -> Result<(), Error> {
    huge_pages_in(Path::new("/sys/kernel/mm/hugepages"))
}

fn huge_pages_in(directory: &Path) -> Result<(), Error> {
    let read =
        |path: &Path| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let size = name.to_string_lossy().replace("hugepages-", "");
        let (free, all) = (read(&path.join("free_hugepages")), read(&path.join("nr_hugepages")));
        let (free, all) = (free.unwrap_or(0), all.unwrap_or(0));
        let may = read(&path.join("nr_overcommit_hugepages")).unwrap_or(0);
        if free > 0 || may > read(&path.join("surplus_hugepages")).unwrap_or(0) {
            return Ok(());
        }
        found.push(format!("{all} of {size}, none free"));
    }
    found.sort();
    Err(Error::NoHugePages {
        found: if found.is_empty() { "this kernel has none".into() } else { found.join("; ") },
    })
}

/// What EAL's messages mean.
fn refusal(args: &EalArgs, errno: Errno) -> Error {
    let said = logs::last();
    let says = |text: &str| said.iter().any(|line| line.contains(text));
    if says("Is another primary process running") {
        return Error::PrefixInUse { prefix: args.prefix() };
    }
    // The first of these that was said; what stands before it is about pages of other sizes, or where none are mounted.
    let lacks =
        ["Not enough memory available", "No free 2048 kB hugepages", "Cannot get hugepage information"];
    if let Some(found) = lacks.iter().find_map(|text| said.iter().find(|line| line.contains(text))) {
        return Error::NoHugePages { found: found.clone() };
    }
    Error::Refused { errno, said: explain() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_user_does_not_use_buffers_in_order_unless_told_to() {
        assert_eq!(amended("net_virtio_user0,path=/x"), "net_virtio_user0,path=/x,packed_vq=1,in_order=0");
        for device in ["net_virtio_user0,in_order=1,path=/x", "net_virtio_user0,packed_vq=1", "net_null0"] {
            assert_eq!(amended(device), device);
        }
    }

    #[test]
    fn what_the_dead_left_is_swept_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("volley-sweep-{}", std::process::id()));
        let (runtime, processes) = (root.join("dpdk"), root.join("proc"));
        for name in ["volley-11", "volley-12", "volley-x", "rte", "12"] {
            std::fs::create_dir_all(runtime.join(name)).unwrap();
        }
        std::fs::create_dir_all(processes.join("12")).unwrap();
        sweep(&runtime, &processes);
        let left =
            ["volley-11", "volley-12", "volley-x", "rte", "12"].map(|name| runtime.join(name).exists());
        assert_eq!(left, [false, true, true, true, true]);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn without_free_huge_pages_it_is_said_how_to_get_some() {
        let root = std::env::temp_dir().join(format!("volley-pages-{}", std::process::id()));
        let set = |size: &str, free: &str, all: &str| {
            let directory = root.join(format!("hugepages-{size}"));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("free_hugepages"), free).unwrap();
            std::fs::write(directory.join("nr_hugepages"), all).unwrap();
        };
        let look = || huge_pages_in(&root).map_err(|error| error.to_string());
        assert!(look().unwrap_err().contains("this kernel has none"));
        set("2048kB", "0\n", "64\n");
        set("1048576kB", "0\n", "0\n");
        let text = look().unwrap_err();
        assert!(
            text.contains("64 of 2048kB, none free") && text.contains("sysctl vm.nr_hugepages"),
            "{text}"
        );
        set("2048kB", "3\n", "64\n");
        assert!(look().is_ok());
        // None kept, but some may be made.
        set("2048kB", "0\n", "0\n");
        let of_two_mib = root.join("hugepages-2048kB");
        std::fs::write(of_two_mib.join("nr_overcommit_hugepages"), "8\n").unwrap();
        std::fs::write(of_two_mib.join("surplus_hugepages"), "7\n").unwrap();
        assert!(look().is_ok());
        std::fs::write(of_two_mib.join("surplus_hugepages"), "8\n").unwrap();
        assert!(look().is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
