//! `volley-tcp-scripts FILE|DIRECTORY…`: runs packet scripts against the TCP stack, in virtual time.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use volley_tcp_scripts::{Script, run};

/// Runs packet scripts against the TCP stack of volley-tcp.
#[derive(Parser)]
struct Arguments {
    /// Scripts, and directories of them (files named *.tcp)
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
    /// Show what the two ends said, also when all is well
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut files = Vec::new();
    for path in arguments.scripts {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "tcp") {
                files.push(file);
            }
        }
    }
    files.sort();
    let mut failed = 0;
    for file in &files {
        match Script::load(file).and_then(|script| run(&script)) {
            Ok(outcome) => {
                println!("ok    {} ({} steps, {:?})", file.display(), outcome.steps, outcome.time);
                if arguments.trace {
                    print!("{}", outcome.trace);
                }
            }
            Err(error) => {
                failed += 1;
                println!("FAIL  {error}");
            }
        }
    }
    if failed > 0 {
        eprintln!("{failed} of {} scripts failed", files.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
