//! The kernel: version, build options, BPF, BTF, AF_XDP.

use super::check::Check;
use super::probe::Probes;
use super::tree::Tree;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io::Read;

/// `xdp.frags` programs load from here on; the steering program is one.
const NEEDED: (u32, u32) = (5, 18);
/// AF_XDP takes multi-buffer packets (6.6), after which nothing is missing that is common.
const COMPLETE: (u32, u32) = (6, 6);

/// Options of the build, whether the engine needs them, and for what.
const OPTIONS: [(&str, bool, &str); 6] = [
    ("BPF_SYSCALL", true, "the steering program"),
    ("XDP_SOCKETS", true, "AF_XDP"),
    ("BPF_JIT", false, "native speed of the steering program"),
    ("DEBUG_INFO_BTF", false, "BTF"),
    ("HUGETLBFS", false, "huge pages"),
    ("NET_RX_BUSY_POLL", false, "busy polling"),
];

/// All checks of the kernel.
pub fn checks(tree: &Tree, probes: &Probes) -> Vec<Check> {
    vec![version(tree), options(tree), bpf(tree, probes), af_xdp(probes), btf(tree), jit(tree), bpffs(tree)]
}

fn release(tree: &Tree) -> Option<String> {
    tree.text("proc/sys/kernel/osrelease")
}

fn version(tree: &Tree) -> Check {
    const NAME: &str = "kernel version";
    let Some(release) = release(tree) else {
        return Check::unknown(NAME, "/proc/sys/kernel/osrelease cannot be read", "mount /proc").needed();
    };
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < NEEDED {
        Check::closed(
            NAME,
            format!("{release}, and multi-buffer XDP programs load from 5.18 on"),
            "install a newer kernel",
        )
        .needed()
    } else if version < COMPLETE {
        Check::open(NAME, format!("{release} (packets longer than a frame need 6.6 on AF_XDP)")).needed()
    } else {
        Check::open(NAME, release).needed()
    }
}

/// The options of the build, from where distributions leave them.
fn config(tree: &Tree) -> Option<(String, BTreeMap<String, String>)> {
    let release = release(tree).unwrap_or_default();
    let unzip = |bytes: Vec<u8>| {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let plain = [format!("boot/config-{release}"), format!("lib/modules/{release}/config")];
    let (from, text) = match tree.bytes("proc/config.gz").and_then(unzip) {
        Some(text) => ("proc/config.gz".to_owned(), text),
        None => plain.into_iter().find_map(|path| Some((path.clone(), tree.text(&path)?)))?,
    };
    let option = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Some((format!("/{from}"), text.lines().filter_map(option).collect()))
}

fn options(tree: &Tree) -> Check {
    const NAME: &str = "kernel options";
    let Some((from, config)) = config(tree) else {
        let found = "no /proc/config.gz, /boot/config or /lib/modules config to read";
        return Check::unknown(NAME, found, "the checks of bpf and af_xdp below try instead");
    };
    let lacks =
        |(name, ..): &&(&str, bool, &str)| !matches!(config.get(*name).map(|v| &v[..]), Some("y" | "m"));
    let missing: Vec<_> = OPTIONS.iter().filter(lacks).collect();
    if missing.is_empty() {
        return Check::open(NAME, format!("all {} in {from}", OPTIONS.len())).needed();
    }
    let list: Vec<_> = missing.iter().map(|(name, _, what)| format!("CONFIG_{name} ({what})")).collect();
    let found = format!("off in {from}: {}", list.join(", "));
    let check = Check::closed(NAME, found, "boot a kernel built with them (distribution kernels are)");
    if missing.iter().any(|(_, needed, _)| *needed) { check.needed() } else { check }
}

fn permission(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "run as root, or: sudo setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock+ep $(command -v volley)"
        }
        Errno::ENOSYS => "boot a kernel with CONFIG_BPF_SYSCALL",
        _ => "boot a kernel with CONFIG_XDP_SOCKETS",
    }
}

fn bpf(tree: &Tree, probes: &Probes) -> Check {
    const NAME: &str = "bpf";
    let locked = tree.number("proc/sys/kernel/unprivileged_bpf_disabled").is_some_and(|level| level > 0);
    match (probes.bpf, probes.xskmap) {
        (None, None) => Check::open(NAME, "maps can be made, those of AF_XDP sockets too").needed(),
        (Some(errno), _) | (None, Some(errno)) => {
            let who = if locked { "; unprivileged BPF is off here, as it should be" } else { "" };
            Check::closed(NAME, format!("no map can be made: {}{who}", errno.desc()), permission(errno))
                .needed()
        }
    }
}

fn af_xdp(probes: &Probes) -> Check {
    const NAME: &str = "af_xdp";
    match probes.socket {
        None => Check::open(NAME, "sockets can be made").needed(),
        Some(errno) => {
            Check::closed(NAME, format!("no socket: {}", errno.desc()), permission(errno)).needed()
        }
    }
}

