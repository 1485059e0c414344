//! `volley doctor`: what this machine and an interface can do, and the command that mends each thing that they cannot.

use crate::host::{self, Answer, Check};
use anyhow::bail;
use clap::Args;
use std::fmt::Write;

/// Say what this machine can and cannot do, and what mends it.
///
/// Each check is open, closed or unknown; `!` marks what the XDP path cannot do without. It asks and changes nothing.
/// Exit code 1 when something needed is closed.
#[derive(Args)]
pub struct DoctorArgs {
    /// The interface to look at; without it, the machine only.
    nic: Option<String>,
    /// Look from inside this network namespace (ip netns).
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.netns {
        volley_xdp::netns::enter(name)?;
    }
    let checks = host::checks(args.nic.as_deref());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        print!("{}", table(&checks));
    }
    let fatal: Vec<_> = checks.iter().filter(|check| check.is_fatal()).map(|check| check.name).collect();
    match fatal.is_empty() {
        true => Ok(()),
        false => bail!("closed, and the XDP path needs it: {}", fatal.join(", ")),
    }
}

/// A line for each check, its remedy below it so that it can be copied whole.
fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, answer, needed, found, remedy } in checks {
        let mark = if *needed { '!' } else { ' ' };
        let _ = writeln!(text, "{mark} {answer:<7}  {name:<width$}  {found}");
        if let Some(remedy) = remedy.as_ref().filter(|_| *answer != Answer::Open) {
            let _ = writeln!(text, "{:indent$}→ {remedy}", "", indent = 13 + width);
        }
    }
    let count = |wanted| checks.iter().filter(|check| check.answer == wanted).count();
    let (open, closed, unknown) = (count(Answer::Open), count(Answer::Closed), count(Answer::Unknown));
    let _ = writeln!(
        text,
        "\n{open} open, {closed} closed, {unknown} unknown; ! is what the XDP path cannot do without"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_below_what_they_mend() {
        let checks = [
            Check::open("kernel version", "6.18").needed(),
            Check::closed("bpffs", "not mounted", "mount -t bpf bpf /sys/fs/bpf"),
        ];
        let expected = "! open     kernel version  6.18\n  closed   bpffs           not mounted\n                           \
            → mount -t bpf bpf /sys/fs/bpf\n\n1 open, 1 closed, 0 unknown; ! is what the XDP path cannot do without\n";
        assert_eq!(table(&checks), expected);
    }
}
