//! `volley status`: what engines and pinned programs on this machine are doing.

use crate::engine::status;
use anyhow::{Context, bail};
use clap::Args;

/// Show running engines and pinned programs: rules, counters, rings and where the frames are
#[derive(Args)]
pub struct StatusArgs {
    /// Only this interface
    #[arg(value_name = "NIC")]
    interface: Option<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Look in this network namespace (of `ip netns`) for the interface
    #[arg(long, value_name = "NAME", requires = "interface")]
    netns: Option<String>,
}

/// Runs `volley status`.
pub fn main(args: StatusArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.netns {
        volley_xdp::netns::enter(name)?;
    }
    let key = match &args.interface {
        Some(name) => Some(volley_xdp::Interface::find(name)?.key()),
        None => None,
    };
    let ours = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        key.as_ref().is_none_or(|key| name.starts_with(&format!("{key}.")))
    };
    let mut engines = Vec::new();
    for path in status::sockets().into_iter().filter(ours) {
        let form = if args.json { "json" } else { "text" };
        match status::ask(&path, form) {
            Ok(text) => engines.push(text),
            // It may have ended since the directory was read.
            Err(error) => log::warn!("{}: {error}", path.display()),
        }
    }
    if args.json {
        let engines: Result<Vec<serde_json::Value>, _> =
            engines.iter().map(|text| serde_json::from_str(text)).collect();
        let engines = engines.context("an engine of another version answered")?;
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "engines": engines }))?);
        return Ok(());
    }
    if engines.is_empty() {
        match args.interface {
            Some(name) => bail!("no engine runs on {name}: start one with `volley run {name}`"),
            None => println!("no engine runs here"),
        }
    }
    println!("{}", engines.join("\n\n"));
    Ok(())
}
