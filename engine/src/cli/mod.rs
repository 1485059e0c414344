//! The `volley` command line. One file per subcommand; each parses, calls the library and prints.

mod doctor;
mod dpdk;
mod r#gen;
mod gen_tcp;
mod load;
mod run;
mod status;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A kernel-bypass packet engine for game servers.
#[derive(Parser)]
#[command(name = "volley", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Doctor(doctor::DoctorArgs),
    Status(status::StatusArgs),
    Gen(r#gen::GenArgs),
    Load(load::LoadArgs),
    Unload(load::UnloadArgs),
}

/// Runs the command line of this process and returns its exit code: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    // The netlink crate warns of every attribute that is newer than itself.
    let filter = env_logger::Env::default().default_filter_or("info,netlink_packet_route=error");
    env_logger::Builder::from_env(filter).init();
    let cli = Cli::parse();
    let outcome: anyhow::Result<()> = match cli.command {
        Command::Run(args) => run::main(args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Status(args) => status::main(args),
        Command::Gen(args) => r#gen::main(args),
        Command::Load(args) => load::load(args),
        Command::Unload(args) => load::unload(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volley: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line; a cause that the message above it already tells is not told again.
fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let error =
            Err::<(), _>(anyhow::anyhow!("no such file")).context("a.toml: no such file").unwrap_err();
        assert_eq!(
            explain(&error.context("reading the configuration")),
            "reading the configuration: a.toml: no such file"
        );
    }
}
