//! The `volley` command line. One file per subcommand; each parses, calls the library and prints.

#[cfg(target_os = "linux")]
mod doctor;
#[cfg(target_os = "linux")]
mod r#gen;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
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
    #[cfg(target_os = "linux")]
    Run(run::RunArgs),
    #[cfg(target_os = "linux")]
    Doctor(doctor::DoctorArgs),
    #[cfg(target_os = "linux")]
    Status(status::StatusArgs),
    #[cfg(target_os = "linux")]
    Gen(r#gen::GenArgs),
    #[cfg(target_os = "linux")]
    Load(load::LoadArgs),
    #[cfg(target_os = "linux")]
    Unload(load::UnloadArgs),
}

/// Runs the command line of this process and returns its exit code: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    // The netlink crate warns of every attribute that is newer than itself.
    let filter = env_logger::Env::default().default_filter_or("info,netlink_packet_route=error");
    env_logger::Builder::from_env(filter).init();
    let cli = Cli::parse();
    let outcome: anyhow::Result<()> = match cli.command {
        #[cfg(target_os = "linux")]
        Command::Run(args) => run::main(args),
        #[cfg(target_os = "linux")]
        Command::Doctor(args) => doctor::main(&args),
        #[cfg(target_os = "linux")]
        Command::Status(args) => status::main(args),
        #[cfg(target_os = "linux")]
        Command::Gen(args) => r#gen::main(args),
        #[cfg(target_os = "linux")]
        Command::Load(args) => load::load(args),
        #[cfg(target_os = "linux")]
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
