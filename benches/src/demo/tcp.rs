//! The TCP echo beside the UDP one, on the same interface, with the kernel's TCP as its client.

use super::family;
use crate::lab::Lab;
use crate::setup::Setup;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections at once.
const CONNECTIONS: usize = 16;
/// Bytes of a message.
const MESSAGE: usize = 64;
/// Bytes sent and compared in one piece at the end.
const BULK: usize = 4 << 20;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    address: IpAddr,
    connections: usize,
    /// Messages that came back as they were sent.
    messages: u64,
    messages_per_second: f64,
    /// Bytes of the bulk, which came back as it was sent.
    bulk: usize,
    bulk_bits_per_second: f64,
}

/// Messages to and fro for a while on a few connections, then a bulk; every byte is compared.
pub fn echo(address: IpAddr, time: Duration, setup: &Setup, lab: Option<&Lab>) -> Result<Outcome> {
    let target = SocketAddr::new(address, setup.port);
    let work = || exchange(target, time, setup).with_context(|| format!("TCP echo, {}", family(address)));
    match lab {
        Some(lab) => lab.peer().run(work),
        None => work(),
    }
}

fn exchange(target: SocketAddr, time: Duration, setup: &Setup) -> Result<Outcome> {
    let connect = |_| -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut streams = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    let (begun, mut messages) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        setup.interrupt.check()?;
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&message(messages + n as u64))?;
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; MESSAGE];
            stream.read_exact(&mut answer)?;
            ensure!(answer == message(messages + n as u64), "an answer is not what was sent");
        }
        messages += CONNECTIONS as u64;
    }
    let messages_per_second = messages as f64 / begun.elapsed().as_secs_f64();

    let sent: Vec<u8> = (0..BULK).map(|n| (n * 31 + n / 255) as u8).collect();
    let begun = Instant::now();
    let (mut reader, mut writer) = (&streams[0], &streams[0]);
    let got = std::thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_all(&sent));
        let mut got = vec![0; BULK];
        let read = reader.read_exact(&mut got);
        writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        read?;
        Ok::<_, anyhow::Error>(got)
    })?;
    ensure!(got == sent, "the bulk is not what was sent");
    let bulk_bits_per_second = BULK as f64 * 8.0 / begun.elapsed().as_secs_f64();
    Ok(Outcome {
        address: target.ip(),
        connections: CONNECTIONS,
        messages,
        messages_per_second,
        bulk: BULK,
        bulk_bits_per_second,
    })
}

fn message(number: u64) -> [u8; MESSAGE] {
    let mut message = [b'v'; MESSAGE];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} connections, {:.0} messages a second; {} MiB there and back at {:.2} Gbit/s; every byte compared",
            family(self.address),
            self.connections,
            self.messages_per_second,
            self.bulk >> 20,
            self.bulk_bits_per_second / 1e9,
        )
    }
}
