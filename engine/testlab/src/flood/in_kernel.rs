//! The flood from inside the kernel: live frames through `BPF_PROG_TEST_RUN`, a program draws each one's client.
//!
//! ```text
//!   template ─► flood_syn (xdp-prog/ebpf/src/bin/flood.rs) ─► XDP_TX ─► the interface ─► whoever is behind it
//! ```
//!
//! Some million SYNs a second from one core, several times what a raw socket sends. A run of the program ends with a grace period
//! of the kernel's, some 10 ms, so it is no sender at an even rate.

use super::{LEN, SOURCE_BITS, SOURCES, SYN, sum, syn};
use aya::maps::{Array, PerCpuArray};
use aya::programs::{ProgramError, TestRun, Xdp};
use aya::{Ebpf, TestRunAttrs, TestRunOptions, include_bytes_aligned};
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Built by `xdp-prog/build-object` and committed, as the engine's own.
static OBJECT: &[u8] = include_bytes_aligned!("../../../../xdp-prog/object/flood.bpf.o");

/// Packets of one run: at two million a second some 30 ms, which is how late the flood ends. Fewer spend more of the time in grace
/// periods.
const BURST: u32 = 1 << 16;
/// Frames the kernel hands to the driver at once: a NAPI poll's worth.
const BATCH: u32 = 64;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// The type of IPv4 in it.
const IPV4: [u8; 2] = [0x08, 0x00];
const PROGRAM: &str = "flood_syn";

/// The program, loaded, with what it starts from.
pub(super) struct InKernel {
    object: Ebpf,
    sent: PerCpuArray<aya::maps::MapData, u64>,
    template: Vec<u8>,
    context: Vec<u8>,
}

impl InKernel {
    /// Loads it, in the namespace of the interface with index `interface` and MAC `own`.
    pub(super) fn load(
        interface: u32,
        own: [u8; 6],
        next_hop: [u8; 6],
        to: SocketAddrV4,
    ) -> Result<InKernel> {
        let mut object = Ebpf::load(OBJECT).map_err(Error::other)?;
        let packet = syn(to, 0, 0, 0);
        let (ip, tcp) = packet.split_at(SYN);
        // As they lie in memory; the template has zeros for what is drawn, and for both checksums.
        let pseudo = sum(&ip[12..]) + u32::from(6_u16.to_be()) + u32::from((tcp.len() as u16).to_be());
        let plan = [sum(ip), pseudo + sum(tcp), SOURCES, (1 << SOURCE_BITS) - 1];
        let missing = || Error::new(ErrorKind::NotFound, "flood.bpf.o lacks a map or its program");
        let mut plans: Array<_, [u32; 4]> =
            object.take_map("flood_plan").ok_or_else(missing)?.try_into().map_err(Error::other)?;
        plans.set(0, plan, 0).map_err(Error::other)?;
        let sent = object.take_map("flood_sent").ok_or_else(missing)?.try_into().map_err(Error::other)?;
        let program: &mut Xdp =
            object.program_mut(PROGRAM).ok_or_else(missing)?.try_into().map_err(Error::other)?;
        program.load().map_err(Error::other)?;
        let template = [&next_hop[..], &own, &IPV4, &packet].concat();
        // `struct xdp_md` of linux/bpf.h: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex. The ingress
        // interface is the one that XDP_TX sends from.
        let context = [0, (ETHERNET_LEN + LEN) as u32, 0, interface, 0, 0];
        let context = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(InKernel { object, sent, template, context })
    }

    /// Sends until it is told to stop, on the calling thread's CPU.
    pub(super) fn run(&self, sent: &AtomicU64, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(()) = self.burst() else { return };
            if let Ok(counts) = self.sent.get(&0, 0) {
                sent.store(counts.iter().sum(), Ordering::Relaxed);
            }
        }
    }

    fn burst(&self) -> Result<()> {
        let program: &Xdp = self
            .object
            .program(PROGRAM)
            .ok_or(ErrorKind::NotFound)?
            .try_into()
            .map_err(|error: ProgramError| Error::other(error))?;
        let run = program.test_run(TestRunOptions {
            data_in: Some(&self.template),
            ctx_in: Some(&self.context),
            repeat: BURST,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        });
        match run {
            // A signal ended it early; what was sent is counted.
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {
                Ok(())
            }
            other => other.map(drop).map_err(Error::other),
        }
    }
}
