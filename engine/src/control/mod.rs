//! The control thread: what the kernel knows of links, addresses, routes and neighbours, told to the workers.
//!
//! ```text
//!  kernel ──rtnetlink──► Model ──view per interface──► Publisher ──bounded ring──► Net (worker)
//!    ▲                                                    │
//!    └────────── "use this neighbour" ◄──bounded ring─────┘
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | `netlink` | the sockets: dumps, events, the request that makes the kernel resolve a neighbour |
//! | `metrics` | what the messages about routes hold that is not read |
//! | `model` | everything heard, and the view one interface's port has of it |
//! | `publish` | what a worker has been told already, and the difference |
//!
//! A worker never waits for this thread. When events were lost, everything is dumped again; workers are told the difference
//! only. It never changes anything in the kernel but the state of neighbour entries that a worker asked for.

mod metrics;
mod model;
mod netlink;
mod publish;

use crate::net::neighbours::{Subscription, subscription};
use crate::worker::Waker;
pub(crate) use metrics::hide_metrics;
use model::Model;
use netlink::{Events, Requests};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use publish::Subscriber;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Milliseconds until what did not fit a worker's ring is offered again, and until routes are dumped again after they
/// changed. Shorter spends a core's time on a storm of changes, longer leaves sends without a route for that long.
const RETRY_MS: u16 = 10;

/// Why the control thread could not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A netlink socket failed.
    #[error("rtnetlink: {0}: the kernel does not tell about links and neighbours")]
    Netlink(#[source] std::io::Error),
    /// No thread, or no socket pair to wake it.
    #[error("cannot start the control thread: {0}")]
    Thread(#[source] std::io::Error),
}

enum Command {
    Subscribe(Subscriber),
    Stop,
}

/// The running thread. Dropping it ends it; workers then keep what they know.
pub struct Control {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    bell: Arc<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread for the network namespace of the calling thread, and learns what there is before it returns.
    ///
    /// # Errors
    /// [`ControlError`] when rtnetlink cannot be used.
    pub fn start() -> Result<Control, ControlError> {
        let mut model = Model::default();
        // Events first, then the dump: what changes in between is heard twice rather than not at all.
        let events = Events::open().map_err(ControlError::Netlink)?;
        let mut requests = Requests::open().map_err(ControlError::Netlink)?;
        requests.learn(&mut model).map_err(ControlError::Netlink)?;

        let (bell, ear) = UnixStream::pair().map_err(ControlError::Thread)?;
        bell.set_nonblocking(true).map_err(ControlError::Thread)?;
        ear.set_nonblocking(true).map_err(ControlError::Thread)?;
        let bell = Arc::new(bell);
        let ring = Arc::clone(&bell);
        // A full pipe rings already.
        let waker = Arc::new(Waker::new(move || _ = (&*ring).write(&[1])));
        let (commands, inbox) = mpsc::channel();
        let ours = Arc::clone(&waker);
        let mut thread =
            Thread { model, events, requests, subscribers: Vec::new(), inbox, ear, waker: ours };
        let thread = std::thread::Builder::new()
            .name("volley-control".into())
            .spawn(move || thread.run())
            .map_err(ControlError::Thread)?;
        Ok(Control { commands, waker, bell, thread: Some(thread) })
    }

    /// The updates about interface number `interface` (and the VLANs on it), for one [`crate::net::Net`]. `worker` is woken when the
    /// interface is removed.
    pub fn subscribe(&self, interface: u32, worker: Option<Arc<Waker>>) -> Subscription {
        let (subscription, publisher) = subscription(Arc::clone(&self.waker));
        self.command(Command::Subscribe(Subscriber::new(interface, publisher, worker)));
        subscription
    }

    fn command(&self, command: Command) {
        // An ended thread needs no commands.
        let _ = self.commands.send(command);
        let _ = (&*self.bell).write(&[1]);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    model: Model,
    events: Events,
    requests: Requests,
    subscribers: Vec<Subscriber>,
    inbox: mpsc::Receiver<Command>,
    ear: UnixStream,
    waker: Arc<Waker>,
}

impl Thread {
    fn run(&mut self) {
        loop {
            for command in self.inbox.try_iter() {
                match command {
                    Command::Subscribe(subscriber) => self.subscribers.push(subscriber),
                    Command::Stop => return,
                }
            }
            let changed = match self.hear() {
                Ok(changed) => changed,
                Err(error) => {
                    log::error!(
                        "the control thread ends: rtnetlink: {error}; new neighbours will not be learned"
                    );
                    return;
                }
            };
            for subscriber in &mut self.subscribers {
                if changed || !subscriber.is_up_to_date() {
                    subscriber.publish(self.model.view(subscriber.interface()));
                }
            }
            self.resolve();
            self.subscribers.retain(|subscriber| !subscriber.is_abandoned());

            let waiting = self.model.wants_routes() || self.subscribers.iter().any(|s| !s.is_up_to_date());
            let timeout = if waiting { PollTimeout::from(RETRY_MS) } else { PollTimeout::NONE };
            self.waker.about_to_sleep();
            if self.subscribers.iter().any(Subscriber::has_asks) {
                self.waker.awake();
                continue;
            }
            let mut fds = [
                PollFd::new(self.ear.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            ];
            // Interrupted or not, everything is looked at again.
            let _ = poll(&mut fds, timeout);
            self.waker.awake();
            let mut sink = [0u8; 64];
            while matches!((&self.ear).read(&mut sink), Ok(64)) {}
        }
    }

    /// Takes in what the kernel has told; true when anything may have changed.
    fn hear(&mut self) -> std::io::Result<bool> {
        let mut changed = false;
        // Routes changed in an earlier turn: by now the change is complete.
        if self.model.wants_routes() {
            self.requests.learn_routes(&mut self.model)?;
            changed = true;
        }
        let heard = self.events.read(&mut self.model)?;
        if heard.lost {
            log::warn!("rtnetlink events were lost; asking the kernel for everything again");
            self.model = Model::default();
            self.requests.learn(&mut self.model)?;
        }
        Ok(changed || heard.any || heard.lost)
    }

    /// Has the kernel resolve what workers asked for.
    fn resolve(&mut self) {
        for subscriber in &mut self.subscribers {
            while let Some(neighbour) = subscriber.next_ask() {
                let Some(interface) = self.model.interface_of(subscriber.interface(), neighbour.tag) else {
                    continue;
                };
                if let Err(error) = self.requests.resolve(interface, &neighbour.address) {
                    log::debug!(
                        "interface {interface}: cannot have {:?} resolved: {error}",
                        neighbour.address
                    );
                }
            }
        }
    }
}
