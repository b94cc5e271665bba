//! Names of what an engine makes on the host. They carry the instance, so that several agents on
//! one machine never meet.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

/// Names for one agent.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    instance: String,
    tag: String,
}

impl Names {
    pub(crate) fn new(instance: &str) -> Self {
        let tag = if instance.is_empty() { "00".to_owned() } else { hex(instance, 2) };
        Self { instance: instance.to_owned(), tag }
    }

    /// The nftables table.
    pub(crate) fn table(&self) -> String {
        match self.instance.as_str() {
            "" => "shoal".to_owned(),
            instance => format!("shoal_{instance}"),
        }
    }

    /// The device that holds the gateway addresses.
    pub(crate) fn anchor(&self) -> String {
        format!("shoal-{}", self.tag)
    }

    /// The VXLAN device.
    pub(crate) fn overlay(&self) -> String {
        format!("shoalvx-{}", self.tag)
    }

    /// The host side of a container's interface; 14 characters of the 15 that there may be.
    pub(crate) fn veth(&self, container: &str, network: &str) -> String {
        format!("sh{}{}", self.tag, hex(&(container, network), 10))
    }

    /// Whether the device is one of this engine's.
    pub(crate) fn is_own(&self, device: &str) -> bool {
        device == self.anchor()
            || device == self.overlay()
            || (device.len() == 14 && device.starts_with(&format!("sh{}", self.tag)))
    }
}

/// Stable for one version of the standard library: names are read back from the state folder, not
/// computed again.
fn hex(value: &(impl Hash + ?Sized), digits: usize) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())[..digits].to_owned()
}

/// A locally administered address made of the IPv4 one, as Docker does: unique where that is.
#[must_use]
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
