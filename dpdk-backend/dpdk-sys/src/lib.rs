//! Bindings to the system's DPDK.
//!
//! Made by bindgen when this crate is built, against the headers that pkg-config finds (22.11 LTS or later). What DPDK
//! defines inline, and what takes structs whose fields differ between releases, goes through a small shim in C
//! (`shim/`): a burst is one call, and an mbuf's fields are reached by the offsets that the shim's compiler saw.
//!
//! Nothing here is safe or documented beyond the shim's header; `volley-dpdk` is the layer to use.
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
// What bindgen writes for bit fields has no comments.
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_lossless,
    rustdoc::all,
    unsafe_op_in_unsafe_fn
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
