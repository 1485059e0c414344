//! The XDP program in front of the engine: attached first, steering only while workers are there.

use super::config::{Attach, Config, Ports, Unbound};
use super::error::StartError;
use super::report::Xdp;
use crate::host::link::Link;
use std::os::fd::{AsFd, OwnedFd};
use volley_xdp::{
    Action, AttachError, AttachMode, AttachOptions, Counter, Counters, Interface, Prefix, Protocol, Rule,
    Steering, SynLimit,
};

/// Addresses one rule holds (the table's bound: work per packet).
const ADDRESSES_MAX: usize = volley_steer::abi::MAX_RULES_PER_PORT;

/// Most SYNs let through at once, where a tenth of a second's worth is more: connects come in crowds, a match's players together, but
/// half of the receive ring stays for segments of the connections that are there.
const SYN_BURST: u32 = 1024;

/// Our side of the program on one interface.
pub(super) struct Front {
    steering: Steering,
    queues: u32,
    owner: String,
    rules: Vec<String>,
    /// What a pinned program had counted before us.
    before: Counters,
}

impl Front {
    /// Attaches the program, or uses the pinned one. No packet is steered yet.
    ///
    /// # Errors
    /// [`StartError::XdpRequired`] when this machine, process or interface cannot have it (kernel sockets still can serve);
    /// others when what was asked for is wrong.
    pub fn attach(config: &Config) -> Result<Front, StartError> {
        let interface = config.interface.clone().unwrap_or_default();
        if config.addresses.len() > ADDRESSES_MAX {
            return Err(StartError::TooManyAddresses {
                given: config.addresses.len(),
                most: ADDRESSES_MAX,
            });
        }
        let options = AttachOptions {
            interface: interface.clone(),
            mode: match config.attach {
                Attach::Auto => AttachMode::Auto,
                Attach::Native => AttachMode::Native,
                Attach::Generic => AttachMode::Generic,
            },
            replace: config.replace,
        };
        let steering = Steering::attach(&options).map_err(|error| match error {
            AttachError::NoInterface(_)
            | AttachError::Abi { .. }
            | AttachError::HalfUpgraded { .. }
            | AttachError::InUse { .. } => StartError::Xdp(error.to_string()),
            error => StartError::XdpRequired { why: error.to_string() },
        })?;
        let link =
            Link::find(&interface).map_err(|error| StartError::Xdp(format!("{interface}: {error}")))?;
        let owner = format!("run-{}", config.ports.0.start());
        let before = steering.counters().unwrap_or_default();
        // A driver that does not say has one queue pair that anybody could name.
        let queues = link.queues.unwrap_or(1);
        Ok(Front { steering, queues, owner, rules: Vec::new(), before })
    }

    /// Receive queues of the interface.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// The interface's number.
    pub fn index(&self) -> u32 {
        self.steering.interface().index
    }

    /// `<netns inode>-<ifindex>`.
    pub fn key(&self) -> String {
        self.steering.interface().key()
    }

    /// The program runs behind the driver, not in it.
    pub fn is_generic(&self) -> bool {
        self.steering.mode() == volley_xdp::Mode::Generic
    }

    /// The program was there before this engine, and stays.
    pub fn is_pinned(&self) -> bool {
        self.steering.is_pinned()
    }

    /// Packets redirected to sockets, and packets that found none behind their queue.
    pub fn steered(&self) -> Option<(u64, u64)> {
        let counters = self.steering.counters().ok()?;
        let unbound = counters.get(Counter::NoSocketPass) + counters.get(Counter::NoSocketDrop);
        Some((counters.get(Counter::Redirected), unbound))
    }

    /// True unless the queue is known to have lost its socket.
    pub fn has_socket(&self, queue: u16) -> bool {
        self.steering.has_socket(u32::from(queue)).unwrap_or(true)
    }

    /// Other processes have rules in the program.
    pub fn is_shared(&self) -> bool {
        self.steering.is_shared()
    }

