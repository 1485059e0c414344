//! The sender's one timer: retransmission timeout, tail loss probe, reordering, or window probe, whichever is next.

use super::Shared;
use super::recovery::Phase;
use crate::buffer::NIL;
use crate::config::Config;
use crate::tcb::{Tcb, Timer, f};
use crate::time::{Instant, before, deadline_us, due, us_of};

/// How long a peer may delay an acknowledgment (TLP.max_ack_delay, RFC 8985, section 7.2): what the field's stacks do at most.
const MAX_ACK_DELAY_US: u32 = 200_000;

/// Round trips in a timeout from which on a path is short: a timeout is then no measure of it, but the minimum.
const SHORT_PATH: u32 = 32;

/// How long cork may hold data back.
const CORK_US: u32 = 200_000;

/// What the output must do after a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fired {
    Nothing,
    /// There is something to send.
    Output,
    /// The connection has waited too long.
    GiveUp,
}

impl Tcb<'_> {
    /// Sets the timer after sending or an acknowledgment.
    pub(crate) fn arm_sender(&mut self, config: &Config, now: Instant, fresh: bool) {
        if self.hot.records.0 == NIL {
            let held = self.hot.unsent_bytes() > 0 || self.hot.fin_due();
            if held && self.hot.state.synchronized() {
                if self.hot.timer != Timer::Persist {
                    // A closed window, or data that silly-window avoidance holds back.
                    self.hot.timer = Timer::Persist;
                    let mut wait = self.cold.rtt.backed_off(self.cold.backoff, config);
                    if self.hot.has(f::CORK) && self.hot.snd_wnd > 0 {
                        wait = CORK_US;
                    }
                    self.hot.timer_at = deadline_us(now, wait);
                    self.cold.probe_since = now.ms();
                }
            } else if self.hot.state.synchronized() {
                self.hot.timer = Timer::Off;
            }
            return;
        }
        if self.cold.reorder_wait > 0 && self.cold.rack.times.oldest != NIL {
            self.hot.timer = Timer::Reorder;
            self.hot.timer_at = deadline_us(now, self.cold.reorder_wait);
            if !before(self.hot.timer_at, self.cold.rto_at) {
                self.hot.timer = Timer::Retransmit;
                self.hot.timer_at = self.cold.rto_at;
            }
            return;
        }
        if self.may_probe_tail() {
            if self.hot.timer == Timer::TailProbe && !fresh {
                return;
            }
            // RFC 8985, section 7.2.
            let mut pto = match self.cold.rtt.smoothed {
                0 => 1_000_000,
                smoothed => 2 * smoothed,
            };
            if self.flight() <= u32::from(self.hot.mss) {
                pto += MAX_ACK_DELAY_US.min(us_of(config.min_rto));
            }
            let at = deadline_us(now, pto.max(2_000));
            self.hot.timer = Timer::TailProbe;
            self.hot.timer_at = if before(self.cold.rto_at, at) { self.cold.rto_at } else { at };
            return;
        }
        self.hot.timer = Timer::Retransmit;
        self.hot.timer_at = self.cold.rto_at;
    }

    /// RFC 8985, section 7.2: SACK, nothing SACKed, not recovering, no probe out. And in fast recovery, on a short path.
    fn may_probe_tail(&self) -> bool {
        let phase = match self.cold.recovery.phase {
            Phase::Open => self.cold.rack.sacked == 0,
            Phase::Recovery => self.may_probe_recovery(),
            Phase::Loss => false,
        };
        phase
            && self.hot.has(f::SACK)
            && self.hot.state.synchronized()
            && self.cold.rack.probe.is_none()
            && self.cold.backoff == 0
            && self.hot.snd_wnd > 0
    }

    /// Once all that is lost has been sent again. A receiver that compresses its SACKs (Linux after the third) answers a hole that
    /// is filled, and all that came behind it, with one acknowledgment. If that is lost, nothing moves until the timeout, whose
    /// minimum is thousands of round trips of a short path. Where the timeout is a matter of round trips the RFC's rule stands.
    fn may_probe_recovery(&self) -> bool {
        let smoothed = self.cold.rtt.smoothed;
        !self.hot.has(f::LOST)
            && self.hot.in_flight > 0
            && smoothed > 0
            && self.cold.rtt.rto / smoothed >= SHORT_PATH
    }

    /// The timer's time has come.
    pub(crate) fn sender_timer(&mut self, shared: &mut Shared<'_>, now: Instant) -> Fired {
        if !due(self.hot.timer_at, now.ms()) {
            return Fired::Nothing;
        }
        match self.hot.timer {
            Timer::Off => Fired::Nothing,
            Timer::Reorder => {
                self.cold.reorder_wait = 0;
                let entered = self.detect(shared, now);
                if entered {
                    self.prr(0, true);
                }
                self.hot.timer = Timer::Retransmit;
                self.arm_sender(shared.config, now, true);
                Fired::Output
            }
            Timer::TailProbe => {
                self.hot.set(f::TAIL_PROBE);
                self.hot.timer = Timer::Retransmit;
                self.restart_rto(shared.config, now);
                self.hot.timer_at = self.cold.rto_at;
                Fired::Output
            }
            Timer::Persist => self.persist(shared, now),
            Timer::Retransmit => self.timeout(shared, now),
        }
    }

    /// RFC 6298, section 5.4 to 5.7.
    fn timeout(&mut self, shared: &mut Shared<'_>, now: Instant) -> Fired {
        let patience = self.cold.user_timeout;
        // A closed window whose owner answers is no failure (RFC 9293, section 3.8.6.1, MUST-37) as long as somebody waits here.
        let since = if self.hot.snd_wnd == 0 && !self.hot.has(f::ORPHAN) {
            self.cold.heard_at
        } else {
            self.cold.progress_at.max_wrapping(self.cold.first_sent)
        };
        let silent = now.ms().wrapping_sub(since);
        if patience > 0 && silent >= patience && self.hot.state.synchronized() {
            return Fired::GiveUp;
        }
        shared.counters.timeouts += 1;
        if self.hot.state.synchronized() && self.hot.snd_wnd == 0 && self.hot.records.0 != NIL {
            // The window has closed over what is in flight: its retransmission is the probe, and tells nothing of congestion.
            self.mark_first_lost(shared);
            self.hot.set(f::PROBE);
            shared.counters.window_probes += 1;
        } else if self.hot.state.synchronized() {
            self.enter_loss(shared, now);
        } else {
            self.hot.set(f::SYN_DUE);
        }
        self.cold.backoff = self.cold.backoff.saturating_add(1);
        self.restart_rto(shared.config, now);
        self.hot.timer = Timer::Retransmit;
        self.hot.timer_at = self.cold.rto_at;
        Fired::Output
    }

    /// RFC 9293, section 3.8.6.1: probe a zero window for as long as the peer acknowledges.
    fn persist(&mut self, shared: &mut Shared<'_>, now: Instant) -> Fired {
        let patience = self.cold.user_timeout;
        // Nobody waits for an orphan: there the peer must make progress.
        let heard = if self.hot.has(f::ORPHAN) { self.cold.progress_at } else { self.cold.heard_at };
        let silent = now.ms().wrapping_sub(heard);
        let probing = now.ms().wrapping_sub(self.cold.probe_since);
        if patience > 0 && silent >= patience && probing >= patience {
            return Fired::GiveUp;
        }
        self.hot.timer = Timer::Off;
        self.hot.set(f::PUSH_NOW);
        if self.hot.snd_wnd == 0 {
            self.hot.set(f::PROBE);
            shared.counters.window_probes += 1;
        }
        self.cold.backoff = self.cold.backoff.saturating_add(1);
        Fired::Output
    }
}

