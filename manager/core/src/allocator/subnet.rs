//! Address ranges of networks: the one asked for, or the next of the cluster's pool that overlaps
//! no other network and no route of any node's host.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use shoal_proto::v1::NetworkSpec;

use crate::store::Store;

/// Where networks without a subnet of their own get one from.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 208, 0, 0), 12);
/// 1,021 addresses for tasks and services in each.
const PREFIX_LENGTH: u8 = 22;

/// The subnet and gateway for the network; none when there is none to give.
pub(super) fn choose(store: &Store, spec: &NetworkSpec) -> Option<(IpNet, IpAddr)> {
    let subnet = if spec.subnet.is_empty() {
        let mut candidates = POOL.subnets(PREFIX_LENGTH).ok()?;
        let free = candidates.find(|candidate| overlap(store, spec, (*candidate).into()).is_none());
        IpNet::V4(free?)
    } else {
        let subnet: IpNet = spec.subnet.parse().ok()?;
        overlap(store, spec, subnet).is_none().then_some(subnet.trunc())?
    };
    let gateway = if spec.gateway.is_empty() {
        subnet.hosts().next()?
    } else {
        spec.gateway.parse().ok().filter(|gateway| subnet.contains(gateway))?
    };
    Some((subnet, gateway))
}

/// Why [`choose`] found none.
pub(super) fn reason(store: &Store, spec: &NetworkSpec) -> String {
    let name = &spec.name;
    if spec.subnet.is_empty() {
        return format!("network {name}: every range of the pool {POOL} is taken");
    }
    match spec.subnet.parse::<IpNet>() {
        Err(_) => format!("network {name}: {:?} is not a subnet such as 10.1.0.0/24", spec.subnet),
        Ok(subnet) => match overlap(store, spec, subnet) {
            Some(other) => format!("network {name}: {subnet} overlaps {other}"),
            None => format!("network {name}: gateway {:?} is not in {subnet}", spec.gateway),
        },
    }
}

fn overlap(store: &Store, spec: &NetworkSpec, subnet: IpNet) -> Option<String> {
    let overlaps = |other: &IpNet| other.contains(&subnet) || subnet.contains(other);
    let others = store.networks().filter(|network| network.spec.name != spec.name);
    for other in others {
        if let Some(taken) = other.subnet.filter(overlaps) {
            return Some(format!("network {} ({taken})", other.spec.name));
        }
    }
    for node in store.nodes() {
        let mut routes = node.description.host_routes.iter().filter_map(|route| route.parse().ok());
        if let Some(route) = routes.find(|route: &IpNet| route.prefix_len() > 0 && overlaps(route))
        {
            return Some(format!("the route {route} of node {}", node.spec.name));
        }
    }
    None
}
