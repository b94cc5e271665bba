//! Single addresses of a network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use shoal_proto::NetworkId;

use crate::network;
use crate::store::{Key, Network, Store};

/// The first free address after the cursor, round and round; the network's and the broadcast
/// address are never given. The cursor moves on to it.
pub(super) fn next_free(
    subnet: IpNet,
    cursor: &mut u32,
    taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let IpNet::V4(subnet) = subnet else { return None };
    let base = u32::from(subnet.network());
    let last = u32::from(subnet.broadcast()) - base;
    let usable = last.checked_sub(1)?;
    for step in 0..usable {
        let offset = (*cursor + step) % usable + 1;
        let address = IpAddr::V4(Ipv4Addr::from(base + offset));
        if !taken(address) {
            *cursor = offset % usable;
            return Some(address);
        }
    }
    None
}

/// The address that a compose file asks for, when it may be given.
pub(super) fn fixed(
    view: &Store,
    network: &Network,
    text: &str,
    given: &BTreeSet<(NetworkId, IpAddr)>,
) -> Result<IpAddr, String> {
    let name = &network.spec.name;
    let address: IpAddr =
        text.parse().map_err(|_| format!("{text:?} is not an address (network {name})"))?;
    if !network.subnet.is_some_and(|subnet| subnet.contains(&address)) {
        let subnet = network.subnet.map(|subnet| subnet.to_string()).unwrap_or_default();
        return Err(format!("address {address} is not in network {name} ({subnet})"));
    }
    if let Some(holder) = view.address_holder(network.id, address) {
        let holder = holder_of(view, holder);
        return Err(format!("address {address} of network {name} is held by {holder}"));
    }
    if given.contains(&(network.id, address)) {
        return Err(format!("address {address} of network {name} is given to another task"));
    }
    Ok(address)
}

/// By a name that people know, where it has one.
fn holder_of(view: &Store, holder: Key) -> String {
    match holder {
        Key::Container(id) => view.container(id).map(|one| network::holder_of(view, one)),
        Key::Task(id) => {
            view.task(id).map(|task| format!("task {}.{}", task.service_name, task.slot))
        }
        Key::Service(id) => {
            view.service(id).map(|service| format!("service {}", service.spec.name))
        }
        _ => None,
    }
    .unwrap_or_else(|| holder.to_string())
}

pub(super) fn with_prefix(address: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(address, subnet.prefix_len()).unwrap_or_else(|_| address.into())
}
