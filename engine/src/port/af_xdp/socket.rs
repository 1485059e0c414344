//! Everything about an AF_XDP port that needs privilege: sockets, UMEM registration, rings, bind. It hands back
//! descriptors and mapped rings; nothing after it needs more rights than those.
//!
//! ```text
//!   socket of the first queue    UMEM_REG ── 4 rings ── post ── bind(ifindex, queue, flags)
//!   socket of each other queue               4 rings ── post ── bind(ifindex, queue, SHARED_UMEM of the first)
//! ```

use super::plan::Plan;
use super::ring::{Consumer, Descriptor, Layout, Producer, RingMemory};
use super::{AfXdpConfig, AfXdpError, TxChecksum, checksum};
use crate::host::link;
use crate::port::PortStats;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h, Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// The kernel's own transmit budget, and the least it takes.
const LEAST_TX_BUDGET: u32 = 32;
/// `SO_PREFER_BUSY_POLL` and `SO_BUSY_POLL_BUDGET` of asm-generic/socket.h.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// How long to wait between two tries to bind a busy queue: a closed socket's queue is free again after some ms.
const BIND_STEP: Duration = Duration::from_millis(10);
/// What the kernel charges a socket for one small frame in flight in copy mode (its skb's true size), generously.
const SKB_BYTES: u32 = 4096;

/// One queue, bound.
pub(super) struct Bound {
    pub socket: XdpSocket,
    pub rx: Consumer<Descriptor>,
    pub tx: Producer<Descriptor>,
    pub fill: Producer<u64>,
    pub completion: Consumer<u64>,
    /// Chunks that are in the fill ring.
    pub posted: u32,
}

/// What came of opening.
pub(super) struct Opened {
    pub queues: Vec<Bound>,
    /// Zero-copy is on, as read back from the kernel.
    pub zero_copy: bool,
    /// Why it is not, although the device offers it.
    pub refused: Option<io::Error>,
    /// Checksums marked so are finished.
    pub tx_checksum: bool,
}

/// Opens and binds a socket for every queue over the UMEM at `region`.
///
/// `post` puts the first chunks into a fill ring and says how many, before the bind: a zero-copy driver fills the device's
/// ring from it there and then, and one that finds it empty complains, or begins by losing packets.
pub(super) fn open(
    config: &AfXdpConfig,
    plan: &Plan,
    region: (*mut u8, usize),
    mut post: impl FnMut(&mut Producer<u64>) -> u32,
) -> Result<Opened, AfXdpError> {
    let mut refused_zero_copy = None;
    let mut tx_checksum = false;
    let mut bound: Vec<Bound> = Vec::with_capacity(config.queues.len());
    let witness = Arc::new(link::socket().map_err(|source| refused("opening a socket", source))?);
    for &queue in &config.queues {
        let socket = XdpSocket::new(plan.link.index, Arc::clone(&witness))?;
        if bound.is_empty() {
            tx_checksum = socket.register_umem(config, plan, region)?;
        }
        socket.set_ring_sizes(config)?;
        let (rx, tx, mut fill, completion) = socket.map_rings(config)?;
        socket.tune(config)?;
        let posted = post(&mut fill);
        let copied = socket.bind(config, plan, queue, bound.first().map(|first| &first.socket))?;
        refused_zero_copy = refused_zero_copy.or(copied);
        bound.push(Bound { socket, rx, tx, fill, completion, posted });
    }
    let zero_copy = match bound.first() {
        Some(first) => first.socket.is_zero_copy()?,
        None => false,
    };
    Ok(Opened { queues: bound, zero_copy, refused: refused_zero_copy, tx_checksum })
}

/// An AF_XDP socket, bound to a queue of one interface.
#[derive(Debug)]
pub(super) struct XdpSocket {
    fd: OwnedFd,
    interface: u32,
    /// An ordinary socket of the same network namespace, to ask about the interface: AF_XDP sockets take no ioctl.
    witness: Arc<OwnedFd>,
}

