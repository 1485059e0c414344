//! Where a NIC sits and interrupts, held against the cores of the workers.

use super::check::Check;
use super::process::processes;
use super::service::Service;
use super::tree::{Tree, numbers};

/// The NUMA node of the PCI device at `bus` (empty: a virtual one), and whether the workers are on it.
pub fn numa(tree: &Tree, bus: &str, service: &Service) -> Check {
    const NAME: &str = "numa node";
    let node = match bus {
        "" => None,
        bus => tree
            .text(&format!("sys/bus/pci/devices/{bus}/numa_node"))
            .and_then(|node| node.parse::<u32>().ok()),
    };
    let Some(node) = node else { return Check::open(NAME, "none: any core is as near") };
    let list = tree.text(&format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
    let near = numbers(&list);
    let far: Vec<_> =
        service.cores.iter().filter(|core| !near.contains(core)).map(u32::to_string).collect();
    match far.is_empty() || near.is_empty() {
        true => Check::open(NAME, format!("{node}: its cores are {list}")),
        false => Check::closed(
            NAME,
            format!(
                "{node}, whose cores are {list}; workers on core {} reach across for every packet",
                far.join(", ")
            ),
            format!("--cores {list}   # of these, as many as there are workers"),
        ),
    }
}

/// Where the interrupts of the PCI device at `bus`, and with them its softirqs, run.
pub fn interrupts(tree: &Tree, bus: &str, service: &Service) -> Check {
    const NAME: &str = "interrupts";
    let irqs = match bus {
        "" => Vec::new(),
        bus => tree.names(&format!("sys/bus/pci/devices/{bus}/msi_irqs")),
    };
    if irqs.is_empty() {
        return Check::open(NAME, "none of its own");
    }
    let table = tree.text("proc/interrupts").unwrap_or_default();
    let named = |irq: &str| {
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(irq)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
    };
    let cores = |irq: &str| {
        let file =
            |file: &str| tree.text(&format!("proc/irq/{irq}/{file}")).filter(|list| !list.is_empty());
        file("effective_affinity_list")
            .or_else(|| file("smp_affinity_list"))
            .unwrap_or_else(|| "?".to_owned())
    };
    let placed: Vec<_> = irqs.iter().map(|irq| (irq, named(irq), cores(irq))).collect();
    let list: Vec<_> = placed.iter().map(|(irq, name, cores)| format!("{irq} {name} → {cores}")).collect();
    let found = list.join(", ");
    if processes(tree).any(|process| process.name == "irqbalance") {
        let found = format!("{found}; irqbalance moves them");
        return Check::closed(NAME, found, "systemctl stop irqbalance");
    }
    let isolated = numbers(&tree.text("sys/devices/system/cpu/isolated").unwrap_or_default());
    let meets = |cores: &str, what: &[u32]| numbers(cores).into_iter().find(|core| what.contains(core));
    let moved = |found, irq: &str| {
        let away = numbers(&tree.text("sys/devices/system/cpu/online").unwrap_or_default());
        let away = away.into_iter().find(|core| !service.cores.contains(core) && !isolated.contains(core));
        let away = away.unwrap_or(0);
        let how = format!(
            "echo {away} > /proc/irq/{irq}/smp_affinity_list   # and so for the others; a core without a worker"
        );
        Check::closed(NAME, found, how)
    };
    for (irq, _, cores) in &placed {
        if let Some(core) = meets(cores, &service.cores) {
            return moved(format!("{found}; irq {irq} runs on core {core}, a worker's"), irq);
        }
    }
    match placed.iter().find(|(.., cores)| meets(cores, &isolated).is_some()) {
        None => Check::open(NAME, found),
        Some((irq, ..)) => moved(format!("{found}; irq {irq} runs on an isolated core"), irq),
    }
}
