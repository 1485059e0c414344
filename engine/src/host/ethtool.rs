//! A device's driver and offloads, by the ethtool ioctls (linux/ethtool.h).

use super::link::{SIOCETHTOOL, request_for};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
/// The set of strings that names the features (`ETH_SS_FEATURES`).
const FEATURES: u32 = 4;
/// Bytes of a name (`ETH_GSTRING_LEN`).
const NAME: usize = 32;
/// Most features that are asked for; kernels have some 70.
const MOST: usize = 1024;

/// Asks one device.
pub struct Ethtool {
    socket: OwnedFd,
    name: String,
}

/// Who drives a device, and where it sits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The driver's name.
    pub name: String,
    /// The device's address on its bus ("0000:00:03.0"); empty for a virtual one.
    pub bus: String,
}

impl Ethtool {
    /// For the device `name` of the calling thread's network namespace.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn new(name: &str) -> io::Result<Ethtool> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, ours alone.
        Ok(Ethtool { socket: unsafe { OwnedFd::from_raw_fd(fd) }, name: name.to_owned() })
    }

    /// Its driver.
    ///
    /// # Errors
    /// The kernel's.
    pub fn driver(&self) -> io::Result<Driver> {
        // struct ethtool_drvinfo: cmd, then driver, version, fw_version, bus_info of 32 bytes each, and more: 196 bytes.
        let mut words = [0u32; 49];
        words[0] = ETHTOOL_GDRVINFO;
        self.ask(&mut words)?;
        let bytes = bytes_of(&words);
        let text = |at: usize| text(&bytes[at..at + 32]);
        let bus = Some(text(4 + 3 * 32)).filter(|bus| bus.contains(':')).unwrap_or_default();
        Ok(Driver { name: text(4), bus })
    }

    /// Every feature (offload) by ethtool's name, and whether it is on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn features(&self) -> io::Result<BTreeMap<String, bool>> {
        // struct ethtool_sset_info: cmd, reserved, mask (64 bits), one length a set asked for.
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << FEATURES, 0, 0];
        self.ask(&mut info)?;
        let count = (info[4] as usize).min(MOST);
        // struct ethtool_gstrings: cmd, set, count, names.
        let mut names = vec![0u32; 3 + count * NAME / 4];
        names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, FEATURES, count as u32]);
        self.ask(&mut names)?;
        // struct ethtool_gfeatures: cmd, blocks; each block of 32: available, requested, active, never changed.
        let blocks = count.div_ceil(32);
        let mut bits = vec![0u32; 2 + blocks * 4];
        bits[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
        self.ask(&mut bits)?;

        let names = bytes_of(&names[3..]);
        let feature = |n: usize| {
            (text(&names[n * NAME..(n + 1) * NAME]), bits[2 + n / 32 * 4 + 2] >> (n % 32) & 1 == 1)
        };
        Ok((0..count).map(feature).filter(|(name, _)| !name.is_empty()).collect())
    }

    /// One ioctl; `words` is the structure that begins with the command.
    fn ask(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = request_for(&self.name)?;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the kernel reads and writes the structure that the command at its start names; every caller has made it as long
        // as its counts say.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_tells_its_features() {
        let features = Ethtool::new("lo").unwrap().features().unwrap();
        // Loopback is always able to loop back, and no setting changes that.
        assert_eq!(features.get("loopback"), Some(&true), "{features:?}");
        assert!(features.contains_key("rx-gro") && features.contains_key("tx-checksum-ip-generic"));
    }

    #[test]
    fn an_unknown_device_is_an_error() {
        let none = Ethtool::new("no-such-if").unwrap();
        assert!(none.driver().is_err() && none.features().is_err());
    }
}