    /// Puts sockets behind their queues.
    ///
    /// # Errors
    /// The first that the program's map refuses.
    pub fn bind(&mut self, sockets: &[(u16, OwnedFd)]) -> Result<(), StartError> {
        for (queue, socket) in sockets {
            let bound = self.steering.bind_socket(u32::from(*queue), socket.as_fd());
            bound.map_err(|error| StartError::Xdp(error.to_string()))?;
        }
        Ok(())
    }

    /// Takes the sockets of `queues` out: their packets are the kernel's, or dropped, as the rule says.
    pub fn unbind(&mut self, queues: &[u16]) {
        for queue in queues {
            // The kernel takes a closed socket out by itself; then there is nothing left to do here.
            if let Err(error) = self.steering.unbind_socket(u32::from(*queue)) {
                log::debug!("queue {queue}: {error}");
            }
        }
    }

    /// From here on, packets are steered.
    ///
    /// # Errors
    /// When somebody else has rules for the same packets.
    pub fn claim(&mut self, config: &Config) -> Result<(), StartError> {
        let rules: Vec<Rule> = std::iter::once(rule(config)).chain(tcp_rules(config)).collect();
        self.rules = rules.iter().map(ToString::to_string).collect();
        self.steering.claim(&self.owner, &rules).map_err(|error| StartError::Xdp(error.to_string()))
    }

    /// From here on, packets are the kernel's.
    pub fn release(&mut self) {
        if let Err(error) = self.steering.release(&self.owner) {
            log::warn!("{error}");
        }
    }

    /// For reports.
    pub fn report(&self) -> Xdp {
        let now = self.steering.counters().unwrap_or(self.before);
        let since = |counter: &Counter| now.get(*counter).saturating_sub(self.before.get(*counter));
        Xdp {
            program: self.steering.info().map_or(0, |info| info.program_id),
            mode: self.steering.mode().to_string(),
            pinned: self.steering.is_pinned(),
            rules: self.rules.clone(),
            counters: Counter::ALL.iter().map(|counter| (counter.as_str(), since(counter))).collect(),
        }
    }
}

/// The TCP ports, and those that connections leave from, when our own TCP serves them, at the same addresses.
pub(super) fn tcp_rules(config: &Config) -> Vec<Rule> {
    let Some(tcp) = config.tcp.as_ref().filter(|_| config.tcp_is_own()) else { return Vec::new() };
    let rule = |ports: &Ports, syn_limit| Rule {
        protocol: Protocol::Tcp,
        ports: ports.0.clone(),
        syn_limit,
        ..rule(config)
    };
    let limit = SynLimit { per_second: tcp.syn_rate, burst: (tcp.syn_rate / 10).clamp(1, SYN_BURST) };
    let mut rules = vec![rule(&tcp.ports, (tcp.syn_rate > 0).then_some(limit))];
    rules.extend(tcp.local_ports.as_ref().map(|ports| rule(ports, None)));
    rules
}

/// What is steered: the game ports, at the addresses served.
pub(super) fn rule(config: &Config) -> Rule {
    let whole =
        |address: &std::net::IpAddr| Prefix::new(*address, if address.is_ipv4() { 32 } else { 128 });
    Rule {
        protocol: Protocol::Udp,
        syn_limit: None,
        ports: config.ports.0.clone(),
        addresses: config.addresses.iter().filter_map(whole).collect(),
        action: Action::Redirect {
            unbound: match config.unbound {
                Unbound::Pass => volley_xdp::Unbound::Pass,
                Unbound::Drop => volley_xdp::Unbound::Drop,
            },
        },
    }
}

/// What names the status socket of an engine without a program: its interface if it has one.
pub(super) fn key(interface: Option<&str>) -> String {
    match interface.and_then(|name| Interface::find(name).ok()) {
        Some(interface) => interface.key(),
        None => "kernel".into(),
    }
}
