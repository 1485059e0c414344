//! Rules in the device (`rte_flow`): which queue takes which packets, decided before any core sees them.

use crate::error::{Errno, Error};
use crate::info::{Hash, text};
use std::net::IpAddr;
use std::ptr::NonNull;
use volley_dpdk_sys as sys;

/// UDP or TCP packets for one port go to some queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// TCP, else UDP.
    pub tcp: bool,
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// The destination address; `None`: any.
    pub address: Option<IpAddr>,
    /// The destination port.
    pub port: u16,
    /// The queues, among which the hash chooses.
    pub queues: Vec<u16>,
}

/// The rules of one port.
#[derive(Debug)]
pub(crate) struct Rules {
    port: u16,
    flows: Vec<NonNull<sys::rte_flow>>,
}

// SAFETY: handles, used with the port under a lock.
unsafe impl Send for Rules {}

impl Rules {
    pub fn new(port: u16) -> Rules {
        Rules { port, flows: Vec::new() }
    }

    pub fn add(&mut self, name: &str, rule: &Rule, (hash, key): (Hash, &[u8])) -> Result<(), Error> {
        let mut address = [0; 16];
        match rule.address {
            Some(IpAddr::V4(four)) => address[..4].copy_from_slice(&four.octets()),
            Some(IpAddr::V6(six)) => address = six.octets(),
            None => {}
        }
        let mut raw = sys::volley_flow {
            protocol: if rule.tcp { 6 } else { 17 },
            ipv6: u8::from(rule.ipv6),
            any_address: u8::from(rule.address.is_none()),
            name_protocol: 0,
            address,
            port: rule.port,
            queues: rule.queues.as_ptr(),
            queue_count: rule.queues.len() as u16,
            rss: hash.0,
            rss_key: if key.is_empty() { std::ptr::null() } else { key.as_ptr() },
            rss_key_len: key.len() as u32,
        };
        let mut message = [0; 128];
        let mut create = |raw: &sys::volley_flow| {
            // SAFETY: everything pointed to lives for the call, and the message has that much room.
            let flow =
                unsafe { sys::volley_flow_create(self.port, raw, message.as_mut_ptr(), message.len()) };
            NonNull::new(flow)
        };
        let mut flow = create(&raw);
        if flow.is_none() && !rule.ipv6 {
            // The filters of igb and ixgbe want the protocol named in the IPv4 header, those of others refuse that.
            raw.name_protocol = 1;
            flow = create(&raw);
        }
        let Some(flow) = flow else {
            let errno = Errno::last();
            let said = text(&message);
            let said = if said == errno.to_string() { String::new() } else { format!(" ({said})") };
            return Err(Error::Port { port: name.to_owned(), doing: "adding a flow rule", errno, said });
        };
        self.flows.push(flow);
        Ok(())
    }

    pub fn clear(&mut self) {
        for flow in self.flows.drain(..) {
            // SAFETY: made above, and the port is still there.
            unsafe { sys::volley_flow_destroy(self.port, flow.as_ptr()) };
        }
    }
}
