//! The link while an engine starts. Many drivers reset the NIC when a program is attached or a queue is bound, and the link is
//! then gone for a second or two. An engine that calls itself ready before it is back loses the first packets of whoever
//! believes it.

use crate::host::{link::Link, netlink};
use std::io;
use std::time::{Duration, Instant};

/// Longer than a copper link takes to negotiate. A cable that somebody pulled just now must not hold up the start.
const PATIENCE: Duration = Duration::from_secs(8);
const STEP: Duration = Duration::from_millis(20);

/// A link that carried before anything was done to its interface.
pub struct Carried {
    interface: String,
    index: u32,
}

impl Carried {
    /// The link of `interface`, if it carries now. Of one that does not there is nothing to wait for.
    pub fn now(interface: &str) -> Option<Carried> {
        let index = Link::find(interface).ok()?.index;
        let up = netlink::carrier(index).is_ok_and(|link| link.up);
        up.then(|| Carried { interface: interface.into(), index })
    }

    /// Waits until it carries again; when it does not, says so and goes on, since it may come at any time.
    pub fn wait(&self) {
        let began = Instant::now();
        let carries = || netlink::carrier(self.index).map(|link| link.up);
        match wait(carries, || began.elapsed(), std::thread::sleep) {
            Ok(waited) if waited.is_zero() => {}
            Ok(waited) => log::info!("{}: the link was down for {} ms", self.interface, waited.as_millis()),
            Err(Lost::NoCarrier) => log::warn!(
                "{}: the link went down when the engine took it, and is not back after {} s: see `ip link show {}`",
                self.interface,
                PATIENCE.as_secs(),
                self.interface,
            ),
            Err(Lost::Unknown(why)) => {
                log::warn!("{}: its link cannot be asked about: {why}", self.interface)
            }
        }
    }
}

#[derive(Debug)]
enum Lost {
    NoCarrier,
    Unknown(io::Error),
}

/// Asks until the link carries. Returns how long that took; zero when it did at once.
fn wait(
    mut carries: impl FnMut() -> io::Result<bool>,
    mut elapsed: impl FnMut() -> Duration,
    mut sleep: impl FnMut(Duration),
) -> Result<Duration, Lost> {
    if carries().map_err(Lost::Unknown)? {
        return Ok(Duration::ZERO);
    }
    while elapsed() < PATIENCE {
        sleep(STEP);
        if carries().map_err(Lost::Unknown)? {
            return Ok(elapsed());
        }
    }
    Err(Lost::NoCarrier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Waits for a link that is back at `back`, in virtual time; with it, how long was slept.
    fn waited(back: Duration) -> (Result<Duration, Lost>, Duration) {
        let now = Cell::new(Duration::ZERO);
        let outcome = wait(|| Ok(now.get() >= back), || now.get(), |step| now.set(now.get() + step));
        (outcome, now.get())
    }

    #[test]
    fn a_link_that_carries_costs_nothing() {
        let (outcome, slept) = waited(Duration::ZERO);
        assert!(matches!(outcome, Ok(Duration::ZERO)));
        assert_eq!(slept, Duration::ZERO);
    }

    #[test]
    fn one_that_comes_back_is_waited_for() {
        let back = Duration::from_millis(1990);
        let (outcome, slept) = waited(back);
        assert!(matches!(outcome, Ok(waited) if waited >= back && waited < back + STEP * 2), "{outcome:?}");
        assert!(slept >= back);
    }

    #[test]
    fn one_that_stays_away_is_not_waited_for_for_ever() {
        let (outcome, slept) = waited(Duration::MAX);
        assert!(matches!(outcome, Err(Lost::NoCarrier)));
        assert!(slept >= PATIENCE && slept < PATIENCE + STEP * 2);
    }

    #[test]
    fn an_interface_that_is_gone_ends_the_wait() {
        let gone = || Err(io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(wait(gone, || Duration::ZERO, |_| ()), Err(Lost::Unknown(_))));
    }
}
