//! EAL's and the drivers' messages: to `log`, and the last few of them kept to explain a refusal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use volley_dpdk_sys as sys;

/// Messages kept: a refusal is announced within its last few lines.
const KEPT: usize = 64;

static LAST: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// While EAL starts, the terminal is its own (see the shim): nothing is passed on, only kept.
static STARTING: AtomicBool = AtomicBool::new(false);

/// RTE_LOG_ERR and RTE_LOG_WARNING, as in syslog.
const ERROR: u32 = 4;
const WARNING: u32 = 5;

/// From here on, no message of DPDK's goes to the terminal.
pub(crate) fn capture() {
    // SAFETY: the function lives as long as the program, and takes any thread's calls.
    let failed = unsafe { sys::volley_log_to(Some(line)) };
    if failed != 0 {
        log::debug!("DPDK's messages go to the terminal: errno {}", -failed);
    }
}

/// Keeps what is said while `start` runs, and passes it on afterwards.
pub(crate) fn starting<T>(start: impl FnOnce() -> T) -> T {
    STARTING.store(true, Ordering::Release);
    let outcome = start();
    STARTING.store(false, Ordering::Release);
    for text in last() {
        log::debug!(target: "dpdk", "{text}");
    }
    outcome
}

/// The kept messages, oldest first.
pub(crate) fn last() -> Vec<String> {
    LAST.lock().map(|last| last.clone()).unwrap_or_default()
}

/// Forgets them.
pub(crate) fn forget() {
    if let Ok(mut last) = LAST.lock() {
        last.clear();
    }
}

extern "C" fn line(level: u32, text: *const std::ffi::c_char, len: usize) {
    // SAFETY: the shim passes a buffer of that length, ours for the call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    for text in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|text| !text.is_empty()) {
        match level {
            _ if STARTING.load(Ordering::Acquire) => {}
            0..=ERROR => log::debug!(target: "dpdk", "error: {text}"),
            WARNING => log::debug!(target: "dpdk", "warning: {text}"),
            _ => log::trace!(target: "dpdk", "{text}"),
        }
        if let Ok(mut last) = LAST.lock() {
            if last.len() == KEPT {
                last.remove(0);
            }
            last.push(text.to_owned());
        }
    }
}
