//! The programs themselves, as the kernel runs them (BPF_PROG_TEST_RUN): needs root, no interface.
//!
//! Every fixture and any number of mangled ones go through `volley_steer` in the kernel and `steer` on the
//! host, and both must say the same. All of it is done with the committed object and with one built just now.

#[cfg(target_os = "linux")]
mod differential;
#[cfg(target_os = "linux")]
mod each_fixture;
#[cfg(target_os = "linux")]
#[path = "../../fixtures/mod.rs"]
mod fixtures;
#[cfg(target_os = "linux")]
mod libbpf;
mod limits;
#[cfg(target_os = "linux")]
mod program;
