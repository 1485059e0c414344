//! The in-kernel traffic generator: sends a template over and over without leaving the kernel, counts what
//! comes back and drops it there.
//!
//! ```text
//!  Blaster::burst(n)                                     the interface
//!  BPF_PROG_TEST_RUN, live frames ─► volley_blast ─► TX ─────────────────►  server
//!  Blaster::answers()  ◄─ per-CPU map ◄─ volley_count (XDP) ◄────────────
//! ```
//!
//! It is the fastest sender this kernel offers without a NIC's own generator: a few million small packets a
//! second from one core. What it never does: check the answers' bytes (they are dropped before anybody sees
//! them), or wait between packets (a rate is kept by bursts of the caller's).
//!
//! The interface's driver must send frames that come from XDP (NETDEV_XDP_ACT_NDO_XMIT), or they vanish
//! uncounted. A veth does so once its *other* end has an XDP program, or has had GRO turned on while up.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{ProgramError, TestRun, Xdp};
use aya::{Ebpf, TestRunAttrs, TestRunOptions};
use volley_steer::abi::{maps, programs};
use volley_steer::blast::{Answers, Blast, Expect, Stamp};
use volley_steer::{Protocol, headers};
use zerocopy::{FromBytes, IntoBytes, transmute};

use crate::interface::{Interface, NoInterface};
use crate::link::{Link, LinkError, Mode};
use crate::object;

/// Bytes of an Ethernet header: the least the kernel runs a program with.
const ETHERNET_LEN: usize = 14;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Furthest the UDP header may stand from the start of the template, bytes: what the program's own mask allows.
const MAX_UDP_OFFSET: usize = 0xff;
/// Frames the kernel hands to the driver at once. 64 is a NAPI poll's worth and what the kernel takes by default;
/// more gains nothing measurable, fewer rings the doorbell more often.
const BATCH: u32 = 64;