fn btf(tree: &Tree) -> Check {
    match tree.has("sys/kernel/btf/vmlinux") {
        true => Check::open("btf", "/sys/kernel/btf/vmlinux"),
        false => Check::closed(
            "btf",
            "no /sys/kernel/btf/vmlinux: programs load, but tools cannot show their maps' types",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
    }
}

fn jit(tree: &Tree) -> Check {
    const NAME: &str = "bpf jit";
    let always = config(tree).is_some_and(|(_, options)| options.contains_key("BPF_JIT_ALWAYS_ON"));
    match tree.number("proc/sys/net/core/bpf_jit_enable") {
        Some(0) => Check::closed(
            NAME,
            "off: the steering program is interpreted",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => Check::open(NAME, "on"),
        // Only the first network namespace shows the setting.
        None if always => Check::open(NAME, "on (CONFIG_BPF_JIT_ALWAYS_ON)"),
        None => Check::unknown(
            NAME,
            "no net.core.bpf_jit_enable here (another network namespace hides it)",
            "sysctl net.core.bpf_jit_enable",
        ),
    }
}

fn bpffs(tree: &Tree) -> Check {
    const NAME: &str = "bpffs";
    let mounts = tree.text("proc/thread-self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    });
    match mounted {
        true => Check::open(NAME, "mounted on /sys/fs/bpf"),
        false => Check::closed(
            NAME,
            "not mounted: `volley load` cannot pin, `volley run` can do without",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::tree::recorded;
    use super::*;

    const OK: &str = "CONFIG_BPF_SYSCALL=y\nCONFIG_XDP_SOCKETS=y\nCONFIG_BPF_JIT=y\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_HUGETLBFS=y\nCONFIG_NET_RX_BUSY_POLL=y\n";

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, answer) in [
            ("5.4.0-42-generic", Answer::Closed),
            ("5.17.99", Answer::Closed),
            ("5.18.0", Answer::Open),
            ("6.12.9+bpo-amd64", Answer::Open),
            ("10.0-rc1", Answer::Open),
            ("weird", Answer::Closed),
        ] {
            let (_dir, tree) = recorded(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(version(&tree).answer, answer, "{release}");
        }
        assert_eq!(version(&recorded(&[]).1).answer, Answer::Unknown);
    }

    #[test]
    fn options_come_from_where_the_distribution_leaves_them() {
        let (_dir, tree) = recorded(&[("proc/sys/kernel/osrelease", "6.1.0"), ("boot/config-6.1.0", OK)]);
        assert_eq!(options(&tree).answer, Answer::Open);
        let less = OK.replace("CONFIG_HUGETLBFS=y", "# CONFIG_HUGETLBFS is not set");
        let (_dir, tree) =
            recorded(&[("proc/sys/kernel/osrelease", "6.1.0"), ("lib/modules/6.1.0/config", &less)]);
        let check = options(&tree);
        assert_eq!((check.answer, check.is_fatal()), (Answer::Closed, false));
        assert!(check.found.contains("CONFIG_HUGETLBFS") && !check.found.contains("XDP_SOCKETS"));
        let (dir, tree) = recorded(&[("proc/self/x", "")]);
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zip, OK.replace("XDP_SOCKETS=y", "XDP_SOCKETS_DIAG=y").as_bytes())
            .unwrap();
        std::fs::write(dir.path().join("proc/config.gz"), zip.finish().unwrap()).unwrap();
        let check = options(&tree);
        assert!(check.is_fatal() && check.found.contains("CONFIG_XDP_SOCKETS (AF_XDP)"), "{check:?}");
        assert_eq!(options(&recorded(&[]).1).answer, Answer::Unknown);
    }

    #[test]
    fn what_the_kernel_refuses_is_told_from_what_it_lacks() {
        let (_dir, tree) = recorded(&[("proc/sys/kernel/unprivileged_bpf_disabled", "2")]);
        let refused =
            Probes { bpf: Some(Errno::EPERM), xskmap: Some(Errno::EPERM), socket: Some(Errno::EPERM) };
        for check in [bpf(&tree, &refused), af_xdp(&refused)] {
            assert!(check.is_fatal() && check.remedy.unwrap().contains("setcap"));
        }
        let lacking = Probes { bpf: None, xskmap: Some(Errno::EINVAL), socket: Some(Errno::EAFNOSUPPORT) };
        for check in [bpf(&tree, &lacking), af_xdp(&lacking)] {
            assert!(check.is_fatal() && check.remedy.unwrap().contains("CONFIG_XDP_SOCKETS"));
        }
        assert!(
            [bpf(&tree, &Probes::default()), af_xdp(&Probes::default())]
                .iter()
                .all(|c| c.answer == Answer::Open)
        );
    }

    #[test]
    fn btf_jit_and_bpffs_are_read() {
        let (_dir, tree) = recorded(&[
            ("sys/kernel/btf/vmlinux", ""),
            ("proc/sys/net/core/bpf_jit_enable", "0"),
            ("proc/thread-self/mounts", "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n"),
        ]);
        assert_eq!(
            [btf(&tree), jit(&tree), bpffs(&tree)].map(|c| c.answer),
            [Answer::Open, Answer::Closed, Answer::Open]
        );
        let (_dir, tree) = recorded(&[("proc/thread-self/mounts", "bpf /run/x bpf rw 0 0")]);
        assert_eq!(
            [btf(&tree), jit(&tree), bpffs(&tree)].map(|c| c.answer),
            [Answer::Closed, Answer::Unknown, Answer::Closed]
        );
        let always =
            [("boot/config-6.1.0", "CONFIG_BPF_JIT_ALWAYS_ON=y"), ("proc/sys/kernel/osrelease", "6.1.0")];
        assert_eq!(jit(&recorded(&always).1).answer, Answer::Open);
    }
}
