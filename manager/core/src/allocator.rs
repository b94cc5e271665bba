//! Gives networks their subnets, services their VIPs and published ports, and tasks their
//! addresses. What is taken is read from the store, which refuses to give an address twice; only
//! where to look next is remembered here, so that an address just freed is not the next given.

mod address;
mod port;
mod subnet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use shoal_proto::NetworkId;
use shoal_proto::v1::{EndpointMode, NetworkAttachmentSpec, NetworkSpec, TaskState};

use crate::context::Context;
use crate::store::{Attachment, Changes, Network, Service, Stamped, Store, Task, Vip};

pub(crate) use port::same as same_port;
pub use port::{PortClash, clash};

/// The allocator's memory between runs: a hint, never the truth.
#[derive(Debug, Default)]
pub struct Allocator {
    cursors: BTreeMap<NetworkId, u32>,
}

impl Allocator {
    /// Allocates for everything in the store that lacks something. What can't be given is said
    /// on the task.
    pub fn run(&mut self, store: &Store, context: &mut Context<'_>, changes: &mut Changes) {
        let mut view = store.clone();
        self.networks(&mut view, context, changes);
        let mut given = BTreeSet::new();
        for service in store.services().filter(|service| !service.removing) {
            self.service(&mut view, service, &mut given, context, changes);
        }
        for task in store.new_tasks() {
            self.task(&view, task, &mut given, context, changes);
        }
    }

    fn networks(&self, view: &mut Store, context: &Context<'_>, changes: &mut Changes) {
        let bare: Vec<Arc<Network>> =
            view.networks().filter(|network| network.subnet.is_none()).cloned().collect();
        for network in bare {
            let Some((subnet, gateway)) = subnet::choose(view, &network.spec) else { continue };
            let network =
                Network { subnet: Some(subnet), gateway: Some(gateway), ..(*network).clone() };
            show(view, network, context, changes);
        }
    }

    fn service(
        &mut self,
        view: &mut Store,
        service: &Arc<Service>,
        given: &mut BTreeSet<(NetworkId, IpAddr)>,
        context: &Context<'_>,
        changes: &mut Changes,
    ) {
        let ports = port::publish(view, service);
        let wanted: BTreeSet<NetworkId> = match service.spec.endpoint_mode() {
            EndpointMode::Vip => {
                let spec = service.spec.task.as_ref();
                let attached = spec.into_iter().flat_map(|spec| &spec.networks);
                attached.filter_map(|attached| attached.network_id.parse().ok()).collect()
            }
            EndpointMode::Dnsrr => BTreeSet::new(),
        };
        let mut vips: Vec<Vip> =
            service.vips.iter().filter(|vip| wanted.contains(&vip.network)).copied().collect();
        for network in wanted {
            if vips.iter().any(|vip| vip.network == network) {
                continue;
            }
            if let Some(address) = self.next_address(view, network, given) {
                vips.push(Vip { network, address });
            }
        }
        if vips != service.vips || ports != service.ports {
            show(view, Service { vips, ports, ..(**service).clone() }, context, changes);
        }
    }

    fn task(
        &mut self,
        view: &Store,
        task: &Arc<Task>,
        given: &mut BTreeSet<(NetworkId, IpAddr)>,
        context: &Context<'_>,
        changes: &mut Changes,
    ) {
        let mut networks = Vec::with_capacity(task.spec.networks.len());
        let before = given.clone();
        for wanted in &task.spec.networks {
            match self.attach(view, wanted, given) {
                Ok(attachment) => networks.push(attachment),
                Err(reason) => {
                    *given = before;
                    if task.status.error != reason {
                        let mut task = (**task).clone();
                        task.status.message = "waits for addresses".to_owned();
                        task.status.error = reason;
                        changes.update(context, task);
                    }
                    return;
                }
            }
        }
        let mut task = (**task).clone();
        task.networks = networks;
        task.ports = view.service(task.service).map(|s| port::publish(view, s)).unwrap_or_default();
        task.status.set_state(TaskState::Pending);
        task.status.since = Some(context.stamp());
        task.status.message = "waits for a node".to_owned();
        task.status.error.clear();
        changes.update(context, task);
    }

