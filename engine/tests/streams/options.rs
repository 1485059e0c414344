//! An app that sets options of its streams: the same one over our own TCP and the kernel's.

use crate::client::connect;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
use volley::app::{App, Ctx};
use volley::stream::{Peer, StreamError, StreamEvent, StreamOption};

/// Answers the first bytes of a stream with what became of two options, and resets it at the next, by lingering for no time.
pub struct Setter;

impl App for Setter {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let Ok(mut stream) = ctx.stream(peer) else { return };
        let mut word = [0; 16];
        let read = match event {
            StreamEvent::Readable => stream.read(&mut word).unwrap(),
            _ => return,
        };
        match &word[..read] {
            b"set" => {
                let mut said = |option| match stream.set_option(option) {
                    Ok(()) => "set".to_owned(),
                    Err(error @ StreamError::Unsupported(_)) => error.to_string(),
                    Err(error) => panic!("{error}"),
                };
                let all = [
                    said(StreamOption::UserTimeout(Some(Duration::from_secs(9)))),
                    said(StreamOption::LowWater(2)),
                ];
                stream.write(all.join("; ").as_bytes()).unwrap();
            }
            _ => {
                stream.set_option(StreamOption::Linger(Some(Duration::ZERO))).unwrap();
                stream.close().unwrap();
            }
        }
    }
}

/// Asks a [`Setter`], which must say `expected` and then reset the connection.
pub fn assert_set(address: SocketAddr, expected: &str) {
    let mut client = connect(address);
    client.write_all(b"set").unwrap();
    let mut said = vec![0; expected.len()];
    client.read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), expected);
    client.write_all(b"bye").unwrap();
    assert_eq!(client.read(&mut [0; 1]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}
