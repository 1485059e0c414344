//! How many processes and source addresses so many connections take, and which limit is in the way.

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use std::fs;

/// Descriptors a process needs besides its connections. An engine keeps 128 back itself.
const OTHER: u64 = 160;
/// A server's share is uneven, since the kernel's hash deals the connections: four standard deviations of a share fit in this many
/// percent, from some thousands of connections on.
const UNEVEN_PERCENT: u64 = 5;
/// And in this many on top, for few connections.
const UNEVEN: u64 = 64;
/// Fewest of each: that several processes share the work is what is shown.
const FEWEST: u64 = 2;
/// Most clients: their addresses are 127.x.y.CLIENT.
const MOST_CLIENTS: u64 = 250;

/// What the machine allows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// RLIMIT_NOFILE, hard: descriptors of one process.
    pub descriptors: u64,
    /// Ephemeral ports of one source address towards one server port.
    pub ports: u64,
    /// Open files of the whole machine (fs.file-max).
    pub files: u64,
}

/// How the connections are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Connections, all together.
    pub connections: u64,
    /// Server processes, which share the port.
    pub servers: u64,
    /// Client processes, each with a source address of its own.
    pub clients: u64,
}

impl Limits {
    /// This machine's, in this network namespace.
    pub fn here() -> Result<Limits> {
        let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let range = read("/proc/sys/net/ipv4/ip_local_port_range")?;
        let ends: Vec<u64> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
        let [first, last] = ends[..] else {
            anyhow::bail!("net.ipv4.ip_local_port_range reads {range:?}");
        };
        let files = read("/proc/sys/fs/file-max")?.trim().parse().context("fs.file-max")?;
        Ok(Limits { descriptors, ports: (last + 1).saturating_sub(first), files })
    }

    fn client_room(&self) -> u64 {
        self.descriptors.saturating_sub(OTHER).min(self.ports)
    }

    /// Connections that a server with a share of one in `servers` must have room for.
    fn share(connections: u64, servers: u64) -> u64 {
        let share = connections.div_ceil(servers);
        share + share * UNEVEN_PERCENT / 100 + UNEVEN
    }
}

impl Plan {
    /// A plan for so many connections, over the processes named, or as few as the limits allow.
    pub fn new(
        limits: &Limits,
        connections: u64,
        servers: Option<u64>,
        clients: Option<u64>,
    ) -> Result<Plan> {
        ensure!(connections > 0, "connections: nothing to open");
        let Limits { descriptors, ports, files } = *limits;
        ensure!(
            descriptors > 2 * OTHER && ports > 0,
            "RLIMIT_NOFILE is {descriptors} here, and {ports} ports are ephemeral: too few to begin with"
        );
        ensure!(
            2 * connections < files,
            "{connections} connections are {} open files, but fs.file-max is {files}: raise it, or open fewer",
            2 * connections
        );
        let server_room = descriptors - OTHER;
        let needed = (FEWEST..).find(|servers| Limits::share(connections, *servers) <= server_room);
        let needed_servers = needed.unwrap_or(u64::MAX);
        let servers = servers.unwrap_or(needed_servers);
        ensure!(
            servers > 0 && Limits::share(connections, servers) <= server_room,
            "{connections} connections over {servers} servers are up to {} each, but RLIMIT_NOFILE is {descriptors} here and \
             cannot be raised: at least --servers {needed_servers}",
            Limits::share(connections, servers.max(1))
        );
        let needed_clients = connections.div_ceil(limits.client_room()).max(FEWEST.min(connections));
        let clients = clients.unwrap_or(needed_clients);
        ensure!(
            clients > 0 && connections.div_ceil(clients) <= limits.client_room(),
            "{connections} connections over {clients} clients are {} each, but RLIMIT_NOFILE is {descriptors} here and cannot be \
             raised, and a source address has {ports} ephemeral ports: at least --clients {needed_clients}",
            connections.div_ceil(clients.max(1))
        );
        ensure!(
            clients <= MOST_CLIENTS,
            "{clients} clients: {MOST_CLIENTS} source addresses are all there are"
        );
        Ok(Plan { connections, servers, clients })
    }

    /// Connections of a client, by its number.
    pub fn of_client(&self, client: u64) -> u64 {
        self.connections / self.clients + u64::from(client < self.connections % self.clients)
    }

    /// What a server must have room for.
    pub fn server_room(&self) -> u64 {
        Limits::share(self.connections, self.servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Limits = Limits { descriptors: 20_000, ports: 28_232, files: 2_000_000 };

    #[test]
    fn as_few_processes_as_the_limits_allow() {
        let plan = Plan::new(&HERE, 100_000, None, None).unwrap();
        assert_eq!((plan.servers, plan.clients), (6, 6));
        assert_eq!((0..6).map(|client| plan.of_client(client)).sum::<u64>(), 100_000);
        assert!(plan.server_room() < 19_840);
        let narrow = Limits { ports: 1000, ..HERE };
        assert_eq!(Plan::new(&narrow, 100_000, None, None).unwrap().clients, 100);
        let wide = Limits { descriptors: 1_000_000, ..HERE };
        let plan = Plan::new(&wide, 100_000, None, None).unwrap();
        assert_eq!((plan.servers, plan.clients), (2, 4));
    }

    #[test]
    fn the_limit_in_the_way_is_named() {
        let error = |limits: &Limits, connections, servers, clients| {
            Plan::new(limits, connections, servers, clients).unwrap_err().to_string()
        };
        let said = error(&HERE, 100_000, Some(2), None);
        assert!(said.contains("RLIMIT_NOFILE is 20000") && said.contains("--servers 6"), "{said}");
        let said = error(&HERE, 100_000, None, Some(3));
        assert!(said.contains("28232 ephemeral ports") && said.contains("--clients 6"), "{said}");
        assert!(error(&HERE, 1_000_000, None, None).contains("fs.file-max is 2000000"));
        assert!(error(&Limits { ports: 100, ..HERE }, 100_000, None, None).contains("source addresses"));
        assert!(
            error(&Limits { descriptors: 100, ..HERE }, 1, None, None).contains("RLIMIT_NOFILE is 100")
        );
    }
}
