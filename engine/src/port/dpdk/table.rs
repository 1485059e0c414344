//! What a device has and what of it is on: the table of `volley doctor --dpdk`.

use super::plan::DevicePlan;
use super::{DpdkError, Probed};
use serde::Serialize;
use volley_dpdk::{Hash, Info, Offloads};

/// A device, with what it has.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Line by line.
    pub rows: Vec<Row>,
}

/// One thing a device may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What.
    pub what: String,
    /// What the device has of it.
    pub has: String,
    /// What an engine with this configuration uses of it.
    pub on: String,
}

impl Probed {
    /// A table for each device. Nothing is started.
    ///
    /// # Errors
    /// When a device cannot be set up as configured.
    pub fn tables(&self, queues: u16) -> Result<Vec<Table>, DpdkError> {
        self.ports
            .iter()
            .map(|port| {
                let info = port.info();
                Ok(table(info, &DevicePlan::make(info, &self.options, queues)?))
            })
            .collect()
    }
}

fn table(info: &Info, plan: &DevicePlan) -> Table {
    let mut rows = Vec::new();
    let mut row = |what: &str, has: String, on: String| rows.push(Row { what: what.into(), has, on });
    let [a, b, c, d, e, f] = info.mac;
    row("mac", format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"), String::new());
    row("numa node", if info.node < 0 { "any".into() } else { info.node.to_string() }, String::new());
    row("mtu", format!("{} to {}", info.mtus.0, info.mtus.1), plan.mtu.to_string());
    row("queues", info.max_queues.0.min(info.max_queues.1).to_string(), plan.queues.to_string());
    let range = |(least, most): (u16, u16)| format!("{least} to {most}");
    row("rx descriptors", range(info.rx_descriptors), plan.descriptors.0.to_string());
    row("tx descriptors", range(info.tx_descriptors), plan.descriptors.1.to_string());
    row("mbufs of a packet", "1".to_owned() + &several(info), plan.max_segments.to_string());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let state = |is: bool| if is { "on" } else { "off" }.to_owned();
    for (offload, name) in Offloads::EACH {
        row(name, yes(info.offloads.has(*offload)), state(plan.offloads.has(*offload)));
    }
    for (hash, name) in Hash::EACH {
        let on = plan.queues > 1 && plan.hash.has(*hash);
        row(&format!("rss over {name}"), yes(info.hash.has(*hash)), state(on));
    }
    let entries = |count: u16| if count == 0 { "no".into() } else { format!("{count} entries") };
    let used = plan.queues > 1 && !plan.hash.is_empty() && info.indirection > 0;
    row("rss indirection table", entries(info.indirection), state(used));
    let key = if info.key_len == 0 { "no".into() } else { format!("{} bytes", info.key_len) };
    row("rss key", key, if plan.hash_key.is_empty() { "the driver's" } else { "symmetric" }.into());
    Table { name: info.name.clone(), driver: info.driver.clone(), rows }
}

/// How many mbufs a packet to send may have beyond the first.
fn several(info: &Info) -> String {
    match (info.offloads.has(Offloads::TX_MULTI_SEGMENT), info.max_segments) {
        (false, _) => String::new(),
        (true, 0 | u16::MAX) => " or more".into(),
        (true, most) => format!(" to {most}"),
    }
}
