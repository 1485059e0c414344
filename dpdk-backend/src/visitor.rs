//! The end of a wait. A virtio-user device with `server=1` accepts its other end within the call that makes it, and nothing but somebody
//! coming ends that: not a signal, and not DPDK. So when the start is to be given up, somebody comes, and goes at once.
//!
//! ```text
//!   probing thread ── rte_dev_probe: listen, accept ………………… accepted, nobody there ─► refused, cleaned up
//!   this thread ───── looks at the flag ─── set ─► connect, close ──┘
//! ```

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at the flag: a person does not notice, a waiting process costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The thread beside one probe.
pub(crate) struct Visitor {
    thread: JoinHandle<bool>,
    over: Arc<AtomicBool>,
    path: PathBuf,
}

impl Visitor {
    /// Begins to look, if `device` is one that waits.
    pub fn of(device: &str, give_up: Option<&Arc<AtomicBool>>) -> Option<Visitor> {
        let argument = |name| device.split(',').find_map(|argument| argument.strip_prefix(name));
        if !device.starts_with("net_virtio_user") || argument("server=") != Some("1") {
            return None;
        }
        let path = PathBuf::from(argument("path=")?);
        log::info!("{device} listens, and starts once its other end has come");
        let give_up = Arc::clone(give_up?);
        let over = Arc::new(AtomicBool::new(false));
        let (there, ended) = (path.clone(), Arc::clone(&over));
        let look = move || look(&there, &give_up, &ended);
        let thread = std::thread::Builder::new().name("volley-visitor".into()).spawn(look).ok()?;
        Some(Visitor { thread, over, path })
    }

    /// Ends, after the probe, and says whether it was called off.
    pub fn came(self) -> bool {
        self.over.store(true, Ordering::Release);
        let came = self.thread.join().unwrap_or(false);
        if came {
            // The driver leaves it when nothing comes of the device.
            let _ = std::fs::remove_file(&self.path);
        }
        came
    }
}

/// Visits as often as it takes: the first may come before the device listens.
fn look(path: &Path, give_up: &AtomicBool, over: &AtomicBool) -> bool {
    let mut came = false;
    while !over.load(Ordering::Acquire) {
        if give_up.load(Ordering::Acquire) {
            came |= UnixStream::connect(path).is_ok();
        }
        std::thread::sleep(LOOK_EVERY);
    }
    came
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn it_comes_when_asked_and_not_before() {
        let path = std::env::temp_dir().join(format!("volley-visitor-{}", std::process::id()));
        let give_up = Arc::new(AtomicBool::new(false));
        let device = format!("net_virtio_user0,path={},server=1", path.display());
        for (device, there) in
            [("net_vhost0,iface=/x", false), ("net_virtio_user0,path=/x", false), (&device, true)]
        {
            let visitor = Visitor::of(device, Some(&give_up));
            assert_eq!(visitor.is_some(), there, "{device}");
            assert!(!visitor.is_some_and(Visitor::came), "nobody asked");
        }
        let listener = UnixListener::bind(&path).unwrap();
        let visitor = Visitor::of(&device, Some(&give_up)).unwrap();
        give_up.store(true, Ordering::Release);
        listener.accept().unwrap();
        assert!(visitor.came());
        assert!(!path.exists());
    }
}
