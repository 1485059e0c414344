//! A process that steers until its standard input ends, for the tests to look at, to starve of capabilities and
//! to kill: `volley-xdp-holder NIC [--replace] [--claim OWNER FIRST LAST]`.
//!
//! Prints `attached ID pinned|held` and `claimed`, or `error: MESSAGE`. Log lines go to standard error.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    use std::io::Read;
    use volley_xdp::{Action, AttachOptions, Protocol, Rule, Steering};

    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target().starts_with("volley") && record.level() <= log::Level::Info {
                eprintln!("{}", record.args());
            }
        }
        fn flush(&self) {}
    }
    log::set_logger(&Stderr).expect("the only logger");
    log::set_max_level(log::LevelFilter::Info);

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = AttachOptions {
        interface: arguments[0].clone(),
        replace: arguments.iter().any(|argument| argument == "--replace"),
        ..AttachOptions::default()
    };
    let steering = match Steering::attach(&options) {
        Ok(steering) => steering,
        Err(error) => return println!("error: {error}"),
    };
    let info = steering.info().expect("maps just made can be read");
    println!("attached {} {}", info.program_id, if info.pinned.is_some() { "pinned" } else { "held" });
    if let Some(at) = arguments.iter().position(|argument| argument == "--claim") {
        let port = |i: usize| arguments[at + i].parse::<u16>().expect("a port");
        let rule = Rule {
            protocol: Protocol::Udp,
            ports: port(2)..=port(3),
            addresses: Vec::new(),
            action: Action::Drop,
            syn_limit: None,
        };
        match steering.claim(&arguments[at + 1], &[rule]) {
            Ok(()) => println!("claimed"),
            Err(error) => println!("error: {error}"),
        }
    }
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("standard input");
}
