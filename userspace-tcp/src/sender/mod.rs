//! The sending half: what is in flight, what is lost, how much may be sent, and when to try again.
//!
//! | module | what | RFC |
//! | --- | --- | --- |
//! | [`record`] | one record per segment in flight: the scoreboard | 6675, 8985 §5 |
//! | [`ack`] | what an acknowledgment changes | 9293, 2018, 2883 |
//! | [`rtt`] | round-trip time and timeout | 6298 |
//! | [`rack`] | loss deduced from time; tail loss probe | 8985 |
//! | [`recovery`] | fast recovery, timeouts, undo | 6937, 6582, 5682, 3522 |
//! | [`congestion`] | growth and reduction of the window | 9438, 5681, 6928 |
//! | [`timer`] | the one timer all of these share | 6298 §5, 8985 §7, 9293 §3.8.6.1 |

pub(crate) mod ack;
pub(crate) mod congestion;
pub(crate) mod rack;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod rtt;
pub(crate) mod timer;

use crate::buffer::Pool;
use crate::config::Config;
use crate::counters::Counters;
use record::Records;

/// What all connections share and the sender works with.
pub(crate) struct Shared<'s> {
    pub pool: &'s mut Pool,
    pub records: &'s mut Records,
    pub counters: &'s mut Counters,
    pub config: &'s Config,
}
