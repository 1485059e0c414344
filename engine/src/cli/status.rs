//! `volley status`: the XDP programs on this machine's interfaces, and what engines are doing.

use crate::engine::status;
use crate::host::link::Link;
use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use volley_xdp::{Counter, Inspection};

/// Show XDP programs (rules, owners, counters) and running engines (counters, rings, where the frames are)
///
/// Programs are those of this network namespace; engines are shown whatever namespace they work in.
#[derive(Args)]
pub struct StatusArgs {
    /// Only this interface
    #[arg(value_name = "NIC")]
    interface: Option<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Look in this network namespace (of `ip netns`)
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

/// An XDP program on an interface.
#[derive(Serialize)]
struct Program {
    interface: String,
    /// False: somebody else's.
    volley: bool,
    /// In words.
    description: String,
    mode: String,
    pinned: Option<String>,
    owners: Vec<Owner>,
    /// Packets by verdict since the program was loaded.
    counters: BTreeMap<&'static str, u64>,
}

/// Who has rules in a program.
#[derive(Serialize)]
struct Owner {
    name: String,
    pid: u32,
    alive: bool,
    rules: Vec<String>,
}

impl Program {
    /// The program on an interface, if there is one.
    fn on(interface: &str) -> anyhow::Result<Option<Program>> {
        let interface_name = interface.to_owned();
        Ok(match volley_xdp::inspect(interface)? {
            Inspection::Nothing => None,
            Inspection::Foreign(foreign) => Some(Program {
                interface: interface_name,
                volley: foreign.volley,
                description: foreign.to_string(),
                mode: foreign.mode.to_string(),
                pinned: None,
                owners: Vec::new(),
                counters: BTreeMap::new(),
            }),
            Inspection::Volley { info, counters } => Some(Program {
                interface: interface_name,
                volley: true,
                description: format!(
                    "XDP program {} `{}` (ABI {}, rules changed {} times)",
                    info.program_id, info.program_name, info.abi, info.generation
                ),
                mode: info.mode.to_string(),
                pinned: info.pinned.map(|path| path.display().to_string()),
                owners: info.owners.into_iter().map(Owner::from).collect(),
                counters: Counter::ALL.iter().map(|c| (c.as_str(), counters.get(*c))).collect(),
            }),
        })
    }
}

impl From<volley_xdp::Owner> for Owner {
    fn from(owner: volley_xdp::Owner) -> Owner {
        let rules = owner.rules.iter().map(ToString::to_string).collect();
        Owner { name: owner.name, pid: owner.pid, alive: owner.alive, rules }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.interface, self.description, self.mode)?;
        match &self.pinned {
            Some(path) => write!(f, ", pinned at {path}")?,
            None => write!(f, ", not pinned")?,
        }
        for Owner { name, pid, alive, rules } in &self.owners {
            let gone = if *alive { "" } else { ", gone" };
            write!(f, "\n  owner {name} (pid {pid}{gone}): {}", rules.join("; "))?;
        }
        let moved = self.counters.iter().filter(|(_, count)| **count > 0);
        let moved: Vec<String> = moved.map(|(name, count)| format!("{name} {count}")).collect();
        if moved.is_empty() { Ok(()) } else { write!(f, "\n  {}", moved.join(", ")) }
    }
}

/// Runs `volley status`.
pub fn main(args: StatusArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.netns {
        volley_xdp::netns::enter(name)?;
    }
    let (key, interfaces) = match &args.interface {
        Some(name) => (Some(volley_xdp::Interface::find(name)?.key()), vec![name.clone()]),
        None => (None, Link::names()),
    };
    let mut programs = Vec::new();
    for interface in interfaces {
        match Program::on(&interface) {
            Ok(program) => programs.extend(program),
            // Asked for by name it is an error; in passing it is a remark.
            Err(error) if args.interface.is_some() => return Err(error),
            Err(error) => log::warn!("{interface}: {error:#}"),
        }
    }
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
        let all = serde_json::json!({ "programs": programs, "engines": engines });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let parts: Vec<String> = programs.iter().map(ToString::to_string).chain(engines).collect();
    match (parts.is_empty(), args.interface) {
        (false, _) => println!("{}", parts.join("\n\n")),
        (true, Some(name)) => {
            bail!("no XDP program on {name} and no engine: start one with `volley run {name}`")
        }
        (true, None) => println!("no XDP program and no engine here"),
    }
    Ok(())
}
