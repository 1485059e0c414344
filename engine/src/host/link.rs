//! A network interface as the kernel's ioctls describe it: index, MTU, MAC, queues.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use volley_wire::ethernet::Mac;

/// `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// `SIOCETHTOOL` of linux/sockios.h.
pub(super) const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// One interface of the calling thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Its own address; all zero for loopback.
    pub mac: Mac,
    /// Queue numbers an AF_XDP socket may bind to are below this; `None` when the driver does not say.
    pub queues: Option<u32>,
    /// Administratively up.
    pub up: bool,
}

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Link {
    /// Looks `name` up.
    ///
    /// # Errors
    /// ENODEV when there is no such interface.
    pub fn find(name: &str) -> io::Result<Link> {
        let fd = socket()?;
        let ask = |request: libc::c_ulong, data: Option<&mut Channels>| {
            let mut ifreq = request_for(name)?;
            if let Some(data) = data {
                ifreq.ifr_ifru.ifru_data = std::ptr::from_mut(data).cast();
            }
            // SAFETY: the request is one of those below, all of which read and write an ifreq (and for ethtool a `Channels`).
            match unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &mut ifreq) } {
                0 => Ok(ifreq.ifr_ifru),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: each request fills the field of the union that is read.
        let (index, mtu, flags, mac) = unsafe {
            (
                ask(libc::SIOCGIFINDEX as _, None)?.ifru_ifindex,
                ask(libc::SIOCGIFMTU as _, None)?.ifru_mtu,
                ask(libc::SIOCGIFFLAGS as _, None)?.ifru_flags,
                ask(libc::SIOCGIFHWADDR as _, None)?.ifru_hwaddr.sa_data,
            )
        };
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        let queues = match ask(SIOCETHTOOL, Some(&mut channels)) {
            Ok(_) => Some((channels.combined + channels.rx.max(channels.tx)).max(1)),
            Err(_) => None,
        };
        Ok(Link {
            name: name.to_string(),
            index: index as u32,
            mtu: mtu as u32,
            mac: std::array::from_fn(|n| mac[n] as u8),
            queues,
            up: i32::from(flags) & libc::IFF_UP != 0,
        })
    }

    /// The names of all interfaces here, for messages.
    pub fn names() -> Vec<String> {
        nix::net::if_::if_nameindex()
            .map(|all| all.iter().map(|one| one.name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default()
    }
}

/// A socket of the calling thread's network namespace to ask with.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn request_for(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: all zero is a valid ifreq.
    let mut ifreq: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(ifreq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_described() {
        let lo = Link::find("lo").unwrap();
        assert_eq!((lo.index, lo.mtu, lo.mac), (1, 65536, [0; 6]));
        assert!(Link::names().contains(&"lo".to_string()));
    }

    #[test]
    fn what_does_not_exist_is_said() {
        for name in ["no-such-if", "", "a-name-far-too-long-for-an-interface"] {
            assert_eq!(Link::find(name).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
