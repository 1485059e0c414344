//! The `ip` example against the Linux kernel: a TUN device in a network namespace, and the kernel's TCP as the client. Needs root.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use volley_testlab::{Netns, require_root};

/// The namespace and the example in it; both go when this is dropped.
struct Guest {
    netns: Netns,
    example: Option<Child>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut child) = self.example.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", self.netns.name()]).status();
    }
}

fn start(name: &str, address: &str, kernel: &str) -> Guest {
    let name = format!("{name}-{}", std::process::id());
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    let mut guest = Guest { netns: Netns::named(&name), example: None };
    let example = std::env::current_exe().unwrap().with_file_name("../examples/ip");
    assert!(example.is_file(), "{}: cargo build -p volley-tcp --example ip", example.display());
    let mut command = guest.netns.command(example);
    guest.example = Some(command.args(["tun7", address]).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !guest.netns.command("ip").args(["link", "show", "tun7"]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "the example made no device");
        std::thread::sleep(Duration::from_millis(20));
    }
    guest.netns.exec(["ip", "addr", "add", kernel, "dev", "tun7", "nodad"]);
    guest.netns.exec(["ip", "link", "set", "tun7", "up"]);
    guest
}

/// Bytes both ways at once, then the end of the stream both ways.
fn echo(to: SocketAddr, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(30)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == data, "{} of {len} bytes came back, or others", got.len());
}

#[test]
fn the_kernel_talks_to_it_over_ipv4() {
    if !require_root() {
        return;
    }
    let guest = start("volley-ip4", "10.9.0.1:7", "10.9.0.2/24");
    guest.netns.run(|| {
        echo("10.9.0.1:7".parse().unwrap(), 5);
        echo("10.9.0.1:7".parse().unwrap(), 3_000_000);
        // Where nobody listens the kernel is refused, not left waiting.
        let refused = TcpStream::connect_timeout(&"10.9.0.1:8".parse().unwrap(), Duration::from_secs(30));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        // Many at once.
        std::thread::scope(|scope| {
            for i in 0..20 {
                let netns = &guest.netns;
                scope.spawn(move || netns.run(|| echo("10.9.0.1:7".parse().unwrap(), 10_000 + i)));
            }
        });
    });
}

#[test]
fn the_kernel_talks_to_it_over_ipv6() {
    if !require_root() {
        return;
    }
    let guest = start("volley-ip6", "[fd09::1]:7", "fd09::2/64");
    guest.netns.run(|| echo("[fd09::1]:7".parse().unwrap(), 1_000_000));
}
