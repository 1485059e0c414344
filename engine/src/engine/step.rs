//! A step down the ladder, while the workers run on.
//!
//! ```text
//!   control thread                                  worker
//!   Part ─────────────────────────────────────────► a Parked port takes the first one's place
//!   close it, count it ◄──────────────── the port ─┘
//!   …until all have parted…
//!   program: as it is, attached anew, or gone
//!   open the next port, bind, claim
//!   Take ─────────────────────────────────────────► the new port at the same index
//! ```
//!
//! A queue has one socket at a time, so the old port is closed before the new one is opened; what arrives in between is the
//! kernel's, and the companion answers it. The worker waits for nothing: it has its app, its timers and its other ports.

use super::Notice;
use super::config::{Attach, Config};
use super::control::Control;
use super::error::StartError;
use super::front::Front;
use super::ladder::Rung;
use super::ports::FirstPort;
use super::report;
use super::seat::{Order, PortName};
use super::watch::Watch;
use crate::datagram::DatagramPort;
use crate::frame::Ledger;
use crate::worker::PortCounters;

/// A step that is under way.
pub(super) struct Step {
    to: Rung,
    why: String,
    /// The workers that have not parted.
    waiting: Vec<usize>,
    /// What became of the frames of those that have.
    ledger: Ledger,
}

impl Control {
    /// Begins to step down because of `why`; says so if there is nowhere to go.
    pub(super) fn step_down(&mut self, why: String) {
        if self.step.is_some() || self.stop.is_requested() {
            return;
        }
        let Some(to) = self.ladder.below() else {
            self.watch = None;
            self.notify(Notice::Stalled { why });
            return;
        };
        self.watch = None;
        self.standing.set(to);
        if to == Rung::Socket
            && let Some(front) = &mut self.front
        {
            // From here on new packets are the kernel's.
            front.release();
        }
        let waiting: Vec<_> =
            (0..self.chairs.len()).filter(|worker| !self.chairs[*worker].is_done()).collect();
        for worker in &waiting {
            let chair = &self.chairs[*worker];
            let _ = chair.orders.send(Order::Part);
            chair.waker.notify();
        }
        self.step = Some(Step { to, why, waiting, ledger: Ledger::default() });
        self.arrive_if_all_parted();
    }

    /// A worker has given its first port back.
    pub(super) fn parted(&mut self, worker: usize, mut port: Box<dyn DatagramPort>) {
        let ledger = port.close();
        let counters = PortCounters { ledger, ..PortCounters::of(port.as_ref()) };
        drop(port);
        report::add_port(&mut self.chairs[worker].past, 0, &counters);
        if let Some(step) = &mut self.step {
            step.ledger = report::plus(step.ledger, ledger);
            step.waiting.retain(|waiting| *waiting != worker);
        }
        self.arrive_if_all_parted();
    }

    /// A worker has ended for good: nobody waits for it.
    pub(super) fn will_not_part(&mut self, worker: usize) {
        if let Some(step) = &mut self.step {
            step.waiting.retain(|waiting| *waiting != worker);
            self.arrive_if_all_parted();
        }
    }

    fn arrive_if_all_parted(&mut self) {
        let Some(step) = self.step.take_if(|step| step.waiting.is_empty()) else { return };
        if self.stop.is_requested() {
            return;
        }
        let Step { to, why, ledger, .. } = step;
        let taken = self.ladder.step(to, why, ledger);
        self.notify(Notice::Demoted { from: taken.from, to, why: taken.why });
        match self.arrive(to) {
            Ok(()) => self.watch(),
            Err(error) => self.step_down(format!("it cannot be had: {error}")),
        }
    }

    /// Opens what the rung is made of and hands it to the workers.
    fn arrive(&mut self, to: Rung) -> Result<(), StartError> {
        match to {
            Rung::Generic => {
                // Before its successor can be attached.
                drop(self.front.take());
                let config = Config { attach: Attach::Generic, replace: false, ..self.config.clone() };
                self.front = Some(Front::attach(&config)?);
            }
            Rung::Socket => drop(self.front.take()),
            Rung::ZeroCopy | Rung::Copy => {}
        }
        let mut opened = Vec::new();
        for (worker, chair) in self.chairs.iter().enumerate().filter(|(_, chair)| !chair.is_done()) {
            if let Some(first) = &chair.first {
                opened.push((worker, first.open(&chair.waker)?));
            }
        }
        if let Some(front) = &mut self.front {
            for (_, FirstPort { sockets, .. }) in &opened {
                front.bind(sockets)?;
            }
            if to == Rung::Generic {
                front.claim(&self.config)?;
            }
        }
        for (worker, FirstPort { role, port, .. }) in opened {
            let chair = &mut self.chairs[worker];
            if let Some(place) = chair.ports.first_mut() {
                *place = PortName { name: port.name().to_owned(), role };
            }
            let _ = chair.orders.send(Order::Take(0, port));
            chair.waker.notify();
        }
        Ok(())
    }

    /// Begins to watch the queues, counters as they are now.
    pub(super) fn watch(&mut self) {
        let (Some(front), Some(name)) = (&self.front, &self.config.interface) else { return };
        match Watch::new(name, front.index(), &self.chairs) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => log::warn!("{name} is not watched for stalls: {error}"),
        }
    }
}
