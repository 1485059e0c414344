//! What steering costs: verified instructions, and ns per packet under BPF_PROG_TEST_RUN.
//!
//! The yardstick is `volley_filter`, the barest port filter there could be, which redirects one constant UDP
//! port and does nothing else. Both run on the same frame, interleaved, and with a socket to redirect to. No
//! packet moves: the figure is the program's alone, with everything it reads in the cache.
//!
//! What was tried for the redirect, as quotient by the bare filter (which took 6.7 to 7.2 ns; a
//! virtual machine on an Intel Xeon, Linux 6.18):
//!
//! | change | quotient |
//! | --- | --- |
//! | version and generation in a map of their own | 1.58 to 1.65 |
//! | one map, one lookup at a constant key | 1.53 to 1.57 |
//! | and IPv4 header checks by words instead of fields | 1.46 to 1.48 |
//! | and redirects laid out as the likely outcome | 1.44 to 1.47 |

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, XskMap};
use aya::programs::{ProgramError, TestRun, Xdp};
use aya::{Ebpf, TestRunOptions};
use serde::Serialize;
use volley_steer::abi::{RuleEntry, Rules, maps, programs};
use volley_steer::{Action, Unbound, Verdict};
use zerocopy::{FromZeros, IntoBytes};

use crate::object;

/// Packets per run. The kernel reports whole ns per packet, so more would show nothing finer.
const REPEAT: u32 = 1_000_000;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The object or one of its maps.
    #[error("the programs' maps cannot be made (CAP_BPF and CAP_NET_ADMIN are needed): {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier refused a program, or a run failed.
    #[error("the kernel refuses to run a program: {0}")]
    Program(#[from] ProgramError),
    /// A map could not be written.
    #[error("the programs' maps cannot be used: {0}")]
    Maps(#[from] MapError),
    /// There is no AF_XDP.
    #[error("no AF_XDP socket can be had (kernel without CONFIG_XDP_SOCKETS, or no CAP_NET_RAW): {0}")]
    Socket(std::io::Error),
    /// The program did something else than what was to be measured.
    #[error("{case}: the program returned XDP action {got}, not {expected}")]
    Verdict {
        /// What was measured.
        case: &'static str,
        /// What it returned.
        got: u32,
        /// What it should have.
        expected: u32,
    },
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was measured.
    pub case: &'static str,
    /// The program.
    pub program: &'static str,
    /// Instructions the verifier walked through, over all paths.
    pub verified_instructions: Option<u32>,
    /// The least whole ns per packet over all rounds: what is left when nothing interrupts.
    pub least_ns: u64,
    /// The mean over all rounds, ns per packet.
    pub mean_ns: f64,
}

/// All lines, and the ratio that matters.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// One per case.
    pub cases: Vec<Cost>,
    /// Steering with a redirect, by the bare filter with a redirect: quotient of the means.
    pub redirect_ratio: f64,
}

struct Case {
    name: &'static str,
    program: &'static str,
    port: u16,
    verdict: Verdict,
}

/// Port the yardstick has compiled in.
const FILTER_PORT: u16 = 7777;
const PASSED_PORT: u16 = 7778;
const DROPPED_PORT: u16 = 7779;
const UNKNOWN_PORT: u16 = 7780;

const CASES: [Case; 6] = [
    Case {
        name: "bare filter",
        program: programs::PORT_FILTER,
        port: FILTER_PORT,
        verdict: Verdict::Redirect,
    },
    Case { name: "redirect", program: programs::STEER, port: FILTER_PORT, verdict: Verdict::Redirect },
    Case { name: "pass", program: programs::STEER, port: PASSED_PORT, verdict: Verdict::Pass },
    Case { name: "drop", program: programs::STEER, port: DROPPED_PORT, verdict: Verdict::Drop },
    Case { name: "no rule", program: programs::STEER, port: UNKNOWN_PORT, verdict: Verdict::Pass },
    Case {
        name: "redirect, read by helper",
        program: programs::STEER_GUARDED,
        port: FILTER_PORT,
        verdict: Verdict::Redirect,
    },
];

/// Measures every case `rounds` times, interleaved. About 70 ms per round.
pub fn measure(rounds: u32) -> Result<Costs, CostError> {
    let mut object = Ebpf::load(object::OBJECT)?;
    let mut map: Array<MapData, [u8; size_of::<Rules>()]> = take(&mut object, maps::RULES)?.try_into()?;
    let rules = rules();
    let bytes: &[u8; size_of::<Rules>()] = rules.as_bytes().try_into().expect("the value's own size");
    map.set(0, bytes, 0)?;
    let mut sockets: XskMap<MapData> = take(&mut object, maps::SOCKETS)?.try_into()?;
    let socket = xdp_socket()?;
    sockets.set(0, socket.as_raw_fd(), 0)?;

    let mut instructions = [None; CASES.len()];
    for (at, case) in CASES.iter().enumerate() {
        let program = program(&mut object, case.program)?;
        if program.fd().is_err() {
            program.load()?;
        }
        instructions[at] = program.info()?.verified_instruction_count();
    }
    let mut times: [Vec<Duration>; CASES.len()] = Default::default();
    for _ in 0..rounds.max(1) {
        for (case, times) in CASES.iter().zip(&mut times) {
            let frame = frame(case.port);
            let options =
                TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..TestRunOptions::default() };
            let result = program(&mut object, case.program)?.test_run(options)?;
            let expected = case.verdict as u32;
            if result.return_value != expected {
                return Err(CostError::Verdict { case: case.name, got: result.return_value, expected });
            }
            times.push(result.duration);
        }
    }
    let cases: Vec<Cost> = CASES
        .iter()
        .zip(times)
        .zip(instructions)
        .map(|((case, times), verified_instructions)| Cost {
            case: case.name,
            program: case.program,
            verified_instructions,
            least_ns: times.iter().min().map_or(0, |least| least.as_nanos() as u64),
            mean_ns: times.iter().sum::<Duration>().as_nanos() as f64 / times.len() as f64,
        })
        .collect();
    let redirect_ratio = cases[1].mean_ns / cases[0].mean_ns;
    Ok(Costs { cases, redirect_ratio })
}

fn rules() -> Box<Rules> {
    let mut rules = Rules::new_box_zeroed().expect("memory for rule tables");
    let table = &mut rules.halves[0];
    let actions = [
        (FILTER_PORT, Action::Redirect { unbound: Unbound::Pass }),
        (PASSED_PORT, Action::Pass),
        (DROPPED_PORT, Action::Drop),
    ];
    for (list, (port, action)) in actions.into_iter().enumerate() {
        table.udp[usize::from(port)] = list as u16 + 1;
        table.lists[list + 1].rules[0] = RuleEntry::any(action);
    }
    rules
}

/// The smallest Ethernet frame: IPv4, UDP to the port, 18 bytes of payload.
fn frame(port: u16) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[38..40].copy_from_slice(&26_u16.to_be_bytes());
    frame
}

fn xdp_socket() -> Result<OwnedFd, CostError> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(CostError::Socket(std::io::Error::last_os_error()));
    }
    // SAFETY: a descriptor just made, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn take(object: &mut Ebpf, name: &str) -> Result<Map, MapError> {
    object.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
}