/// Why the generator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BlastError {
    /// The template is not a UDP datagram that can carry the stamp.
    #[error("the template cannot be sent: {0}")]
    Template(&'static str),
    /// Numbers that make no sense.
    #[error("{0}")]
    Options(&'static str),
    /// No such interface.
    #[error(transparent)]
    Interface(#[from] NoInterface),
    /// The object or one of its maps.
    #[error("the generator's maps cannot be made (CAP_BPF and CAP_NET_ADMIN are needed): {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier refused a program, or a run failed.
    #[error("the kernel refuses the generator's program: {0}")]
    Program(#[from] ProgramError),
    /// A map could not be read or written.
    #[error("the generator's maps cannot be used: {0}")]
    Maps(#[from] MapError),
    /// The counting program could not be attached.
    #[error(
        "{interface}: the program that counts answers cannot be attached: {why}. Another XDP program on it must go first"
    )]
    Attach {
        /// The interface's name.
        interface: String,
        /// What the kernel says.
        why: String,
    },
}

/// What is sent, where, and what counts as an answer.
#[derive(Clone, Debug)]
pub struct BlastOptions {
    /// The interface frames leave from and answers come to, in the caller's network namespace.
    pub interface: String,
    /// A whole Ethernet frame with a UDP datagram over IPv4 or IPv6, without FCS; up to about 3,300 bytes. The
    /// IPv4 header checksum must be right. The payload has at least 18 bytes: two of the caller's, then 16 for
    /// the [`Stamp`]. Whatever is behind them is sent as it is.
    pub template: Vec<u8>,
    /// How many flows (source ports) to spread over, 1 to 65,536.
    pub flows: u32,
    /// Source port of flow 0; the others follow, modulo 65,536.
    pub first_port: u16,
    /// UDP lengths (header and payload, bytes) that answers have.
    pub answer_len: RangeInclusive<u16>,
}

/// A generator ready to send. Dropping it takes its program off the interface.
pub struct Blaster {
    object: Ebpf,
    template: Vec<u8>,
    context: XdpContext,
    states: PerCpuArray<MapData, [u8; size_of::<Blast>()]>,
    answers: PerCpuArray<MapData, [u64; 3]>,
    /// Held for what dropping it does.
    _counting: Link,
}

/// `struct xdp_md` of linux/bpf.h: the context a test run starts from.
#[derive(IntoBytes, zerocopy::Immutable, Clone, Copy)]
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

impl Blaster {
    /// Loads both programs and attaches the counting one. Nothing is sent yet.
    pub fn open(options: &BlastOptions) -> Result<Blaster, BlastError> {
        if !(1..=1 << 16).contains(&options.flows) {
            return Err(BlastError::Options(
                "the number of flows must be 1 to 65,536: there are no more ports",
            ));
        }
        let plan = Plan::of(&options.template)?;
        let interface = Interface::find(&options.interface)?;

        let mut object = Ebpf::load(object::OBJECT)?;
        let mut expect: Array<_, [u16; 4]> = take(&mut object, maps::EXPECT)?.try_into()?;
        let answers = take(&mut object, maps::ANSWERS)?.try_into()?;
        let mut states: PerCpuArray<_, [u8; size_of::<Blast>()]> =
            take(&mut object, maps::BLASTS)?.try_into()?;

        let expected = Expect {
            port: plan.server_port,
            least_len: *options.answer_len.start(),
            greatest_len: *options.answer_len.end(),
            reserved: 0,
        };
        let expected: [u16; 4] = transmute!(expected);
        expect.set(0, expected, 0)?;

        // Each CPU counts its own residue class, so that a thread that moves between CPUs, or several threads,
        // never send the same number twice.
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        let values = (0..cpus)
            .map(|cpu| {
                let state = Blast {
                    sequence: cpu as u64,
                    stride: cpus as u64,
                    sent: 0,
                    refused: 0,
                    base_sum: plan.base_sum,
                    flow: cpu as u32 % options.flows,
                    flows: options.flows,
                    first_port: options.first_port,
                    udp_offset: plan.udp_offset,
                    udp_length: field(&options.template, plan.udp_offset + 4),
                    ip_length_offset: plan.ip_length_offset,
                    ip_length: field(&options.template, plan.ip_length_offset),
                    ip_sum_offset: plan.ip_sum_offset,
                    ip_sum: field(&options.template, plan.ip_sum_offset),
                    reserved: [0; 3],
                };
                transmute!(state)
            })
            .collect::<Vec<[u8; size_of::<Blast>()]>>();
        states.set(0, PerCpuValues::try_from(values).map_err(MapError::IoError)?, 0)?;

        load(&mut object, programs::BLAST)?;
        let counting = load(&mut object, programs::COUNT)?;
        let id = counting.info()?.id();
        let counting = counting.fd()?.as_fd();
        let attach = |mode| Link::create(counting, id, &interface, mode);
        let counting = attach(Mode::Native).or_else(|_| attach(Mode::Generic)).map_err(|error| {
            let why = match error {
                LinkError::Refused(error) => error.to_string(),
                LinkError::Unverified(why) => why,
            };
            BlastError::Attach { interface: options.interface.clone(), why }
        })?;

        let context = XdpContext {
            data: 0,
            data_end: options.template.len() as u32,
            data_meta: 0,
            // Makes the frame leave through this interface when the program returns XDP_TX.
            ingress_ifindex: interface.index,
            rx_queue_index: 0,
            egress_ifindex: 0,
        };
        Ok(Blaster {
            object,
            template: options.template.clone(),
            context,
            states,
            answers,
            _counting: counting,
        })
    }

    /// Sends `packets` packets as fast as the kernel can and returns when they are handed to the driver. What
    /// the driver then drops is in the interface's own counters (`tx_dropped`), not here.
    ///
    /// The calling thread's CPU does the work; on veth it does the peer's receive work too. Each call ends with a grace period
    /// of the kernel's, some 10 ms, so few long calls send more than many short ones; a signal to the thread ends one early.
    pub fn burst(&self, packets: u32) -> Result<(), BlastError> {
        if packets == 0 {
            return Ok(()); // the kernel would take 0 for 1
        }
        let program = self.object.program(programs::BLAST).ok_or(ProgramError::UnexpectedProgramType)?;
        let program: &Xdp = program.try_into()?;
        let run = program.test_run(TestRunOptions {
            data_in: Some(&self.template),
            ctx_in: Some(self.context.as_bytes()),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        });
        match run {
            // A signal ended the run early; what was sent is counted.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::Interrupted =>
            {
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// Packets handed to the driver so far, over all CPUs.
    pub fn sent(&self) -> Result<u64, BlastError> {
        let mut sent = 0;
        for state in self.states.get(&0, 0)?.iter() {
            let state = Blast::read_from_bytes(state).expect("the state's own size");
            sent += state.sent;
        }
        Ok(sent)
    }

    /// Answers counted and dropped so far, over all CPUs.
    pub fn answers(&self) -> Result<Answers, BlastError> {
        let mut sum = Answers::default();
        for cpu in self.answers.get(&0, 0)?.iter() {
            let cpu: Answers = transmute!(*cpu);
            sum.answers += cpu.answers;
            sum.udp_bytes += cpu.udp_bytes;
            sum.odd_length += cpu.odd_length;
        }
        Ok(sum)
    }
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map, MapError> {
    object.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
}

fn load<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    let program = program(object, name)?;
    program.load()?;
    Ok(program)
}

/// What the program must know of a template.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    udp_offset: u16,
    /// The IP header's length, and its checksum or, over IPv6, the length again.
    ip_length_offset: u16,
    ip_sum_offset: u16,
    server_port: u16,
    base_sum: u32,
}

impl Plan {
    fn of(frame: &[u8]) -> Result<Plan, BlastError> {
        let datagram = headers::find(frame).map_err(|_| {
            BlastError::Template("it is not an Ethernet frame with a whole UDP datagram in it")
        })?;
        if datagram.protocol != Protocol::Udp {
            return Err(BlastError::Template("it is not UDP"));
        }
        let at = datagram.offset;
        let length = usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]]));
        let udp =
            frame.get(at..at + length).filter(|udp| udp.len() >= UDP_LEN + Stamp::OFFSET + Stamp::LEN);
        let udp = udp.ok_or(BlastError::Template("its UDP payload is shorter than 18 bytes, or cut"))?;
        if at > MAX_UDP_OFFSET {
            return Err(BlastError::Template("its UDP header begins behind byte 255"));
        }
        let mut constant = udp.to_vec();
        constant[..2].fill(0); // source port
        constant[6..8].fill(0); // checksum
        constant[UDP_LEN + Stamp::OFFSET..][..Stamp::LEN].fill(0);
        // The pseudo-header (RFC 768, RFC 8200): addresses, protocol, length. The addresses are the last of
        // the IP header in both versions, but behind them may be options or extension headers.
        let Ip { addresses, length_offset, sum_offset } =
            Ip::of(frame).ok_or(BlastError::Template("its IP header is cut"))?;
        let mut sum = sum(addresses) + sum(&constant);
        sum += u32::from(17_u16.to_be()) + u32::from((length as u16).to_be());
        Ok(Plan {
            udp_offset: at as u16,
            ip_length_offset: length_offset as u16,
            ip_sum_offset: sum_offset as u16,
            server_port: datagram.destination_port,
            base_sum: sum,
        })
    }
}

