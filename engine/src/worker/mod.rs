//! The worker: one pinned thread that owns its ports and its app, and runs each burst to completion.
//!
//! | module | what |
//! | --- | --- |
//! | [`turn`] | one turn over app, ports, timers and messages: a pure step, time is its argument |
//! | [`run`](mod@run) | the loop around it: clock, sleep, housekeeping, stop |
//! | [`clock`], [`ticks`], [`timers`] | time |
//! | [`mailbox`], [`helpers`] | messages from other workers, work for other threads |
//! | [`idle`] | spin or sleep |
//! | [`affinity`] | cores and NUMA |
//! | [`counters`] | what others may read |

pub mod affinity;
pub mod clock;
pub mod counters;
pub mod helpers;
pub mod idle;
pub mod mailbox;
pub mod run;
pub mod ticks;
pub mod timers;
pub mod turn;

pub use counters::{LoopStats, PortCounters, Published};
pub use helpers::Helpers;
pub use idle::{IdlePolicy, Sleeper};
pub use mailbox::{Mailboxes, PostError, Waker};
pub use run::{End, Run, Stop, run};
pub use timers::{TimerId, Timers};
pub use turn::{Board, Exchange, Turn, Worker, WorkerConfig};

#[cfg(test)]
mod tests;
