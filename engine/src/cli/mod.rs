//! The `volley` command line. One file per subcommand; each parses, calls the library and prints.

#[cfg(target_os = "linux")]
mod r#gen;

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
    Gen(r#gen::GenArgs),
}

/// Runs the command line of this process and returns its exit code: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let cli = Cli::parse();
    let outcome: anyhow::Result<()> = match cli.command {
        #[cfg(target_os = "linux")]
        Command::Gen(args) => r#gen::main(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volley: {error:#}");
            ExitCode::FAILURE
        }
    }
}
