//! The receiving half: what has arrived in order and out of order, what is acknowledged when, and how much room there is.
//!
//! | module | what | RFC |
//! | --- | --- | --- |
//! | [`pieces`] | in-order data that still stands in frames of the burst | |
//! | [`reassembly`] | out-of-order data in the pool; SACK blocks | 9293 §3.10.7.4, 2018, 2883 |
//! | [`data`] | one segment's payload: trimmed, taken, or refused | 9293 §3.10.7.4 |
//! | [`window`] | the window offered | 9293 §3.8.6.2.2 |
//! | [`delayed_ack`] | when an acknowledgment is due | 9293 §3.8.6.3, 5681 §4.2 |

pub(crate) mod data;
pub(crate) mod delayed_ack;
pub(crate) mod pieces;
pub(crate) mod reassembly;
pub(crate) mod window;
