//! Over DPDK: what stands at either end of a wire that is shared memory.
//!
//! ```text
//!   core 0: far end ◄──── memif, or vhost ↔ virtio-user ────► core 1: contender
//!           testpmd macswap, or our generator                         volley run --io dpdk, or testpmd
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`pages`] | huge pages for a run, given back after it |
//! | [`wire`] | the two devices of a wire |
//! | [`contender`] | an echo server on one of them |
//! | [`above`] | what a packet costs above the driver |
//! | [`far_end`] | what sends to it: testpmd, circulating packets; or our generator, checking every byte |

pub mod above;
pub mod contender;
pub mod far_end;
pub mod pages;
pub mod wire;
