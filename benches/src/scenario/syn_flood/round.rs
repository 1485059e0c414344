//! One round, inside the peer's namespace and on the generator's core.

use super::SynFloodArgs;
use super::client::{self, Comers, Latency, come};
use crate::process::Interrupt;
use anyhow::Result;
use serde::Serialize;
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volley_testlab::{Flood, Netns};

/// New clients at once: enough that one that waits does not keep the others from coming.
const COMERS: usize = 8;
/// Before a part is measured: what was there before it has settled, and the table of half-open connections is full.
const LEAD: Duration = Duration::from_millis(300);
/// Throughput is counted over this, before the flood and from this long after it.
const SECOND: Duration = Duration::from_secs(1);

/// What stays the same from round to round.
pub struct Ground<'g> {
    pub arguments: &'g SynFloodArgs,
    pub there: &'g [TcpStream],
    pub target: SocketAddrV4,
    pub namespace: &'g Netns,
    pub interface: &'g str,
    /// The engine's MAC.
    pub next_hop: [u8; 6],
    pub interrupt: &'g Interrupt,
}

/// What a round found.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Round {
    pub quiet: Latency,
    pub flood: Latency,
    /// SYNs a second of the measured flood.
    pub syns_per_second: f64,
    pub comers: Comers,
    pub full: Full,
}

/// The flood of all SYNs there are.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Full {
    pub syns_per_second: f64,
    pub echoes_before: f64,
    pub echoes_during: f64,
    /// From a second after its end on.
    pub echoes_after: f64,
}

impl Ground<'_> {
    /// Quiet and flooded, in an order that turns from round to round, then all there are.
    pub fn round(&self, round: usize) -> Result<Round> {
        let (quiet, (flood, syns_per_second, comers));
        if round.is_multiple_of(2) {
            quiet = self.quiet()?;
            (flood, syns_per_second, comers) = self.flooded()?;
        } else {
            (flood, syns_per_second, comers) = self.flooded()?;
            quiet = self.quiet()?;
        }
        Ok(Round { quiet, flood, syns_per_second, comers, full: self.full()? })
    }

    fn paced(&self, time: Duration) -> Result<Latency> {
        client::paced(self.there, self.arguments.echoes, time, self.interrupt)
    }

    fn closed_loop(&self, time: Duration) -> Result<f64> {
        client::closed_loop(self.there, time, self.interrupt)
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.seconds)
    }

    fn quiet(&self) -> Result<Latency> {
        self.paced(LEAD)?;
        self.paced(self.time())
    }

    fn flooded(&self) -> Result<(Latency, f64, Comers)> {
        let storm = Flood::start(self.namespace, self.target, self.arguments.syns)?;
        let begun = Instant::now();
        self.paced(LEAD)?;
        let (over, comers) = (AtomicBool::new(false), Mutex::new(Comers::default()));
        let flood = std::thread::scope(|scope| {
            for _ in 0..COMERS {
                scope.spawn(|| come(self.target.into(), &over, &comers));
            }
            let flood = self.paced(self.time());
            over.store(true, Ordering::Relaxed);
            flood
        })?;
        let elapsed = begun.elapsed().as_secs_f64();
        Ok((flood, storm.stop() as f64 / elapsed, comers.into_inner().unwrap_or_default()))
    }

    fn full(&self) -> Result<Full> {
        let echoes_before = self.closed_loop(SECOND)?;
        let storm = Flood::in_kernel(self.namespace, self.interface, self.next_hop, self.target)?;
        let begun = Instant::now();
        let echoes_during = self.closed_loop(self.time())?;
        let sent = storm.stop();
        let (ended, elapsed) = (Instant::now(), begun.elapsed().as_secs_f64());
        self.closed_loop(SECOND.saturating_sub(ended.elapsed()))?;
        let echoes_after = self.closed_loop(SECOND)?;
        Ok(Full { syns_per_second: sent as f64 / elapsed, echoes_before, echoes_during, echoes_after })
    }
}
