//! The names that each network has, computed from the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::desired::{Desired, NetworkId};

/// Names in lower case and without a final dot.
type Names = BTreeMap<String, BTreeSet<Ipv4Addr>>;

/// All names of the node's networks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Zones {
    by_network: BTreeMap<NetworkId, Names>,
    reverse: BTreeMap<NetworkId, BTreeMap<Ipv4Addr, String>>,
    clients: BTreeMap<Ipv4Addr, BTreeSet<NetworkId>>,
}

impl Zones {
    pub(super) fn of(desired: &Desired) -> Self {
        let mut zones = Self::default();
        for service in &desired.services {
            for (network, addresses) in endpoints_by_network(service) {
                let names = zones.by_network.entry(network.clone()).or_default();
                let vip = service.vips.get(&network);
                let shared: BTreeSet<Ipv4Addr> = vip.map_or_else(
                    || addresses.iter().map(|(_, a)| *a).collect(),
                    |vip| [*vip].into(),
                );
                let aliases = service.aliases.get(&network).into_iter().flatten();
                let own = [&service.short_name, &service.name];
                for name in own.into_iter().chain(aliases) {
                    names.entry(name.to_lowercase()).or_default().extend(&shared);
                }
                let reverse = zones.reverse.entry(network).or_default();
                reverse.extend(vip.map(|vip| (*vip, service.name.clone())));
                for name in own {
                    let tasks = names.entry(format!("tasks.{}", name.to_lowercase())).or_default();
                    tasks.extend(addresses.iter().map(|(_, address)| *address));
                }
                for (slot, address) in addresses {
                    for name in own {
                        let task = format!("{}.{slot}", name.to_lowercase());
                        names.entry(task).or_default().insert(address);
                    }
                    reverse.insert(address, format!("{}.{slot}", service.name));
                }
            }
        }
        for container in desired.containers.iter().chain(&desired.elsewhere) {
            for attachment in &container.attachments {
                let network = &attachment.network;
                zones.clients.entry(attachment.address).or_default().extend(
                    container.attachments.iter().map(|attachment| attachment.network.clone()),
                );
                let names = zones.by_network.entry(network.clone()).or_default();
                let own = container.names.iter().chain([&container.id]);
                for name in own.chain(&attachment.aliases) {
                    names.entry(name.to_lowercase()).or_default().insert(attachment.address);
                }
                let reverse = zones.reverse.entry(network.clone()).or_default();
                let name = container.names.first().unwrap_or(&container.id);
                reverse.entry(attachment.address).or_insert_with(|| name.clone());
            }
        }
        zones
    }

    fn networks_of(&self, client: IpAddr) -> impl Iterator<Item = &NetworkId> {
        let client = match client {
            IpAddr::V4(client) => Some(client),
            IpAddr::V6(client) => client.to_ipv4_mapped(),
        };
        client.and_then(|client| self.clients.get(&client)).into_iter().flatten()
    }

    /// The addresses of a name as a client sees it; none for a name that its networks don't have.
    pub(super) fn lookup(&self, client: IpAddr, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
        let zones = self.networks_of(client).filter_map(|network| self.by_network.get(network));
        let mut found: Option<BTreeSet<Ipv4Addr>> = None;
        for addresses in zones.filter_map(|names| names.get(name)) {
            found.get_or_insert_default().extend(addresses);
        }
        found
    }

    /// The name of an address as a client sees it.
    pub(super) fn name_of(&self, client: IpAddr, address: Ipv4Addr) -> Option<&str> {
        let mut zones = self.networks_of(client).filter_map(|network| self.reverse.get(network));
        zones.find_map(|names| names.get(&address)).map(String::as_str)
    }
}

/// Slots and addresses on each network of the service, those without a task included.
fn endpoints_by_network(
    service: &crate::desired::Service,
) -> BTreeMap<NetworkId, Vec<(u64, Ipv4Addr)>> {
    let mut found: BTreeMap<NetworkId, Vec<(u64, Ipv4Addr)>> = BTreeMap::new();
    for network in service.vips.keys().chain(service.aliases.keys()) {
        found.entry(network.clone()).or_default();
    }
    for endpoint in &service.endpoints {
        for (network, address) in &endpoint.addresses {
            found.entry(network.clone()).or_default().push((endpoint.slot, *address));
        }
    }
    found
}
