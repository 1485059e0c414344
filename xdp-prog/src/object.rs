//! The eBPF object, embedded.
//!
//! `build.rs` has seen to it that these bytes are what the sources in `xdp-prog/ebpf`, `xdp-prog/steer` and
//! `engine/wire` build.

/// The object with all programs and maps, an ELF file; aligned so that it can be parsed in place.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/volley.bpf.o"));
