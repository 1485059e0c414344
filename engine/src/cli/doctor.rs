//! `volley doctor`: what this machine and an interface can do, and the command that mends each thing that they cannot.

use crate::engine::config::{Numbers, Ports};
use crate::host::{self, Answer, Check, Service};
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
    /// The queues that workers will serve, as in 0-3,6 [default: all]
    #[arg(long)]
    queues: Option<Numbers>,
    /// The cores of the workers, as in 2-5, to be held against interrupts and NUMA node
    #[arg(long)]
    cores: Option<Numbers>,
    /// The UDP port or ports
    #[arg(long, short, value_name = "PORTS", default_value = "7777")]
    port: Ports,
    /// Look from inside this network namespace (ip netns).
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Instead: what DPDK's devices (--pci, --vdev) have, and what of it would be on; without any, which devices there are
    #[arg(long)]
    dpdk: bool,
    #[command(flatten)]
    devices: super::dpdk::DpdkArgs,
}

pub fn main(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.netns {
        volley_xdp::netns::enter(name)?;
    }
    if args.dpdk {
        return dpdk(args);
    }
    let service = Service {
        queues: args.queues.clone().map(|queues| queues.0),
        cores: args.cores.iter().flat_map(|cores| &cores.0).copied().map(u32::from).collect(),
        ports: args.port.0.clone(),
        ..Service::default()
    };
    let checks = host::checks(args.nic.as_deref(), &service);
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

/// `volley doctor --dpdk`.
#[cfg(not(feature = "dpdk"))]
fn dpdk(_: &DoctorArgs) -> anyhow::Result<()> {
    bail!(crate::engine::StartError::NoDpdk)
}

/// `volley doctor --dpdk`.
#[cfg(feature = "dpdk")]
fn dpdk(args: &DoctorArgs) -> anyhow::Result<()> {
    use crate::port::dpdk::{Probed, Table};
    let mut options = crate::engine::config::Dpdk::default();
    args.devices.apply(&mut options);
    if options.devices().next().is_none() {
        println!("{}\nPCI network devices: {}", volley_dpdk::version(), volley_dpdk::pci::present());
        println!("name those to look at with --pci ADDRESS, virtual ones with --vdev");
        return Ok(());
    }
    let probed = Probed::new(&options)?;
    let wished = args.queues.as_ref().map(|queues| queues.0.len() as u16);
    let queues = probed.queues(wished, crate::worker::affinity::allowed().len())?;
    let tables = probed.tables(queues)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
        return Ok(());
    }
    for Table { name, driver, rows } in tables {
        let mut table = tabled::builder::Builder::default();
        table.push_record(["", "has", "on"]);
        for row in rows {
            table.push_record([row.what, row.has, row.on]);
        }
        let mut table = table.build();
        table.with(tabled::settings::Style::blank());
        println!("{name} ({driver}), {}\n{table}\n", volley_dpdk::version());
    }
    Ok(())
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
