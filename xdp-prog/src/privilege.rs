//! Capabilities: what this thread may do, and what it would need.

use std::fmt;

/// A Linux capability that Volley uses. See capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Attach XDP programs, change links.
    NetAdmin,
    /// Load BPF programs and make maps.
    Bpf,
    /// Load BPF programs that the verifier does not guard against Spectre.
    Perfmon,
}

impl Capability {
    const fn bits(self) -> u64 {
        // Numbers of linux/capability.h. CAP_SYS_ADMIN (21) still implies CAP_BPF and CAP_PERFMON.
        match self {
            Capability::NetAdmin => 1 << 12,
            Capability::Bpf => (1 << 39) | (1 << 21),
            Capability::Perfmon => (1 << 38) | (1 << 21),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::Bpf => "CAP_BPF",
            Capability::Perfmon => "CAP_PERFMON",
        })
    }
}

/// Those of `wanted` that the calling thread lacks. Empty also when /proc does not tell; the kernel will.
pub(crate) fn missing(wanted: &[Capability]) -> Vec<Capability> {
    let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") else { return Vec::new() };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Vec::new();
    };
    wanted.iter().copied().filter(|capability| effective & capability.bits() == 0).collect()
}
