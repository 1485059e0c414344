//! Which of the sockets that share a port (SO_REUSEPORT), one of each worker, gets a datagram.
//!
//! ```text
//!   datagram ──► reuseport group of the address and port ──► socket of worker 0 │ 1 │ … │ n-1
//!                 the kernel's hash of the four-tuple (default), or what is chosen here
//! ```
//!
//! The programs are classic BPF (SO_ATTACH_REUSEPORT_CBPF), which needs no privilege: they return the index of a socket in its
//! group, in the order of binding, which is the order of the workers. A worker that was started anew after a panic joins at the
//! end, and the last of the group takes its old place: datagrams are served as before, only maybe not on the core meant.

use serde::{Deserialize, Serialize};

/// How datagrams are spread over the workers of an engine on kernel sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// The kernel's hash of both addresses and ports: a peer's flow stays on its worker.
    #[default]
    Hash,
    /// A BPF program, by the peer's address alone: all flows of a host meet on one worker.
    Address,
    /// A BPF program, by the core that the packet was received on: the worker pinned there gets it, and nothing crosses cores. A
    /// flow stays on its worker as long as the device's RSS leaves it on its queue.
    Cpu,
    /// SO_INCOMING_CPU: as `cpu`, done by the kernel itself (Linux 6.2; before, it is only a preference).
    IncomingCpu,
}

/// The workers that share a port, as one of them sees them.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// How they share.
    pub spread: Spread,
    /// The workers' cores, in their order; `None`: not pinned.
    pub cores: Vec<Option<usize>>,
    /// Which of them this one is.
    pub worker: usize,
}

#[cfg(target_os = "linux")]
pub(super) use linux::apply;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Group, Spread};
    use libc::{
        BPF_ABS, BPF_ALU, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_W,
        BPF_X, BPF_XOR, c_int, sock_filter, sock_fprog, socklen_t,
    };
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    /// `A` of the BPF machine as return value, and a copy of `A` to `X`; libc does not have them.
    const BPF_A: u32 = 0x10;
    const BPF_MISC_TAX: u32 = 0x07;
    /// Where the source address begins in the IP header, and how many words it has.
    const IPV4_SOURCE: (i32, i32) = (12, 1);
    const IPV6_SOURCE: (i32, i32) = (8, 4);
    /// Knuth's multiplier, 2³² over the golden ratio: neighbouring addresses part.
    const MULTIPLIER: u32 = 0x9e37_79b1;

    fn operation(code: u32, k: u32) -> sock_filter {
        sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }

    /// The program that chooses one of `count` sockets by the peer's address.
    fn by_address(ipv4: bool, count: u32) -> Vec<sock_filter> {
        let (start, words) = if ipv4 { IPV4_SOURCE } else { IPV6_SOURCE };
        let mut program = Vec::new();
        for word in 0..words {
            if word > 0 {
                program.push(operation(BPF_MISC_TAX, 0));
            }
            program
                .push(operation(BPF_LD | BPF_W | BPF_ABS, (libc::SKF_NET_OFF + start + 4 * word) as u32));
            if word > 0 {
                program.push(operation(BPF_ALU | BPF_XOR | BPF_X, 0));
            }
        }
        program.push(operation(BPF_ALU | BPF_MUL | BPF_K, MULTIPLIER));
        program.push(operation(BPF_ALU | BPF_RSH | BPF_K, 16));
        program.push(operation(BPF_ALU | BPF_MOD | BPF_K, count));
        program.push(operation(BPF_RET | BPF_A, 0));
        program
    }

    /// The program that chooses the socket of the worker on the core that the packet was received on; any, if there is none.
    fn by_cpu(cores: &[Option<usize>]) -> Vec<sock_filter> {
        let load = operation(BPF_LD | BPF_W | BPF_ABS, (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32);
        let mut program = vec![load];
        for (worker, core) in cores.iter().enumerate().filter_map(|(worker, core)| Some((worker, (*core)?)))
        {
            let equal = operation(BPF_JMP | BPF_JEQ | BPF_K, core as u32);
            program.push(sock_filter { jf: 1, ..equal });
            program.push(operation(BPF_RET | BPF_K, worker as u32));
        }
        program.push(operation(BPF_ALU | BPF_MOD | BPF_K, cores.len() as u32));
        program.push(operation(BPF_RET | BPF_A, 0));
        program
    }

    /// Tells a bound socket how its group is shared; with what was to choose, when the kernel does not take it.
    pub(in super::super) fn apply(
        fd: &OwnedFd,
        ipv4: bool,
        group: &Group,
    ) -> Result<(), (&'static str, io::Error)> {
        if group.cores.len() < 2 {
            return Ok(());
        }
        let (by, done) = match group.spread {
            Spread::Hash => return Ok(()),
            Spread::Address => ("address", attach(fd, &by_address(ipv4, group.cores.len() as u32))),
            Spread::Cpu => ("core", attach(fd, &by_cpu(&group.cores))),
            Spread::IncomingCpu => {
                let Some(core) = group.cores.get(group.worker).copied().flatten() else { return Ok(()) };
                ("core", set(fd, libc::SO_INCOMING_CPU, &(core as c_int)))
            }
        };
        done.map_err(|error| (by, error))
    }

    fn attach(fd: &OwnedFd, program: &[sock_filter]) -> io::Result<()> {
        // The kernel copies the program and writes to none of it.
        let program = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        set(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
    }

    fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
        // SAFETY: the value, and what it points to, live through the call; the length is its own.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
