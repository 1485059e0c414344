//! Our TCP over AF_XDP, with the Linux kernel as its peer on a link that is bad, or cut, or full of enemies. Privileged.
//!
//! | module | what goes wrong |
//! | --- | --- |
//! | [`loss`] | packets are lost, duplicated, overtaken; both directions, either side opening |
//! | [`windows`] | nobody reads for seconds |
//! | [`endings`] | resets in the middle, peers that vanish |
//! | [`variants`] | the peer lacks options, or has others; small MTUs |
//! | [`routed`] | the path's MTU shrinks; a stranger sends in the client's name |
//!
//! Every test ends with [`Rig::stop`]: no connection is left, no byte in the pool, every frame in its place.
#![cfg(target_os = "linux")]

mod endings;
mod loss;
mod rig;
mod routed;
mod variants;
mod windows;
