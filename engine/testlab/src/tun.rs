//! TUN and TAP devices: an interface whose other end is this process. It vanishes with the descriptor.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

nix::ioctl_write_int!(set_interface, b'T', 202);

/// What is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// The user's end of a device, non-blocking.
#[derive(Debug)]
pub struct Tun(File);

impl Tun {
    /// Makes the device `name` (at most 15 letters) in the network namespace of this thread. It is down and has no address.
    ///
    /// # Errors
    /// What the kernel says: EBUSY when the name is taken, EPERM without CAP_NET_ADMIN, ENOENT without `/dev/net/tun`.
    pub fn new(name: &str, kind: Kind) -> io::Result<Tun> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: all zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name}: a name has at most 15 letters"),
            ));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let kind = if kind == Kind::Tun { libc::IFF_TUN } else { libc::IFF_TAP };
        request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives as long as the call.
        unsafe { set_interface(device.as_raw_fd(), (&raw mut request) as libc::c_ulong) }?;
        Ok(Tun(device))
    }

    /// Reads one packet or frame; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says; EIO while the device is down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one packet or frame.
    ///
    /// # Errors
    /// What the kernel says; EIO while the device is down.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write(packet).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