/// The later of two wrapping times.
trait MaxWrapping {
    fn max_wrapping(self, other: u32) -> u32;
}

impl MaxWrapping for u32 {
    fn max_wrapping(self, other: u32) -> u32 {
        if before(self, other) { other } else { self }
    }
}

impl Tcb<'_> {
    /// RFC 5681, section 4.1: after more than a timeout without sending, the window is at most the restart window.
    pub(crate) fn restart_after_idle(&mut self, config: &Config, now: Instant) {
        let idle_ms = now.ms().wrapping_sub(self.cold.sent_at);
        if u64::from(idle_ms) * 1000 <= u64::from(self.cold.rtt.rto) {
            return;
        }
        let restart =
            super::congestion::initial_window(u32::from(self.hot.mss), config.initial_window, false);
        if self.hot.cwnd > restart {
            self.hot.cwnd = restart;
        }
        self.cold.congestion.new_epoch();
    }

    /// The peer's window was closed and is open again.
    pub(crate) fn window_opened(&mut self, shared: &mut Shared<'_>, now: Instant) {
        self.cold.backoff = 0;
        if self.hot.timer == Timer::Persist {
            self.hot.timer = Timer::Off;
        }
        let first = self.hot.records.0;
        if first != NIL && shared.records.get(first).has(super::record::r::PROBE) {
            // The probe's byte was most likely not taken.
            self.mark_first_lost(shared);
            self.hot.set(f::PROBE);
            self.restart_rto(shared.config, now);
        }
    }
}
