//! Clients: std's sockets and other people's programs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream =
        TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A few exchanges, then a bulk whose echo is compared byte for byte, then half a close.
pub fn assert_echoes(stream: &TcpStream, bulk: usize) {
    let (mut stream, mut writer) = (stream, stream);
    for n in 0..20u8 {
        let message = vec![n; usize::from(n) * 50 + 1];
        stream.write_all(&message).unwrap();
        let mut got = vec![0; message.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, message);
    }
    let sent: Vec<u8> = (0..bulk).map(|n| (n * 31 + n / 255) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
    });
}

/// Runs a program and gives back what it printed.
#[track_caller]
pub fn output(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output.stdout
}
