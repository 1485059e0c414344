//! The control channel of a memif device, with us in the middle.
//!
//! The driver (22.11 and 24.11) unmaps what it shared with its other end as soon as that is gone, on EAL's own thread and whatever the
//! workers are reading at the time; a process was seen to die of it. And as a client it never connects again. So the driver does not
//! see its other end, but us: we hear first that it is gone, keep the workers out ([`Gate`]), let the driver take down what it has, and
//! connect it anew.
//!
//! ```text
//!   other end ◄── socket, as it was given ──► this thread ◄── private abstract socket ──► driver
//!      gone ─────────────────────────────────► close the gate, hang up ────────────────────► unmaps, hangs up
//!                                              (a client: stop and start the device), open the gate ◄──┘
//! ```
//!
//! Messages and descriptors pass as they are: both ends agree on regions and rings among themselves, and packets never come by here.

use crate::error::Error;
use crate::gate::Gate;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, listen, recvmsg, sendmsg, shutdown, socket,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use volley_dpdk_sys as sys;

/// Between two attempts to reach a server that is not there: a player's client would have waited longer.
const RETRY: Duration = Duration::from_millis(100);
/// Longest the driver may take to take its memory down. It takes microseconds; a busy machine may not run its thread at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a control message, and more than any has.
const MESSAGE: usize = 256;

/// Types of messages (memif 2.0), by number.
const ACK: u16 = 1;
const CONNECT: u16 = 6;
const CONNECTED: u16 = 7;
const DISCONNECT: u16 = 8;

/// A socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    path: String,
    is_abstract: bool,
}

impl Name {
    fn address(&self) -> Result<UnixAddr, Errno> {
        match self.is_abstract {
            true => UnixAddr::new_abstract(self.path.as_bytes()),
            false => UnixAddr::new(self.path.as_str()),
        }
    }

    fn connect(&self) -> Result<OwnedFd, Errno> {
        let fd = open()?;
        connect(fd.as_raw_fd(), &self.address()?)?;
        Ok(fd)
    }

