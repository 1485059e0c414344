//! PCI devices, as sysfs shows them: asked before DPDK is, since its own answer is a page of messages.

use crate::error::Error;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/bus/pci/devices";

/// Kernel drivers that hand a device to user space.
const PASS_ON: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// Kernel drivers beside which DPDK works: they keep the device and share it.
const SHARE: [&str; 5] = ["mlx4_core", "mlx5_core", "mana", "gve", "hv_netvsc"];

/// True for `0000:01:00.0` and `01:00.0`.
pub fn is_address(text: &str) -> bool {
    canonical(text).is_some()
}

/// With the domain, in small letters; `None` when it is no address.
fn canonical(text: &str) -> Option<String> {
    let (rest, function) = text.rsplit_once('.')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match parts[..] {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => ("0000", bus, device),
        _ => return None,
    };
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        (digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
    };
    hex(domain, 4..=8)?;
    hex(bus, 2..=2)?;
    hex(device, 2..=2)?;
    hex(function, 1..=1)?;
    Some(format!("{domain}:{bus}:{device}.{function}").to_lowercase())
}

/// Looks whether DPDK can have the device (arguments may follow the address).
///
/// # Errors
/// When there is none, or the kernel has it.
pub fn check(device: &str) -> Result<(), Error> {
    check_in(Path::new(DEVICES), device)
}

fn check_in(devices: &Path, device: &str) -> Result<(), Error> {
    let given = device.split(',').next().unwrap_or_default().trim();
    let address = canonical(given).ok_or_else(|| Error::NotAnAddress { address: given.to_owned() })?;
    let path = devices.join(&address);
    if !path.exists() {
        return Err(Error::NoPciDevice { address, present: network_devices(devices) });
    }
    match driver(&path).as_deref() {
        Some(driver) if PASS_ON.contains(&driver) || SHARE.contains(&driver) => Ok(()),
        other => Err(Error::NotBound {
            address,
            driver: other.map_or("no driver".into(), |driver| format!("the kernel driver {driver}")),
            back: other.unwrap_or("DRIVER").to_owned(),
        }),
    }
}

/// The VFIO group of a device that another process has open; `None` when nobody has, or nobody can tell.
pub(crate) fn holder(address: &str) -> Option<String> {
    let path = Path::new(DEVICES).join(canonical(address)?).join("iommu_group");
    let group = std::fs::read_link(path).ok()?;
    let node = PathBuf::from("/dev/vfio").join(group.file_name()?);
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(&node);
    let busy = opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    busy.then(|| node.display().to_string())
}

fn driver(device: &Path) -> Option<String> {
    let link = std::fs::read_link(device.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Network devices of this machine with their drivers, in one line.
pub fn present() -> String {
    network_devices(Path::new(DEVICES))
}

/// Network devices with their drivers: what a user may have meant.
fn network_devices(devices: &Path) -> String {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(devices).into_iter().flatten().flatten() {
        let class = std::fs::read_to_string(entry.path().join("class")).unwrap_or_default();
        // Class 0x02: network controllers.
        if class.trim_start_matches("0x").starts_with("02") {
            let driver = driver(&entry.path()).unwrap_or_else(|| "no driver".into());
            found.push(format!("{} ({driver})", entry.file_name().to_string_lossy()));
        }
    }
    found.sort();
    if found.is_empty() { "none on the PCI bus".into() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory as sysfs has it, gone when dropped.
    struct Sysfs(PathBuf);

    impl Sysfs {
        fn with(devices: &[(&str, Option<&str>)]) -> Sysfs {
            let root = std::env::temp_dir().join(format!("volley-pci-{}", std::process::id()));
            for (address, driver) in devices {
                let device = root.join(address);
                std::fs::create_dir_all(&device).unwrap();
                std::fs::write(device.join("class"), "0x020000\n").unwrap();
                if let Some(driver) = driver {
                    symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
                }
            }
            Sysfs(root)
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn addresses_are_known_from_names_of_virtual_devices() {
        assert!(is_address("0000:01:00.0") && is_address("01:0A.f") && is_address("10000:e1:00.1"));
        for other in ["net_memif0", "", "0000:01:00", "0000:1:00.0", "zz:00.0", "net_pcap0,rx_pcap=a.b"] {
            assert!(!is_address(other), "{other:?}");
        }
    }

    #[test]
    fn what_the_kernel_has_is_named_with_the_way_to_take_it() {
        let sysfs = Sysfs::with(&[
            ("0000:01:00.0", Some("vfio-pci")),
            ("0000:01:00.1", Some("ixgbe")),
            ("0000:02:00.0", None),
            ("0000:03:00.0", Some("mlx5_core")),
        ]);
        let check = |device: &str| check_in(&sysfs.0, device).map_err(|error| error.to_string());
        assert!(check("0000:01:00.0").is_ok() && check("03:00.0,key=value").is_ok());
        let text = check("01:00.1").unwrap_err();
        assert!(text.contains("ixgbe") && text.contains("--bind=vfio-pci 0000:01:00.1"), "{text}");
        assert!(text.contains("--bind=ixgbe"), "{text}");
        assert!(check("02:00.0").unwrap_err().contains("no driver"));
        let text = check("0000:09:00.0").unwrap_err();
        assert!(
            text.contains("no PCI device 0000:09:00.0") && text.contains("0000:01:00.1 (ixgbe)"),
            "{text}"
        );
        assert!(check("eth0").unwrap_err().contains("lspci -D"));
    }
}
