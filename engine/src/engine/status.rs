//! The status socket: what a running engine is doing, asked for from another process.
//!
//! A Unix stream socket `/run/volley/<netns inode>-<ifindex>.<pid>.sock`. A client sends one line, `json` or `text`, and gets the
//! report in that form. The file's permissions are the process's own; nothing can be changed through it.

use super::report::Report;
use super::seat::Event;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the sockets are.
pub const DIRECTORY: &str = "/run/volley";

/// How long either side waits for the other. An engine answers within a millisecond; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest request, in bytes.
const REQUEST_MAX: u64 = 64;

/// Serves an engine's status until dropped; the socket's file goes with it.
pub struct StatusSocket {
    path: PathBuf,
    listener: Arc<UnixListener>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StatusSocket {
    /// Serves `path`, asking the engine through `events`.
    pub(super) fn open(path: PathBuf, events: Sender<Event>) -> io::Result<StatusSocket> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // Whoever was killed could not tidy up; a file of our own name is such a one's too, since it holds our pid.
        sockets();
        let _ = std::fs::remove_file(&path);
        let listener = Arc::new(UnixListener::bind(&path)?);
        let closing = Arc::new(AtomicBool::new(false));
        let (seen, accepting) = (Arc::clone(&closing), Arc::clone(&listener));
        let thread = std::thread::Builder::new().name("volley-status".into()).spawn(move || {
            for client in accepting.incoming() {
                if seen.load(Ordering::Acquire) {
                    return;
                }
                // A client that goes away early is its own affair.
                let _ = client.and_then(|client| answer(client, &events));
            }
        })?;
        Ok(StatusSocket { path, listener, closing, thread: Some(thread) })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Ends the accept above. A connection to the path would not do: it may lead to another engine of this process.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&*self.listener);
        let woken = nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn answer(client: UnixStream, events: &Sender<Event>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    BufReader::new((&client).take(REQUEST_MAX)).read_line(&mut request)?;
    let (reply, report) = mpsc::channel();
    let gone = || io::Error::other("the engine is stopping");
    events.send(Event::Ask(reply)).map_err(|_| gone())?;
    let report: Report = report.recv_timeout(PATIENCE).map_err(|_| gone())?;
    let text = match request.trim() {
        "json" => report.to_json(),
        _ => report.to_string(),
    };
    (&client).write_all(text.as_bytes())
}

/// The sockets of engines in [`DIRECTORY`]. Those that killed processes left behind are removed.
pub fn sockets() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let all =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "sock"));
    let (mut alive, dead): (Vec<PathBuf>, Vec<PathBuf>) = all.partition(|path| is_alive(path));
    for path in dead {
        // Without the right to, it stays and does no harm.
        let _ = std::fs::remove_file(path);
    }
    alive.sort();
    alive
}

/// `<key>.<pid>.sock`: whether that process exists.
fn is_alive(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let pid = stem.and_then(|stem| stem.rsplit_once('.')).and_then(|(_, pid)| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
}

/// Asks the engine behind `path`, in the form `json` or `text`.
///
/// # Errors
/// When it is gone or does not answer within two seconds.
pub fn ask(path: &Path, form: &str) -> io::Result<String> {
    let mut server = UnixStream::connect(path)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.set_write_timeout(Some(PATIENCE))?;
    server.write_all(format!("{form}\n").as_bytes())?;
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    match text.is_empty() {
        true => Err(io::Error::other("it gave no answer: it is stopping, or stuck")),
        false => Ok(text),
    }
}