impl XdpSocket {
    fn new(interface: u32, witness: Arc<OwnedFd>) -> Result<XdpSocket, AfXdpError> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EAFNOSUPPORT) => AfXdpError::Unsupported { missing: "no AF_XDP sockets" },
                _ => refused("opening an AF_XDP socket", source),
            });
        }
        // SAFETY: just made, ours alone.
        Ok(XdpSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) }, interface, witness })
    }

    /// Registers the UMEM; says whether with room for metadata, which is where checksums are asked for.
    fn register_umem(
        &self,
        config: &AfXdpConfig,
        plan: &Plan,
        (memory, bytes): (*mut u8, usize),
    ) -> Result<bool, AfXdpError> {
        let by_kernel =
            if config.tx_checksum == TxChecksum::Kernel { libc::XDP_UMEM_TX_SW_CSUM } else { 0 };
        let register = |metadata: bool| {
            let region = libc::xdp_umem_reg {
                addr: memory as u64,
                len: bytes as u64,
                chunk_size: config.chunk,
                headroom: config.headroom,
                flags: if metadata { libc::XDP_UMEM_TX_METADATA_LEN | by_kernel } else { 0 },
                tx_metadata_len: if metadata { checksum::METADATA_BYTES } else { 0 },
            };
            self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &region)
        };
        let registered = match register(plan.tx_checksum) {
            // A kernel that says what the device can do and does not take the flag (Linux 6.8 to 6.10 as they came out).
            Err(error) if plan.tx_checksum && error.raw_os_error() == Some(libc::EINVAL) => {
                log::info!(
                    "{}: this kernel takes no transmit metadata: checksums are ours",
                    config.interface
                );
                register(false).map(|()| false)
            }
            outcome => outcome.map(|()| plan.tx_checksum),
        };
        registered.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS) => AfXdpError::Memory { bytes, source },
            _ => refused("registering the UMEM", source),
        })
    }

    fn set_ring_sizes(&self, config: &AfXdpConfig) -> Result<(), AfXdpError> {
        for (option, size, name) in [
            (libc::XDP_UMEM_FILL_RING, config.fill_ring, "fill"),
            (libc::XDP_UMEM_COMPLETION_RING, config.completion_ring, "completion"),
            (libc::XDP_RX_RING, config.rx_ring, "receive"),
            (libc::XDP_TX_RING, config.tx_ring, "transmit"),
        ] {
            self.set(libc::SOL_XDP, option, &size)
                .map_err(|source| refused(&format!("making a {name} ring of {size} entries"), source))?;
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn map_rings(
        &self,
        config: &AfXdpConfig,
    ) -> Result<(Consumer<Descriptor>, Producer<Descriptor>, Producer<u64>, Consumer<u64>), AfXdpError>
    {
        let (at, len): (libc::xdp_mmap_offsets, _) = self
            .get(libc::XDP_MMAP_OFFSETS)
            .map_err(|source| refused("asking for the layout of the rings", source))?;
        if len < size_of::<libc::xdp_mmap_offsets>() {
            return Err(AfXdpError::Unsupported { missing: "rings without wakeup flags" });
        }
        let layout = |offset: &libc::xdp_ring_offset| Layout {
            producer: offset.producer as usize,
            consumer: offset.consumer as usize,
            flags: offset.flags as usize,
            entries: offset.desc as usize,
        };
        let (rx, tx, fill, completion) = (layout(&at.rx), layout(&at.tx), layout(&at.fr), layout(&at.cr));
        let map = |page_offset: u64, layout: Layout, entries: u32, entry: usize| {
            self.map(page_offset as libc::off_t, layout.entries + entries as usize * entry)
                .map_err(|source| refused("mapping a ring", source))
        };
        let (descriptor, address) = (size_of::<Descriptor>(), size_of::<u64>());
        let rx_memory = map(libc::XDP_PGOFF_RX_RING as u64, rx, config.rx_ring, descriptor)?;
        let tx_memory = map(libc::XDP_PGOFF_TX_RING as u64, tx, config.tx_ring, descriptor)?;
        let fill_memory = map(libc::XDP_UMEM_PGOFF_FILL_RING, fill, config.fill_ring, address)?;
        let completion_memory =
            map(libc::XDP_UMEM_PGOFF_COMPLETION_RING, completion, config.completion_ring, address)?;
        // SAFETY: each mapping is of the ring, of the size and with the layout that the kernel gave for it, and its other end is
        // the kernel's; descriptors and addresses are plain numbers.
        unsafe {
            Ok((
                Consumer::new(rx_memory.1, rx_memory.0, rx, config.rx_ring),
                Producer::new(tx_memory.1, tx_memory.0, tx, config.tx_ring),
                Producer::new(fill_memory.1, fill_memory.0, fill, config.fill_ring),
                Consumer::new(completion_memory.1, completion_memory.0, completion, config.completion_ring),
            ))
        }
    }

    fn map(&self, offset: libc::off_t, len: usize) -> io::Result<(NonNull<u8>, Arc<RingMemory>)> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping of our descriptor; no address is asked for.
        let addr = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, self.fd.as_raw_fd(), offset)
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let addr = NonNull::new(addr.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok((addr, Arc::new(RingMemory::Mapped { addr, len })))
    }

    fn tune(&self, config: &AfXdpConfig) -> Result<(), AfXdpError> {
        let budget = config.tx_budget.clamp(LEAST_TX_BUDGET, config.tx_ring.max(LEAST_TX_BUDGET));
        if let Err(error) = self.set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget) {
            log::debug!("the kernel transmits {LEAST_TX_BUDGET} frames a wakeup in copy mode: {error}");
        }
        // A copy-mode frame counts against the socket's send buffer until the device has freed it; with the default of about
        // 200 KiB only some 250 frames could be under way. Without CAP_NET_ADMIN the default stays, which is only slower.
        let bytes = config.tx_ring.saturating_mul(SKB_BYTES).min(i32::MAX as u32 / 2) as libc::c_int;
        if self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
        if let Some(poll) = config.busy_poll {
            let number = |value: u32| value.min(i32::MAX as u32) as libc::c_int;
            for (option, value, name) in [
                (SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL"),
                (libc::SO_BUSY_POLL, number(poll.usecs), "SO_BUSY_POLL"),
                (SO_BUSY_POLL_BUDGET, number(poll.budget), "SO_BUSY_POLL_BUDGET"),
            ] {
                self.set(libc::SOL_SOCKET, option, &value)
                    .map_err(|source| refused(&format!("busy polling ({name} {value})"), source))?;
            }
        }
        Ok(())
    }

    /// Binds to a queue; returns why the kernel copies although zero-copy was asked for.
    fn bind(
        &self,
        config: &AfXdpConfig,
        plan: &Plan,
        queue: u16,
        shared: Option<&XdpSocket>,
    ) -> Result<Option<io::Error>, AfXdpError> {
        let mut copied = None;
        let began = Instant::now();
        let mut zero_copy = plan.zero_copy;
        loop {
            // A shared UMEM's socket takes the first one's mode.
            let flags = match shared {
                Some(_) => libc::XDP_SHARED_UMEM,
                None => {
                    libc::XDP_USE_NEED_WAKEUP
                        | if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY }
                        | if plan.multi_buffer { libc::XDP_USE_SG } else { 0 }
                }
            };
            let address = libc::sockaddr_xdp {
                sxdp_family: libc::AF_XDP as u16,
                sxdp_flags: flags,
                sxdp_ifindex: plan.link.index,
                sxdp_queue_id: u32::from(queue),
                sxdp_shared_umem_fd: shared.map_or(0, |first| first.fd.as_raw_fd() as u32),
            };
            // SAFETY: the address is a sockaddr_xdp of the length said.
            let bound = unsafe {
                libc::bind(
                    self.fd.as_raw_fd(),
                    std::ptr::from_ref(&address).cast(),
                    size_of::<libc::sockaddr_xdp>() as u32,
                )
            };
            if bound == 0 {
                return Ok(copied);
            }
            let source = io::Error::last_os_error();
            let interface = &config.interface;
            match source.raw_os_error() {
                Some(libc::EBUSY) if began.elapsed() < config.bind_patience => {
                    std::thread::sleep(BIND_STEP);
                }
                Some(libc::EBUSY) => {
                    return Err(AfXdpError::QueueBusy {
                        interface: interface.clone(),
                        queue,
                        waited_ms: began.elapsed().as_millis(),
                    });
                }
                Some(libc::EINVAL | libc::EOPNOTSUPP) if zero_copy && shared.is_none() => {
                    if plan.insist {
                        let why = format!("it offers it, but binding queue {queue} failed: {source}");
                        return Err(AfXdpError::NoZeroCopy { interface: interface.clone(), why });
                    }
                    zero_copy = false;
                    copied = Some(source);
                }
                Some(libc::ENETDOWN) => {
                    let doing = format!(
                        "binding {interface} queue {queue}: bring it up, `ip link set {interface} up`"
                    );
                    return Err(refused(&doing, source));
                }
                _ => return Err(refused(&format!("binding {interface} queue {queue}"), source)),
            }
        }
    }

    fn is_zero_copy(&self) -> Result<bool, AfXdpError> {
        let (options, _): (libc::xdp_options, _) =
            self.get(libc::XDP_OPTIONS).map_err(|source| refused("reading XDP_OPTIONS", source))?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Adds the kernel's counters of this socket to `stats`; nothing when the socket no longer answers.
    pub fn add_statistics(&self, stats: &mut PortStats) {
        let Ok((kernel, _)) = self.get::<libc::xdp_statistics>(libc::XDP_STATISTICS) else { return };
        stats.rx_dropped += kernel.rx_dropped;
        stats.rx_ring_full += kernel.rx_ring_full;
        stats.fill_ring_empty += kernel.rx_fill_ring_empty_descs;
        stats.invalid_descriptors += kernel.rx_invalid_descs + kernel.tx_invalid_descs;
    }

    /// True when the interface is no longer in the socket's network namespace. ENXIO alone does not say so: drivers answer it
    /// in zero-copy mode while they are reconfigured.
    pub fn is_gone(&self) -> bool {
        // SAFETY: all zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
        request.ifr_ifru.ifru_ifindex = self.interface as libc::c_int;
        // SAFETY: SIOCGIFNAME reads the index and writes the name of this ifreq.
        let answer = unsafe { libc::ioctl(self.witness.as_raw_fd(), libc::SIOCGIFNAME as _, &mut request) };
        answer != 0 && errno() == libc::ENODEV
    }

    /// Wakes the kernel's transmit side. In copy mode the frames are sent within the call.
    #[inline]
    pub fn wake_tx(&self) -> Result<(), i32> {
        // SAFETY: no data is passed; AF_XDP takes this call as the doorbell.
        let sent = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if sent >= 0 { Ok(()) } else { Err(errno()) }
    }

    /// Wakes the kernel's receive side (new chunks in the fill ring), or polls it when busy polling is on.
    #[inline]
    pub fn wake_rx(&self) -> Result<(), i32> {
        let null = std::ptr::null_mut::<libc::sockaddr>();
        // SAFETY: no data is passed; AF_XDP takes this call as the doorbell.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                null,
                std::ptr::null_mut(),
            )
        };
        if received >= 0 { Ok(()) } else { Err(errno()) }
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the value is readable for its size; the kernel copies it.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads an option of SOL_XDP, and how many bytes of it this kernel knows; the rest is zero. `T` is one of libc's plain
    /// structures of numbers.
    fn get<T>(&self, option: libc::c_int) -> io::Result<(T, usize)> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the value is writable for the length said.
        let done = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                option,
                value.as_mut_ptr().cast(),
                &mut len,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed and then partly written: any bytes are a valid structure of numbers.
        Ok((unsafe { value.assume_init() }, len as usize))
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[inline]
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn refused(doing: &str, source: io::Error) -> AfXdpError {
    let doing = doing.to_string();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => AfXdpError::NotPermitted { doing, source },
        _ => AfXdpError::Refused { doing, source },
    }
}
