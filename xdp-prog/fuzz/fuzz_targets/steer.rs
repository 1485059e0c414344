//! Any frame through `steer`: it never panics, counts exactly one reason, and its verdict follows from it.
//!
//! Input: one byte (lowest bit: the receiving queue has a socket), then the frame. The rules are those of the
//! fixtures; the committed corpus is the fixtures too, under their names.
#![no_main]

#[path = "../../fixtures/mod.rs"]
#[allow(dead_code, reason = "the fixtures themselves are not read here")]
mod fixtures;

use std::sync::LazyLock;

use fixtures::{Host, rules};
use libfuzzer_sys::fuzz_target;
use volley_steer::abi::RuleTable;
use volley_steer::{Counter, Protocol, Verdict, headers};

static RULES: LazyLock<Box<RuleTable>> = LazyLock::new(rules);

fuzz_target!(|input: &[u8]| {
    let Some((flags, frame)) = input.split_first() else { return };
    let socket = flags & 1 == 1;
    // Checks by itself that exactly one reason is counted.
    let (verdict, counter) = Host::run(&RULES, socket, frame);

    let expected = match counter {
        Counter::Redirected | Counter::IcmpRedirected => Verdict::Redirect,
        Counter::NoSocketDrop | Counter::RuleDrop | Counter::SynLimited => Verdict::Drop,
        _ => Verdict::Pass,
    };
    assert_eq!(verdict, expected, "{counter}");
    assert!(socket || verdict != Verdict::Redirect, "redirected without a socket");

    // The short way never disagrees with the long one.
    let found = headers::find(frame);
    if let Some(plain) = headers::find_plain(frame) {
        assert_eq!(Ok(plain), found);
    }
    if let Ok(datagram) = found {
        assert!(datagram.offset + 8 <= frame.len(), "ports beyond the frame");
    }

    // What was decided from the headers does not change with what follows them. In a TCP header cut before its flags (byte 13), the
    // byte that follows may make it a SYN.
    let cut =
        found.is_ok_and(|to| to.protocol == Protocol::Tcp && !to.error && frame.len() <= to.offset + 13);
    if !cut && !matches!(counter, Counter::Runt | Counter::Ipv6ExtensionTruncated) {
        let longer = [frame, &[*flags]].concat();
        assert_eq!(Host::run(&RULES, socket, &longer), (verdict, counter), "with one byte more");
    }
});
