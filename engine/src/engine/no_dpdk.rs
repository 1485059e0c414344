//! An engine built without DPDK: asked for it, it says so.

use super::config::Config;
use super::error::StartError;
use super::plan::Share;
use super::ports::OpenPorts;
use super::report::{self, Report};

/// There is none.
pub(super) enum Host {}

impl Host {
    /// Refuses.
    pub fn start(_: &Config, _: &[usize]) -> Result<(Host, Vec<Share>), StartError> {
        Err(StartError::NoDpdk)
    }

    pub fn opener(&self, _: &Share) -> OpenPorts {
        match *self {}
    }

    pub fn report(&self) -> report::Dpdk {
        match *self {}
    }

    pub fn close(self, _: &mut Report) {
        match self {}
    }
}
