//! `volley load` and `volley unload`: the program left on an interface on purpose, and taken off.

use clap::{Args, ValueEnum};
use volley_xdp::load::{Change, Loaded};
use volley_xdp::{AttachMode, AttachOptions, Mode};

/// Attach the steering program to an interface and leave it there.
///
/// Program, maps and link are pinned under /sys/fs/bpf/volley, so that they outlive every process: some drivers
/// drop the link for seconds when a program is attached, which a server that restarts should not cause. Without
/// rules the program passes everything to the kernel. `volley run` uses what is pinned; several processes may.
#[derive(Args)]
pub struct LoadArgs {
    /// Network interface.
    #[arg(value_name = "NIC")]
    interface: String,
    /// Where the program runs: in the driver, or after the kernel has built an skb (slow, but works everywhere).
    #[arg(long, value_enum, default_value_t = ModeArg::Auto)]
    mode: ModeArg,
    /// Take the place of another XDP program; it is not put back.
    #[arg(long)]
    replace: bool,
    /// Swap a program that is already loaded for this version's, without a packet missing both. Of the same ABI,
    /// it goes on with the same rules, sockets and counters; of another, no process may be using it.
    #[arg(long)]
    upgrade: bool,
    /// Network namespace of the interface, as `ip netns` names it.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

/// Take the program that `volley load` left on an interface off it, and remove its pins.
#[derive(Args)]
pub struct UnloadArgs {
    /// Network interface.
    #[arg(value_name = "NIC")]
    interface: String,
    /// Also while a process uses it: its traffic then goes to the kernel.
    #[arg(long)]
    force: bool,
    /// Network namespace of the interface, as `ip netns` names it.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

/// Values of `--mode`.
#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    /// In the driver, or fail.
    Native,
    /// In the kernel's stack.
    Generic,
    /// Native, or else generic with a warning.
    Auto,
}

impl From<ModeArg> for AttachMode {
    fn from(mode: ModeArg) -> AttachMode {
        match mode {
            ModeArg::Native => AttachMode::Native,
            ModeArg::Generic => AttachMode::Generic,
            ModeArg::Auto => AttachMode::Auto,
        }
    }
}

/// Runs `volley load`.
pub fn load(args: LoadArgs) -> anyhow::Result<()> {
    if let Some(netns) = &args.netns {
        volley_xdp::netns::enter(netns)?;
    }
    let wanted = args.mode.into();
    let options = AttachOptions { interface: args.interface, mode: wanted, replace: args.replace };
    let loaded = volley_xdp::load::load(&options, args.upgrade)?;
    print!("{}", describe(&loaded));
    let other_mode = match wanted {
        AttachMode::Native => loaded.mode != Mode::Native,
        AttachMode::Generic => loaded.mode != Mode::Generic,
        AttachMode::Auto => false,
    };
    anyhow::ensure!(
        !other_mode,
        "{} keeps the {} mode it was loaded with: `volley unload` it first",
        loaded.interface,
        loaded.mode
    );
    Ok(())
}

/// Runs `volley unload`.
pub fn unload(args: UnloadArgs) -> anyhow::Result<()> {
    if let Some(netns) = &args.netns {
        volley_xdp::netns::enter(netns)?;
    }
    let program = volley_xdp::load::unload(&args.interface, args.force)?;
    println!("{}: program {program} taken off, pins removed", args.interface);
    Ok(())
}

fn describe(loaded: &Loaded) -> String {
    let Loaded { interface, program_id, mode, pins, mounted, change } = loaded;
    let mut text = String::new();
    if *mounted {
        text += "mounted a BPF file system at /sys/fs/bpf; it stays\n";
    }
    text += &match change {
        Change::None => {
            format!("{interface}: already loaded: program {program_id}, {mode} mode; nothing done\n")
        }
        Change::Attached(None) => format!("{interface}: program {program_id} attached in {mode} mode\n"),
        Change::Attached(Some(takeover)) => format!(
            "{interface}: program {program_id} attached in {mode} mode, in place of {}; {:.1?} without a program\n",
            takeover.from, takeover.gap
        ),
        Change::Upgraded { from_program, from_abi, maps_kept } => format!(
            "{interface}: program {from_program} (ABI {from_abi}) swapped for program {program_id} (ABI {}) \
             without a gap; {}\n",
            volley_xdp::ABI_VERSION,
            if *maps_kept { "rules, sockets and counters go on" } else { "its maps are new" }
        ),
    };
    if *mode == Mode::Generic {
        text += "generic mode costs most of what XDP saves; --mode native says why the driver refuses\n";
    }
    text += &format!("pinned in {}; `volley unload {interface}` removes it\n", pins.display());
    text
}
