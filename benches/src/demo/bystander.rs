//! Traffic that is none of the engine's business: ping, and a kernel UDP socket on another port. It must work through the
//! interface that the engine has taken the game port from.

use crate::lab::{End, Lab};
use crate::process::Job;
use crate::setup::Setup;
use anyhow::{Context, Result};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A port that no rule names.
const PORT: u16 = 9999;
/// Pings to each address, and datagrams.
const PINGS: u32 = 20;
/// Datagrams to each address.
const DATAGRAMS: u32 = 50;
/// What an answer may take under load, with both cores busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of one bystander.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What it was.
    pub what: String,
    /// Questions asked.
    pub asked: u32,
    /// Answers that came.
    pub answered: u32,
}

/// Pings `address` from the peer's end.
pub fn ping(address: IpAddr, setup: &Setup, lab: &Lab) -> Result<Outcome> {
    let log = setup.logs().join("ping.log");
    let mut ping = Job::new("ping", log)
        .args(["-n", "-q", "-c", &PINGS.to_string(), "-i", "0.01", "-W", "1", &address.to_string()])
        .namespace(Some(&lab.peer().netns))
        .start()?;
    ping.wait(PATIENCE * PINGS, &setup.interrupt)?;
    let answered =
        received(&ping.output()).with_context(|| format!("ping {address}: {}", ping.last_words()))?;
    Ok(Outcome { what: format!("ping {address}"), asked: PINGS, answered })
}

/// Reads "20 packets transmitted, 19 received, …".
fn received(output: &str) -> Option<u32> {
    let line = output.lines().find(|line| line.contains("packets transmitted"))?;
    line.split(", ").nth(1)?.split(' ').next()?.parse().ok()
}

/// A plain UDP socket of the kernel at the engine's end answers one at the other end; over loopback without a lab.
pub fn kernel_socket(address: IpAddr, setup: &Setup, lab: Option<&Lab>) -> Result<Outcome> {
    let at = |end: Option<&End>, work: fn(SocketAddr) -> Result<UdpSocket>, address| match end {
        Some(end) => end.run(|| work(address)),
        None => work(address),
    };
    let server = at(lab.map(Lab::engine), bind, SocketAddr::new(address, PORT))?;
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let client = at(lab.map(Lab::peer), bind, SocketAddr::new(any, 0))?;
    client.connect(server.local_addr()?)?;
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        scope.spawn(|| answer(&server, &done));
        let answered = ask(&client, setup);
        done.store(true, Ordering::Relaxed);
        answered
    })?;
    Ok(Outcome { what: format!("kernel UDP socket {}", server.local_addr()?), asked: DATAGRAMS, answered })
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn answer(server: &UdpSocket, done: &AtomicBool) {
    let mut bytes = [0; 64];
    // A read that times out looks whether it is over.
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..length], from);
        }
    }
}

fn ask(client: &UdpSocket, setup: &Setup) -> Result<u32> {
    let mut answered = 0;
    for number in 0..DATAGRAMS {
        setup.interrupt.check()?;
        let question = number.to_be_bytes();
        client.send(&question)?;
        let mut bytes = [0; 64];
        answered += u32::from(client.recv(&mut bytes).is_ok_and(|length| bytes[..length] == question));
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ping_summary_is_read() {
        let output = "PING 10.77.0.1 (10.77.0.1) 56(84) bytes of data.\n\n--- 10.77.0.1 ping statistics ---\n\
            20 packets transmitted, 19 received, 5% packet loss, time 199ms\n";
        assert_eq!(received(output), Some(19));
        assert_eq!(received("ping: connect: Network is unreachable"), None);
    }
}
