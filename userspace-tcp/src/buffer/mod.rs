//! Where bytes live that outlive a burst: one pool of small chunks, and queues of them.
//!
//! ```text
//!  pool:   [chunk 0][chunk 1][chunk 2] …      512 bytes each, allocated once, never grown
//!  queue:  head ─► 17 ─► 4 ─► 230 ─► tail     linked by index; each chunk holds bytes start..end
//! ```
//!
//! It knows nothing of sequence numbers.

mod pool;
mod queue;

pub(crate) use pool::{CHUNK, NIL, Pool};
pub(crate) use queue::{Cursor, Queue};
