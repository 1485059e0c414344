//! Every script of `cases/`, and what the runner says when a script is wrong.

use std::path::Path;
use volley_tcp_scripts::{Error, Script, run};

#[test]
fn every_script_passes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "tcp"));
    files.sort();
    let failures: Vec<String> = files
        .iter()
        .filter_map(|file| Script::load(file).and_then(|script| run(&script)).err())
        .map(|error| error.to_string())
        .collect();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), files.len(), failures.join("\n"));
    assert!(files.len() >= 80, "only {} scripts were found", files.len());
}

fn message(text: &str) -> String {
    Script::parse("x.tcp", text).and_then(|script| run(&script)).unwrap_err().to_string()
}

#[test]
fn a_wrong_line_is_named_with_its_number() {
    for (text, line, part) in [
        ("listen\n< S 0 win\n", 2, "'win' has no value"),
        ("listen\n\n< X 0\n", 3, "'X' is no flag"),
        ("frobnicate\n", 1, "'frobnicate' is no step"),
        ("listen\nconfig mtu=1400\n", 2, "before everything else"),
        ("config mtu=70000\n", 1, "out of range"),
        ("+5 listen\n", 1, "is no time"),
        ("< S 0 &\nlisten\n", 2, "'&' joins"),
        ("< S 0 &\n", 1, "ends within a burst"),
        ("+1ms..2ms listen\n", 1, "a span of time"),
        ("< S *\n", 1, "has no '*'"),
        ("< S 0 <mss 1460\n", 1, "'>' is missing"),
        ("listen colour=red\n", 1, "no option 'colour'"),
    ] {
        let error = Script::parse("x.tcp", text).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Syntax { line: at, .. } if at == line), "{said}");
        assert!(said.contains(part) && said.starts_with(&format!("x.tcp:{line}: ")), "{said}");
    }
}

#[test]
fn a_stack_that_does_otherwise_is_told_apart_field_by_field() {
    let open = "listen\n< S 0 <mss 1460>\n";
    for (text, part) in [
        ("> A 0 ack 1\n", "flags differ"),
        ("> SA 5 ack 1\n", "the sequence number differs"),
        ("> SA 0 ack 2\n", "the acknowledgment differs"),
        ("> SA 0 ack 1 <mss 1459>\n", "the options differ"),
        ("> SA 0 ack 1 win 7\n", "the window differs"),
        ("> SA 0:5 ack 1\n", "the payload differs"),
        ("< A 1 ack 1\n", "unexpected:  > SA 0 ack 1"),
        ("> SA 0 ack 1\n> A 1\n", "has sent nothing"),
        ("> SA 0 ack 1\n+1s < A 1 ack 1\n", "unexpected:  > SA 0 ack 1"),
        ("> SA 0 ack 1\n+2s > SA 0 ack 1\n", "sent 1s early"),
        ("> SA 0 ack 1\n+1s..2s > SA 0 ack 1\naccept c\n", "there is no connection to accept"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\nevent c readable\n", "event: established, not readable"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\nwrite c 5\n", "(the end)"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\ninfo c mss<=1459\n", "mss: 1460, not <= 1459"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\nread c 5\n", "only 0 of 5 bytes"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\nfails stale close c\n", "should have failed"),
        ("> SA 0 ack 1\n< A 1 ack 1\naccept c\n< A 1 \"x\" ack 1\nread c 1\n", "byte 0 of what was read"),
    ] {
        let said = message(&format!("{open}{text}"));
        assert!(said.contains(part) && said.contains("so far:"), "{said}");
    }
}
