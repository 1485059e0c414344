//! The lab for TCP: client addresses, offloads, congestion control.

use crate::lab::{End, Lab};
use crate::process::Job;
use crate::setup::Setup;
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;
use volley_testlab::{Impair, Impairment, Netns};

/// Client addresses beside the peer's own.
const CLIENTS: u8 = 64;
/// The last byte of the first of them.
const FIRST_CLIENT: u8 = 100;
/// What `ip` and `ethtool` may take.
const LIMIT: Duration = Duration::from_secs(10);
/// What a kernel leaves to the device, and ours does itself.
const OFFLOADS: [&str; 4] = ["tx", "tso", "gso", "gro"];

/// A lab that is ready for TCP. What was set goes with the lab.
pub struct Ground<'l> {
    /// The lab.
    pub lab: &'l Lab,
}

impl<'l> Ground<'l> {
    /// Gives the peer's end its addresses, and takes every offload from both.
    pub fn new(lab: &'l Lab, setup: &Setup) -> Result<Ground<'l>> {
        let ground = Ground { lab };
        let peer = lab.peer();
        for address in ground.clients() {
            let address = format!("{address}/24");
            command(peer, "/sbin/ip", &["address", "add", &address, "dev", &peer.interface], setup)?;
        }
        ground.offloads(false, setup)?;
        Ok(ground)
    }

    /// Addresses to connect from.
    pub fn clients(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let own = match self.lab.peer().ipv4 {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => [10, 77, 0, 2],
        };
        (0..CLIENTS).map(move |n| Ipv4Addr::new(own[0], own[1], own[2], FIRST_CLIENT + n).into())
    }

    /// Turns the kernel's offloads on or off, at both ends.
    pub fn offloads(&self, on: bool, setup: &Setup) -> Result<()> {
        let state = if on { "on" } else { "off" };
        for end in [self.lab.engine(), self.lab.peer()] {
            let mut words = vec!["-K", end.interface.as_str()];
            words.extend(OFFLOADS.iter().flat_map(|offload| [*offload, state]));
            command(end, "/sbin/ethtool", &words, setup)?;
        }
        Ok(())
    }

    /// What a kernel receives at either end is worked on by that end's own core (receive packet steering) until it is dropped, as a
    /// NIC's interrupts would have it. veth alone lets the sender's core do the receiver's work.
    pub fn steered(&self, setup: &Setup) -> Result<Steered<'_>> {
        let steered = Steered { ground: self };
        self.steer(self.lab.engine(), Some(setup.engine_core))?;
        self.steer(self.lab.peer(), Some(setup.generator_core))?;
        Ok(steered)
    }

    fn steer(&self, end: &End, core: Option<usize>) -> Result<()> {
        let queue = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", end.interface);
        let mask = core.map_or(0, |core| 1u64 << core);
        // A network namespace's devices show in a /sys that was mounted there; the mount goes with the process.
        let script = format!("mount -t sysfs none /sys && echo {mask:x} > {queue}");
        let outcome = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", end.netns))
            .args(["unshare", "--mount", "sh", "-c", &script])
            .output()?;
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        ensure!(outcome.status.success(), "{queue}: {said}");
        Ok(())
    }

    /// Loses packets in both directions, each drawn on its own, until it is dropped: at the peer's end, where the kernel's client is.
    pub fn lossy(&self, loss: f64) -> Impair {
        let peer = self.lab.peer();
        let helper = format!("{}i", peer.interface.trim_end_matches('1'));
        let mut impair = Impair::attach(&Netns::named(&peer.netns), &peer.interface, &helper);
        impair.set_both(Impairment { loss, ..Impairment::default() });
        impair
    }

    /// The kernel's connections use `control` while `work` runs: both kinds of server should have the same congestion control.
    ///
    /// By route and not by sysctl: what is not on the host's list of allowed ones cannot be a namespace's default.
    pub fn with_congestion_control<T>(
        &self,
        control: &str,
        setup: &Setup,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.routes(&["congctl", control], setup)?;
        let outcome = work();
        self.routes(&[], setup)?;
        outcome
    }

    fn routes(&self, more: &[&str], setup: &Setup) -> Result<()> {
        for end in [self.lab.engine(), self.lab.peer()] {
            let IpAddr::V4(own) = end.ipv4 else { continue };
            let [a, b, c, _] = own.octets();
            let (net, own) = (format!("{a}.{b}.{c}.0/24"), own.to_string());
            let mut words = vec!["route", "replace", net.as_str(), "dev", end.interface.as_str()];
            words.extend(["proto", "kernel", "scope", "link", "src", own.as_str()]);
            words.extend(more);
            command(end, "/sbin/ip", &words, setup)?;
        }
        Ok(())
    }
}

/// Receive packet steering; dropped, it is off again.
pub struct Steered<'g> {
    ground: &'g Ground<'g>,
}

impl Drop for Steered<'_> {
    fn drop(&mut self) {
        for end in [self.ground.lab.engine(), self.ground.lab.peer()] {
            if let Err(error) = self.ground.steer(end, None) {
                eprintln!("volley-bench: {error:#}");
            }
        }
    }
}

fn command(end: &End, program: &str, words: &[&str], setup: &Setup) -> Result<()> {
    Job::new(program, setup.logs().join("ground.log"))
        .namespace(Some(&end.netns))
        .args(words)
        .run(LIMIT, &setup.interrupt)
        .with_context(|| format!("{program} {}", words.join(" ")))?;
    Ok(())
}