/// A field of two bytes, as it lies in memory.
fn field(frame: &[u8], offset: u16) -> u16 {
    let at = usize::from(offset);
    u16::from_ne_bytes([frame[at], frame[at + 1]])
}

/// The IP header behind Ethernet and tags.
struct Ip<'a> {
    /// Source and destination.
    addresses: &'a [u8],
    length_offset: usize,
    sum_offset: usize,
}

impl Ip<'_> {
    fn of(frame: &[u8]) -> Option<Ip<'_>> {
        let mut kind = ETHERNET_LEN - 2;
        while matches!(frame.get(kind..kind + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
            kind += 4;
        }
        let at = kind + 2;
        let ip = frame.get(at..)?;
        let (addresses, length_offset, sum_offset) = match frame.get(kind..at)? {
            [0x08, 0x00] => (ip.get(12..20)?, at + 2, at + 10),
            [0x86, 0xdd] => (ip.get(8..40)?, at + 4, at + 4),
            _ => return None,
        };
        Some(Ip { addresses, length_offset, sum_offset })
    }
}

/// Sum of the 16-bit words as they lie in memory; at most 2^15 words, so it cannot overflow.
fn sum(bytes: &[u8]) -> u32 {
    let words =
        bytes.chunks(2).map(|word| u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.map(u32::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
        0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0x26, 0xbc, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0x9c, 0x40, 0x1e, 0x61, 0, 26, 0, 0, // UDP
    ];

    fn frame() -> Vec<u8> {
        [&HEADERS[..], &[0x56; 18]].concat()
    }

    #[test]
    fn plan_of_the_smallest_frame() {
        let plan = Plan::of(&frame()).unwrap();
        assert_eq!((plan.udp_offset, plan.server_port), (34, 7777));
        assert_eq!(
            (field(&frame(), plan.ip_length_offset), field(&frame(), plan.ip_sum_offset)),
            (46u16.to_be(), 0x26bcu16.to_be())
        );
        // Addresses, protocol, twice the length, the destination port and the magic number.
        let words = [0x0a00, 1, 0x0a00, 2, 17, 26, 26, 0x1e61, 0x5656_u16];
        assert_eq!(plan.base_sum, words.iter().map(|word| u32::from(word.to_be())).sum::<u32>());
    }

    #[test]
    fn what_changes_is_not_in_the_plan() {
        let mut other = frame();
        other[34] ^= 1; // source port
        other[40] ^= 1; // checksum
        other[44] ^= 1; // first byte of the stamp
        other[59] ^= 1; // its last
        assert_eq!(Plan::of(&other).unwrap(), Plan::of(&frame()).unwrap());
        other[43] ^= 1; // second byte of the magic number
        assert_ne!(Plan::of(&other).unwrap(), Plan::of(&frame()).unwrap());
    }

    #[test]
    fn templates_that_cannot_carry_the_stamp_are_refused() {
        for len in 0..60 {
            assert!(Plan::of(&frame()[..len]).is_err(), "{len} bytes");
        }
        let mut tcp = frame();
        tcp[23] = 6;
        assert!(Plan::of(&tcp).is_err());
        let mut short = frame();
        short[39] = 25;
        assert!(Plan::of(&short).is_err());
    }
}
