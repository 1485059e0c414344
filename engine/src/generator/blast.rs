//! Flat out from inside the kernel: one template sent over and over, answers counted and dropped by XDP.
//!
//! ```text
//!   sender thread   BPF_PROG_TEST_RUN, live frames ──────────────────────────► EINTR
//!   this thread     ── sleeps, reads the programs' counters, progress ── signal ──┘
//! ```
//!
//! One call lasts for the whole measurement, because each begins and ends with a grace period of the
//! kernel's (some 10 ms in which nothing is sent). Nothing is verified here but numbers and lengths; what
//! it shows is how many packets the other end answers when it is given more than it can take.

use super::approach::Approach;
use super::live::Live;
use super::payload::Header;
use super::run::Limits;
use super::session::Outcome;
use super::template::{EndsError, Templates};
use super::tracker::Counts;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use thiserror::Error;
use volley_wire::udp::UdpHeader;
use volley_xdp::blast::{BlastError, BlastOptions, Blaster};

/// How often the counters are read while sending.
const STEP: Duration = Duration::from_millis(20);
/// What ends a call early. Nobody else uses it in this process, and by then it does nothing but interrupt.
const WAKE: Signal = Signal::SIGUSR1;

/// Why it cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Source addresses and ports.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// The template has one source address.
    #[error("blast mode sends from one address: give one --source, and --flows for more ports")]
    Sources,
    /// The programs.
    #[error(transparent)]
    Blast(#[from] BlastError),
    /// No handler for the signal that ends a call.
    #[error("{WAKE} cannot be handled: {0}")]
    Signal(#[from] io::Error),
}

/// Sends datagrams of `payload_len` bytes along `approach` as fast as the kernel can and counts what comes
/// back. Losses are exact when nothing else comes from the target's port to the interface; latency is not
/// measured.
///
/// # Errors
/// See [`RunError`].
pub fn run(
    approach: Approach,
    payload_len: usize,
    limits: &Limits,
    live: &Live,
    stop: &AtomicBool,
) -> Result<Outcome, RunError> {
    let Approach { link, ends } = approach;
    if ends.sources.len() != 1 {
        return Err(RunError::Sources);
    }
    let (flows, first_port) = (ends.flows as u32, ends.first_port);
    let templates = Templates::new(ends)?;
    let headers = templates.headers_len();
    let mut template = vec![0; headers + payload_len];
    Header { flow: 0, sequence: 0, time_ns: 0 }.encode(&mut template[headers..]);
    templates.seal(0, &mut template);
    let udp_len = (UdpHeader::LEN + payload_len) as u16;
    let options =
        BlastOptions { interface: link.name, template, flows, first_port, answer_len: udp_len..=udp_len };
    signal_hook::flag::register(WAKE as i32, Arc::default())?;
    let mut blast = Blast { blaster: Blaster::open(&options)?, before: Counts::default() };

    if !limits.warmup.is_zero() {
        blast.send(limits.warmup, None, live, stop)?;
        std::thread::sleep(limits.linger);
        blast.before = blast.total()?;
    }
    let (sending, duration) = blast.send(limits.duration, limits.count, live, stop)?;
    std::thread::sleep(limits.linger);
    let counts = blast.counts()?;
    live.publish(&counts);
    let per_second = |packets: u64| packets as f64 / duration.as_secs_f64();
    Ok(Outcome {
        counts,
        duration_ns: duration.as_nanos() as u64,
        sent_pps: per_second(sending.sent),
        // What came while sending: what was still under way at the end comes at leisure.
        received_pps: per_second(sending.received),
        ..Outcome::default()
    })
}

struct Blast {
    blaster: Blaster,
    /// What was counted before the measurement.
    before: Counts,
}

impl Blast {
    /// Sends for `duration`, or `count` packets if that takes less; what was counted at its end, and how
    /// long it really took.
    fn send(
        &self,
        duration: Duration,
        count: Option<u64>,
        live: &Live,
        stop: &AtomicBool,
    ) -> Result<(Counts, Duration), RunError> {
        let done = AtomicBool::new(false);
        let mut left = count.unwrap_or(u64::MAX);
        let (tell, sender_thread) = mpsc::channel();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let _ = tell.send(pthread_self());
                while left > 0 && !done.load(Ordering::Relaxed) {
                    let packets = left.min(u64::from(u32::MAX)) as u32;
                    self.blaster.burst(packets)?;
                    left -= u64::from(packets);
                }
                Ok::<_, RunError>(())
            });
            let counted =
                self.watch(duration, live, || sender.is_finished() || stop.load(Ordering::Relaxed));
            done.store(true, Ordering::Relaxed);
            if let Ok(thread) = sender_thread.recv() {
                // Again and again: a signal that comes just before the call would not end it.
                while !sender.is_finished() {
                    let _ = pthread_kill(thread, WAKE);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            counted
        })
    }

    /// Shows the counters until `duration` after the first packet, or until `over`; the last of them, and
    /// how long it took.
    fn watch(
        &self,
        duration: Duration,
        live: &Live,
        over: impl Fn() -> bool,
    ) -> Result<(Counts, Duration), RunError> {
        let (mut start, mut begun) = (Instant::now(), false);
        loop {
            let ended = over();
            let counts = self.counts()?;
            let elapsed = start.elapsed();
            live.publish(&counts);
            if ended || (begun && elapsed >= duration) {
                return Ok((counts, elapsed.max(Duration::from_nanos(1))));
            }
            if !begun && counts.sent > 0 {
                (start, begun) = (Instant::now(), true);
            }
            std::thread::sleep(if begun { STEP } else { Duration::from_millis(1) });
        }
    }

    fn total(&self) -> Result<Counts, RunError> {
        let answers = self.blaster.answers()?;
        let (sent, received) = (self.blaster.sent()?, answers.answers);
        Ok(Counts { sent, received, corrupted: answers.odd_length, ..Counts::default() })
    }

    fn counts(&self) -> Result<Counts, RunError> {
        let total = self.total()?;
        let sent = total.sent - self.before.sent;
        let received = total.received - self.before.received;
        let corrupted = total.corrupted - self.before.corrupted;
        Ok(Counts { sent, received, corrupted, lost: sent.saturating_sub(received), ..Counts::default() })
    }
}