    fn listen(&self) -> Result<OwnedFd, Errno> {
        let fd = open()?;
        bind(fd.as_raw_fd(), &self.address()?)?;
        listen(&fd, Backlog::new(16)?)?;
        Ok(fd)
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// The middle of one socket's connections.
#[derive(Debug)]
pub(crate) struct Broker {
    outside: Name,
    inside: Name,
    gate: Arc<Gate>,
    /// A client's device while it runs, to be started anew.
    device: Arc<Mutex<Option<u16>>>,
    quit: Arc<EventFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Removed at the end.
    file: Option<PathBuf>,
}

/// Servers by socket: several devices may listen at one.
static SERVERS: Mutex<Vec<Weak<Broker>>> = Mutex::new(Vec::new());
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Broker {
    /// Comes between a device and its socket, if it is a memif. Gives the device as its driver is to be told of it.
    ///
    /// # Errors
    /// When the socket is another process's, or cannot be made.
    pub fn of(device: &str) -> Result<Option<(Arc<Broker>, String)>, Error> {
        if !device.starts_with("net_memif") {
            return Ok(None);
        }
        let argument = |name| device.split(',').find_map(|argument| argument.trim().strip_prefix(name));
        let server = matches!(argument("role="), Some("server" | "master"));
        let outside = Name {
            path: argument("socket=").unwrap_or("/run/memif.sock").to_owned(),
            is_abstract: argument("socket-abstract=") != Some("no"),
        };
        let others = device.split(',').filter(|a| !a.trim().starts_with("socket"));
        let others = others.collect::<Vec<_>>().join(",");
        let told = |broker: &Broker| format!("{others},socket={},socket-abstract=yes", broker.inside.path);
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|broker| broker.strong_count() > 0);
        if server
            && let Some(broker) =
                servers.iter().filter_map(Weak::upgrade).find(|broker| broker.outside == outside)
        {
            let told = told(&broker);
            return Ok(Some((broker, told)));
        }
        let broker = Arc::new(Broker::start(outside, server, device)?);
        if server {
            servers.push(Arc::downgrade(&broker));
        }
        let told = told(&broker);
        Ok(Some((broker, told)))
    }

    fn start(outside: Name, server: bool, device: &str) -> Result<Broker, Error> {
        let refused = |errno: Errno| Error::Socket {
            device: device.split(',').next().unwrap_or_default().to_owned(),
            path: outside.path.clone(),
            errno: crate::error::Errno(errno as i32),
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let inside =
            Name { path: format!("volley-memif-{}-{number}", std::process::id()), is_abstract: true };
        let listener = match server {
            true => listen_outside(&outside),
            false => outside.address().and_then(|_| inside.listen()),
        };
        let listener = listener.map_err(refused)?;
        let quit = Arc::new(
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(refused)?,
        );
        let gate = Arc::new(Gate::default());
        let running = Arc::new(Mutex::new(None));
        let mut middle = Middle {
            listener,
            to: if server { inside.clone() } else { outside.clone() },
            server,
            lines: Vec::new(),
            not_before: Instant::now(),
            gate: Arc::clone(&gate),
            device: Arc::clone(&running),
            quit: Arc::clone(&quit),
        };
        let thread = std::thread::Builder::new()
            .name("volley-memif".into())
            .spawn(move || middle.run())
            .map_err(|_| refused(Errno::EAGAIN))?;
        let file = (server && !outside.is_abstract).then(|| PathBuf::from(&outside.path));
        Ok(Broker { outside, inside, gate, device: running, quit, thread: Mutex::new(Some(thread)), file })
    }

    /// What keeps the workers out.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The device runs, and may be started anew; or no longer.
    pub fn runs(&self, device: Option<u16>) {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = device;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.quit.write(1);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Listens; a socket that nobody listens at (its process was killed) is replaced.
fn listen_outside(name: &Name) -> Result<OwnedFd, Errno> {
    match name.listen() {
        Err(Errno::EADDRINUSE)
            if !name.is_abstract && matches!(name.connect(), Err(Errno::ECONNREFUSED)) =>
        {
            let _ = std::fs::remove_file(&name.path);
            name.listen()
        }
        outcome => outcome,
    }
}

/// One connection of the driver, and what it is connected to.
struct Line {
    driver: OwnedFd,
    peer: Option<OwnedFd>,
    /// Both ends have mapped what they share: workers may be in it.
    connected: bool,
    /// When a peer that is not there is looked for again.
    again: Instant,
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Stays,
    /// The other end is gone.
    PeerGone,
    /// The driver has hung up by itself, done with what it had.
    DriverGone,
}

/// The thread of a [`Broker`].
struct Middle {
    listener: OwnedFd,
    /// What a connection is connected to.
    to: Name,
    server: bool,
    lines: Vec<Line>,
    /// The next connection is not carried on before: a server that refuses would be asked without end.
    not_before: Instant,
    gate: Arc<Gate>,
    device: Arc<Mutex<Option<u16>>>,
    quit: Arc<EventFd>,
}

impl Middle {
    fn run(&mut self) {
        while !self.wait() {
            for line in std::mem::take(&mut self.lines) {
                self.serve(line);
            }
            self.accept();
        }
        for line in std::mem::take(&mut self.lines) {
            self.gate.close();
            line.hang_up();
            self.gate.open();
        }
    }

    /// Waits until there is something to do; true when that is to end.
    fn wait(&self) -> bool {
        let mut fds = vec![
            PollFd::new(self.quit.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for line in &self.lines {
            let both = [Some(&line.driver), line.peer.as_ref()];
            fds.extend(both.into_iter().flatten().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        }
        let waits = self.lines.iter().filter(|line| line.peer.is_none()).map(|line| line.again).min();
        let timeout = waits.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
        });
        let _ = poll(&mut fds, timeout);
        fds[0].any().unwrap_or(false)
    }

    /// Takes new connections: of other ends where the driver listens, of the driver where it connects.
    fn accept(&mut self) {
        while let Ok(fd) =
            accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
        {
            // SAFETY: just made, and nobody else's.
            let come = unsafe { OwnedFd::from_raw_fd(fd) };
            let line = match self.server {
                // The driver may not listen yet, or no more: the other end tries again.
                true => self.to.connect().ok().map(|driver| (driver, Some(come))),
                false => Some((come, None)),
            };
            if let Some((driver, peer)) = line {
                let line = Line { driver, peer, connected: false, again: self.not_before };
                self.serve(line);
            }
        }
    }

    /// Carries what there is, and keeps the line unless an end is gone.
    fn serve(&mut self, mut line: Line) {
        if line.peer.is_none() && Instant::now() >= line.again {
            line.peer = self.to.connect().ok();
            line.again = Instant::now() + RETRY;
        }
        let mut next = line.hear_driver();
        if next == Next::Stays {
            next = line.hear_peer(&self.gate);
        }
        match next {
            Next::Stays => self.lines.push(line),
            Next::DriverGone => self.restart(),
            Next::PeerGone => {
                self.gate.close();
                match line.hang_up() {
                    true => self.restart(),
                    // Better a device that stands still than one that reads what may be gone.
                    false => {
                        return log::error!("a memif driver does not hang up: its device stands still");
                    }
                }
                self.gate.open();
            }
        }
    }

    /// Has a client's driver connect (to us) again.
    fn restart(&mut self) {
        self.not_before = Instant::now() + RETRY;
        let running = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(device) = running.filter(|_| !self.server) else { return };
        self.gate.close();
        // SAFETY: the device runs, nobody uses its queues (the gate), and it stays for as long as we hold the lock.
        let failed = unsafe {
            sys::rte_eth_dev_stop(device);
            sys::rte_eth_dev_start(device)
        };
        if failed != 0 {
            log::error!("a memif device cannot be started anew: {}", crate::error::Errno(failed));
        }
        self.gate.open();
    }
}

impl Line {
    /// Carries what the driver says.
    fn hear_driver(&mut self) -> Next {
        // Before there is a peer the driver has nothing to say, but it may hang up.
        loop {
            match Message::receive(&self.driver) {
                Ok(Some(message)) => match self.peer.as_ref().is_some_and(|peer| message.send(peer)) {
                    true => {}
                    false => return Next::PeerGone,
                },
                Ok(None) => return Next::Stays,
                Err(_) => return Next::DriverGone,
            }
        }
    }

    /// Carries what the other end says. What would have the driver unmap something is said behind a closed gate.
    fn hear_peer(&mut self, gate: &Gate) -> Next {
        loop {
            let Some(peer) = &self.peer else { return Next::Stays };
            let message = match Message::receive(peer) {
                Ok(Some(message)) => message,
                Ok(None) => return Next::Stays,
                Err(_) => return Next::PeerGone,
            };
            match message.kind() {
                // Regions and rings are agreed on before, and nothing changes them but a new connection.
                kind if self.connected && kind != ACK => {
                    if kind == DISCONNECT {
                        gate.close();
                        message.send(&self.driver);
                    }
                    return Next::PeerGone;
                }
                kind => self.connected |= matches!(kind, CONNECT | CONNECTED),
            }
            if !message.send(&self.driver) {
                return Next::PeerGone;
            }
        }
    }

    /// Hangs up, and waits until the driver has: it does so last. False when it does not.
    fn hang_up(self) -> bool {
        let _ = shutdown(self.driver.as_raw_fd(), Shutdown::Write);
        let until = Instant::now() + PATIENCE;
        loop {
            match Message::receive(&self.driver) {
                Err(_) => return true,
                Ok(Some(_)) => continue,
                Ok(None) if Instant::now() >= until => return false,
                Ok(None) => {}
            }
            let mut fds = [PollFd::new(self.driver.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(100u8));
        }
    }
}

/// A control message with the descriptors it carries.
struct Message {
    bytes: [u8; MESSAGE],
    len: usize,
    fds: Vec<OwnedFd>,
}

impl Message {
    /// Receives one; `None` when there is none now.
    fn receive(from: &OwnedFd) -> Result<Option<Message>, Errno> {
        let mut bytes = [0; MESSAGE];
        let mut room = nix::cmsg_space!([std::os::fd::RawFd; 8], libc::ucred);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut fds = Vec::new();
        let len = {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            let got = match recvmsg::<UnixAddr>(from.as_raw_fd(), &mut iov, Some(&mut room), flags) {
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                got => got?,
            };
            for control in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(come) = control {
                    // SAFETY: come with the message, and nobody else's.
                    fds.extend(come.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            got.bytes
        };
        match len {
            0 => Err(Errno::EPIPE),
            len => Ok(Some(Message { bytes, len, fds })),
        }
    }

    /// Sends it on; false when the other side does not take it.
    fn send(&self, to: &OwnedFd) -> bool {
        let raw: Vec<_> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let controls: &[ControlMessage<'_>] = match raw.is_empty() {
            true => &[],
            false => &[ControlMessage::ScmRights(&raw)],
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let iov = [IoSlice::new(&self.bytes[..self.len])];
        sendmsg::<UnixAddr>(to.as_raw_fd(), &iov, controls, flags, None).is_ok()
    }

    fn kind(&self) -> u16 {
        u16::from_le_bytes([self.bytes[0], self.bytes[1]])
    }
}

#[cfg(test)]
mod tests;
