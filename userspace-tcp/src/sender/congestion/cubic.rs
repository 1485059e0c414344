//! CUBIC (RFC 9438). Windows in segments and times in seconds here, as in the RFC's formulas.

use super::Ack;

/// How fast the window grows again (RFC 9438, section 5: "C SHOULD be set to 0.4").
const C: f32 = 0.4;
/// Multiplicative decrease factor (section 4.6).
const BETA: f32 = 0.7;
/// Additive increase of the Reno-friendly estimate (section 4.3).
const ALPHA: f32 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cubic {
    /// Window just before the last reduction, in segments (after fast convergence).
    w_max: f32,
    /// Window before that reduction: cwnd_prior of section 4.3.
    cwnd_prior: f32,
    /// Seconds from the start of the epoch until the curve is back at `w_max`.
    k: f32,
    /// The Reno-friendly window.
    w_est: f32,
    /// Start of this epoch of congestion avoidance, milliseconds; `None` before it starts.
    epoch: Option<u32>,
    /// Fractions of a segment not yet in cwnd.
    rest: f32,
}

impl Cubic {
    /// Congestion avoidance (sections 4.2 to 4.5).
    pub(super) fn avoidance(&mut self, cwnd: u32, ack: Ack) -> u32 {
        let mss = ack.mss as f32;
        let window = cwnd as f32 / mss;
        let acked = ack.bytes as f32 / mss;
        let epoch = *self.epoch.get_or_insert_with(|| {
            // Section 4.2 (figure 2), and section 4.8 for an epoch that no reduction began.
            if self.w_max < window {
                self.w_max = window;
            }
            self.k = ((self.w_max - window) / C).cbrt();
            self.w_est = window;
            self.rest = 0.0;
            ack.now_ms
        });
        let t = ack.now_ms.wrapping_sub(epoch) as f32 / 1e3;
        let rtt = ack.rtt_us as f32 / 1e6;
        let w = |t: f32| C * (t - self.k).powi(3) + self.w_max;
        // Section 4.3: alpha is 1 once the estimate has passed the window of the last reduction.
        let alpha = if self.w_est >= self.cwnd_prior { 1.0 } else { ALPHA };
        self.w_est += alpha * acked / window;
        let mut next = window;
        if w(t) < self.w_est {
            next = next.max(self.w_est);
        } else {
            // Section 4.4 and 4.5: the target one round trip ahead, at most half a window more.
            let target = w(t + rtt).clamp(window, 1.5 * window);
            next += (target - window) / window * acked;
        }
        self.rest += (next - window) * mss;
        let whole = self.rest.max(0.0) as u32;
        self.rest -= whole as f32;
        cwnd.saturating_add(whole)
    }

    /// Multiplicative decrease (section 4.6) and fast convergence (section 4.7).
    pub(super) fn reduce(&mut self, cwnd: u32, flight: u32, mss: u32) -> u32 {
        let window = cwnd as f32 / mss.max(1) as f32;
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.cwnd_prior = window;
        self.epoch = None;
        // "flight_size * beta"; a window that the sender did not fill is no measure of the path.
        ((flight.min(cwnd) as f32 * BETA) as u32).max(2 * mss)
    }

    pub(super) fn end_epoch(&mut self) {
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round trip of acknowledgments for a full window.
    fn round(cubic: &mut Cubic, mut cwnd: u32, now_ms: u32, rtt_us: u32) -> u32 {
        for _ in 0..cwnd / 1000 {
            cwnd = cubic.avoidance(cwnd, Ack { bytes: 1000, mss: 1000, rtt_us, now_ms });
        }
        cwnd
    }

    #[test]
    fn returns_to_the_old_window_after_k_and_goes_on_beyond() {
        let mut cubic = Cubic::default();
        let start = cubic.reduce(1_000_000, 1_000_000, 1000);
        assert_eq!(start, 700_000);
        // K = cbrt((1000 - 700) / 0.4) = 9.086 s.
        let mut cwnd = start;
        let (mut at_half, mut at_k) = (0, 0);
        for step in 0..150u32 {
            cwnd = round(&mut cubic, cwnd, step * 100, 100_000);
            if step == 45 {
                at_half = cwnd;
            }
            if step == 91 {
                at_k = cwnd;
            }
        }
        assert!((930_000..985_000).contains(&at_half), "{at_half}: concave, fast at first");
        assert!((990_000..1_010_000).contains(&at_k), "{at_k}: W_max at K");
        assert!(cwnd > 1_060_000, "{cwnd}: convex afterwards");
    }

    #[test]
    fn is_no_slower_than_reno_on_short_paths_and_converges_fast() {
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.reduce(20_000, 20_000, 1000);
        for step in 0..40u32 {
            cwnd = round(&mut cubic, cwnd, step, 1_000);
        }
        // AIMD with alpha 0.53 grows 14 + 0.53 * 40 segments, and alpha is 1 above 20.
        assert!((33_000..50_000).contains(&cwnd), "{cwnd}");
        let before = cubic.w_max;
        cubic.reduce(15_000, 15_000, 1000);
        assert!((cubic.w_max - 15.0 * 0.85).abs() < 0.01 && before > 15.0, "{} {before}", cubic.w_max);
    }
}
