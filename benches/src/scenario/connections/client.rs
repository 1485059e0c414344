//! One client process: opens its connections from one source address, and sends a message over each when it is told to.
//!
//! ```text
//!   stdin        stdout
//!                connected N
//!   echo    ──►  echoed N        a message of its own over every connection, its answer compared
//!   close   ──►  closed
//! ```

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use std::io::{BufRead, Read, Write, stdin, stdout};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Connections that have a message under way at once: enough to keep the servers busy, few enough that none waits long.
const WINDOW: usize = 256;
/// What an answer may take on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Header (u32 length, u16 type, both little-endian) and body of a message, in bytes.
const HEADER: usize = 6;
const BODY: usize = 32;
/// The type of our messages: any.
const TYPE: u16 = 7;

/// Options of the client.
#[derive(Args, Clone, Debug)]
pub struct HoldArgs {
    /// The server
    #[arg(long)]
    to: SocketAddr,

    /// The address to connect from
    #[arg(long)]
    from: IpAddr,

    /// How many connections
    #[arg(long)]
    connections: usize,
}

/// The message of connection `index`, in its `round`.
fn message(from: IpAddr, index: usize, round: u32) -> [u8; HEADER + BODY] {
    let mut message = [0; HEADER + BODY];
    message[..4].copy_from_slice(&(BODY as u32).to_le_bytes());
    message[4..HEADER].copy_from_slice(&TYPE.to_le_bytes());
    let IpAddr::V4(from) = from else { return message };
    let mut state = u64::from(from.to_bits()) << 32 ^ (index as u64) << 8 ^ u64::from(round);
    for bytes in message[HEADER..].chunks_mut(8) {
        // Steele, Lea and Flood's SplitMix64: every message is another one.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.copy_from_slice(&mixed.to_le_bytes());
    }
    message
}

fn open(arguments: &HoldArgs) -> Result<TcpStream> {
    let family = if arguments.from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("socket")?;
    // The port is chosen by connect, which knows the peer: so every ephemeral port can be used.
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true).context("IP_BIND_ADDRESS_NO_PORT")?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(arguments.from, 0))).context("bind")?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(arguments.to)).context("connect")?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(streams: &mut [TcpStream], from: IpAddr, round: u32) -> Result<()> {
    let mut first = 0;
    for window in streams.chunks_mut(WINDOW) {
        for (index, stream) in (first..).zip(&mut *window) {
            stream
                .write_all(&message(from, index, round))
                .with_context(|| format!("connection {index}: send"))?;
        }
        for (index, stream) in (first..).zip(&mut *window) {
            let mut answer = [0; HEADER + BODY];
            stream.read_exact(&mut answer).with_context(|| format!("connection {index}: receive"))?;
            ensure!(
                answer == message(from, index, round),
                "connection {index}: another answer than its own"
            );
        }
        first += WINDOW;
    }
    Ok(())
}

/// Runs the client to its end.
pub fn run(arguments: &HoldArgs) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut streams = Vec::with_capacity(arguments.connections);
    for index in 0..arguments.connections {
        let stream = open(arguments).with_context(|| {
            format!(
                "connection {index} of {} from {} (RLIMIT_NOFILE is {hard})",
                arguments.connections, arguments.from
            )
        })?;
        streams.push(stream);
    }
    let say =
        |what: &str| -> Result<()> { Ok(writeln!(stdout(), "{what}").and_then(|()| stdout().flush())?) };
    say(&format!("connected {}", streams.len()))?;
    let mut round = 0;
    for line in stdin().lock().lines() {
        match line?.as_str() {
            "echo" => {
                echo(&mut streams, arguments.from, round)?;
                round += 1;
                say(&format!("echoed {}", streams.len()))?;
            }
            "close" => {
                drop(streams);
                return say("closed");
            }
            other => bail!("what is {other:?}?"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_another_one_and_framed() {
        let [a, b] = ["127.1.0.1", "127.1.0.2"].map(|ip| ip.parse().unwrap());
        let messages = [message(a, 0, 0), message(a, 1, 0), message(a, 0, 1), message(b, 0, 0)];
        for (n, one) in messages.iter().enumerate() {
            assert_eq!(one[..HEADER], [32, 0, 0, 0, 7, 0]);
            assert!(messages[n + 1..].iter().all(|other| other != one));
        }
    }
}
