//! Volley: a kernel-bypass packet engine for game servers.
//!
//! The modules stand in the order in which a packet meets them:
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | [`frame`] | owns packet memory, one token per chunk, and accounts for every one | look inside |
//! | [`port`] | moves bursts of frames in and out of a device | parse |
//! | [`host`] | says what the machine's devices can do | change anything |
//! | [`net`] | Ethernet, VLAN, IP and UDP in and out; paths; neighbours | wait, allocate |
//! | `control` | tells workers about links, routes and neighbours (rtnetlink, Linux) | make a worker wait |
//! | [`datagram`] | the datagram ports: `Net` over a frame port, or a kernel socket | know the app |
//! | [`stream`] | the stream ports: kernel TCP, or our own over a frame port; framing | know the app |
//! | `uring` | the io_uring that ports of both kinds stand on (Linux) | know what a request is for |
//! | [`worker`] | drives ports and app in bursts; timers, ticks, messages; sleeps | lock, allocate |
//! | [`app`] | the contract for server logic, and the apps that come with the engine | know the port |
//! | [`engine`] | puts all of it together from a configuration, and takes it apart again | touch a packet |
//! | [`generator`] | the traffic generator at the other end of the wire | share code with the path it checks |

pub mod app;
#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
pub mod control;
pub mod datagram;
#[cfg(target_os = "linux")]
pub mod engine;
pub mod frame;
#[cfg(target_os = "linux")]
pub mod generator;
#[cfg(target_os = "linux")]
pub mod host;
pub mod net;
pub mod port;
pub mod stream;
pub mod time;
#[cfg(target_os = "linux")]
pub mod uring;
pub mod worker;

pub use volley_wire as wire;

/// The README's program, kept compiling.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