    fn attach(
        &mut self,
        view: &Store,
        wanted: &NetworkAttachmentSpec,
        given: &mut BTreeSet<(NetworkId, IpAddr)>,
    ) -> Result<Attachment, String> {
        let network = wanted.network_id.parse().ok().and_then(|id| view.network(id));
        let Some(network) = network else {
            return Err(format!("network {} does not exist", wanted.network_id));
        };
        let Some(subnet) = network.subnet else {
            return Err(subnet::reason(view, &network.spec));
        };
        let address = if wanted.address.is_empty() {
            let next = self.next_address(view, network.id, given);
            next.ok_or_else(|| full(network, subnet))?
        } else {
            address::fixed(view, network, &wanted.address, given)?
        };
        given.insert((network.id, address));
        Ok(Attachment {
            network: network.id,
            address: address::with_prefix(address, subnet),
            aliases: wanted.aliases.clone(),
        })
    }

    fn next_address(
        &mut self,
        view: &Store,
        network: NetworkId,
        given: &mut BTreeSet<(NetworkId, IpAddr)>,
    ) -> Option<IpAddr> {
        let subnet = view.network(network)?.subnet?;
        let cursor = self.cursors.entry(network).or_default();
        let address = address::next_free(subnet, cursor, |address| {
            view.address_holder(network, address).is_some() || given.contains(&(network, address))
        })?;
        given.insert((network, address));
        Some(address)
    }
}

/// An address of the network for a container: the one asked for, or the next free one after those
/// of other containers, so that one just freed is not the next given.
pub(crate) fn for_container(
    store: &Store,
    network: &Network,
    wanted: &str,
) -> Result<IpNet, String> {
    let Some(subnet) = network.subnet else {
        return Err(format!("network {} has no addresses yet", network.spec.name));
    };
    let address = if wanted.is_empty() {
        let mut cursor = last_of_containers(store, network).unwrap_or_default();
        let taken = |address| store.address_holder(network.id, address).is_some();
        let free = address::next_free(subnet, &mut cursor, taken);
        free.ok_or_else(|| full(network, subnet))?
    } else {
        address::fixed(store, network, wanted, &BTreeSet::new())?
    };
    Ok(address::with_prefix(address, subnet))
}

/// Where in the range the last address is that a container has.
fn last_of_containers(store: &Store, network: &Network) -> Option<u32> {
    let held = store.containers().flat_map(|container| &container.networks);
    let offsets = held.filter(|held| held.network == network.id).filter_map(|held| {
        match (held.address.addr(), held.address.network()) {
            (IpAddr::V4(address), IpAddr::V4(base)) => Some(u32::from(address) - u32::from(base)),
            _ => None,
        }
    });
    offsets.max()
}

fn full(network: &Network, subnet: IpNet) -> String {
    format!("network {} is full: {subnet} has no free address", network.spec.name)
}

/// Subnet and gateway of a network that is to be made; none when it can't have any.
pub(crate) fn addresses(store: &Store, spec: &NetworkSpec) -> Option<(IpNet, IpAddr)> {
    subnet::choose(store, spec)
}

/// Why a network can't have addresses; none when it can.
pub(crate) fn refusal(store: &Store, spec: &NetworkSpec) -> Option<String> {
    match subnet::choose(store, spec) {
        Some(_) => None,
        None => Some(subnet::reason(store, spec)),
    }
}

/// States the change, and makes what comes after it in the same run see what it has taken.
fn show<T: Stamped + Clone>(
    view: &mut Store,
    object: T,
    context: &Context<'_>,
    changes: &mut Changes,
) {
    let mut one = Changes::default();
    one.update(context, object.clone());
    let version = view.version();
    if view.apply(version, one.into_vec()).is_ok() {
        changes.update(context, object);
    }
}

#[cfg(test)]
mod tests;
