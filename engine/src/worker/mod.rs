//! The worker: one pinned thread that owns its ports and its app, and runs each burst to completion.

mod helpers;
mod mailbox;
mod timers;

pub use helpers::Helpers;
pub use mailbox::{Mailboxes, PostError, Waker};
pub use timers::{TimerId, Timers};
