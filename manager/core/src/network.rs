//! Networks of no stack: made, removed, and what uses them.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_proto::NetworkId;
use shoal_proto::v1::NetworkSpec;

use crate::allocator;
use crate::context::Context;
use crate::deploy::is_name;
use crate::store::{Changes, Container, Meta, Network, Object, Store};

/// Why a network can't be made or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not a name.
    #[error(
        "network {name:?}: a name has up to 128 letters, digits, '_', '.' and '-', a letter or digit \
         first"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// There is one of that name.
    #[error("the network {name} exists")]
    Taken {
        /// Its name.
        name: String,
    },
    /// No addresses can be given to it: in words.
    #[error("{reason}")]
    Addresses {
        /// Which rule its subnet or gateway breaks.
        reason: String,
    },
    /// It is a stack's.
    #[error("the network {name} is of stack {stack}, and goes with it")]
    OfStack {
        /// Its name.
        name: String,
        /// The stack's name.
        stack: String,
    },
    /// Services or containers use it.
    #[error("the network {name} is used by {}; remove them first", users.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// Full names of services, and what [`holder_of`] says of containers.
        users: Vec<String>,
    },
}

/// States the change that makes a network with its addresses.
///
/// # Errors
/// Its name or its addresses break a rule.
pub fn create(
    store: &Store,
    spec: NetworkSpec,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<NetworkId, NetworkError> {
    if !is_name(&spec.name) {
        return Err(NetworkError::Name { name: spec.name });
    }
    if store.network_by_name(&spec.name).is_some() {
        return Err(NetworkError::Taken { name: spec.name });
    }
    check_addresses(store, &spec)?;
    let id = NetworkId::from_bits(context.bits());
    let (subnet, gateway) = allocator::addresses(store, &spec).unzip();
    let (meta, spec) = (Meta::default(), Arc::new(spec));
    changes.create(context, Network { id, meta, spec, stack: None, subnet, gateway });
    Ok(id)
}

/// Whether there are addresses for it.
///
/// # Errors
/// Its range overlaps another or one of a host's, or is none; its gateway is outside of it; the pool
/// is used up.
pub fn check_addresses(store: &Store, spec: &NetworkSpec) -> Result<(), NetworkError> {
    match allocator::refusal(store, spec) {
        None => Ok(()),
        Some(reason) => Err(NetworkError::Addresses { reason }),
    }
}

/// A single container, for people.
#[must_use]
pub fn holder_of(store: &Store, container: &Container) -> String {
    let node = store.node(container.node);
    let node = node.map_or_else(|| container.node.to_string(), |node| node.spec.name.clone());
    format!("container {} on node {node}", container.name())
}

/// Full names of the services that are on it, or that have tasks which are; and the containers.
#[must_use]
pub fn users(store: &Store, network: &Network) -> Vec<String> {
    let id = network.id.to_string();
    let services = store.services().filter(|service| {
        let attached = service.spec.task.iter().flat_map(|task| &task.networks);
        attached.into_iter().any(|attached| attached.network_id == id)
    });
    let mut users: BTreeSet<String> = services.map(|service| service.spec.name.clone()).collect();
    let tasks = store.tasks().filter(|task| {
        task.holds_resources() && task.networks.iter().any(|held| held.network == network.id)
    });
    users.extend(tasks.map(|task| task.service_name.to_string()));
    let on_it = |container: &&Arc<Container>| is_on(container, network.id);
    users.extend(store.containers().filter(on_it).map(|one| holder_of(store, one)));
    users.into_iter().collect()
}

/// Whether the container has an address on the network.
#[must_use]
pub fn is_on(container: &Container, network: NetworkId) -> bool {
    container.networks.iter().any(|held| held.network == network)
}

/// States the change that takes a network away.
///
/// # Errors
/// It is a stack's, or something uses it.
pub fn remove(
    store: &Store,
    network: &Arc<Network>,
    changes: &mut Changes,
) -> Result<(), NetworkError> {
    let name = network.spec.name.clone();
    if let Some(stack) = network.stack.and_then(|stack| store.stack(stack)) {
        return Err(NetworkError::OfStack { name, stack: stack.spec.name.clone() });
    }
    let users = users(store, network);
    if !users.is_empty() {
        return Err(NetworkError::InUse { name, users });
    }
    changes.delete(&Object::Network(Arc::clone(network)));
    Ok(())
}

/// States the removal of all that [`remove`] would remove; returns their names.
pub fn prune(store: &Store, changes: &mut Changes) -> Vec<String> {
    let gone = store.networks().filter(|network| remove(store, network, changes).is_ok());
    gone.map(|network| network.spec.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, attached, network, node, service, task_spec_of};

    fn spec(name: &str, subnet: &str, gateway: &str) -> NetworkSpec {
        let text = str::to_owned;
        NetworkSpec { gateway: text(gateway), ..(*network(1, name, subnet).spec).clone() }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_at_the_command() {
        let mut cluster = Cluster::default();
        let mut host = node(1);
        host.description.host_routes = vec!["192.168.5.0/24".to_owned()];
        cluster.put(host);
        let mut there = network(1, "there", "10.1.0.0/16");
        there.subnet = Some("10.1.0.0/16".parse().unwrap());
        cluster.put(there);
        for (name, subnet, gateway, words) in [
            ("new", "10.2.0.0/24", "10.2.0.9", ""),
            ("there", "", "", "the network there exists"),
            ("a b", "", "", "a name has up to 128"),
            ("new", "10.1.4.0/24", "", "overlaps network there"),
            ("new", "192.168.0.0/16", "", "overlaps"),
            ("new", "10.2.0.0/24", "10.3.0.1", "gateway \"10.3.0.1\" is not in 10.2.0.0/24"),
            ("new", "ten", "", "is not a subnet"),
        ] {
            let (made, _) = cluster.propose(|store, context, changes| {
                create(store, spec(name, subnet, gateway), context, changes)
            });
            let said = made.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{name}: {said}");
        }
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_pruned() {
        let mut cluster = Cluster::default();
        let used = network(1, "used", "");
        let mut web = service(1, "web", 1);
        task_spec_of(&mut web).networks = vec![attached(&used)];
        cluster.put(used);
        cluster.put(network(2, "unused", ""));
        cluster.put(web);
        let used = cluster.store.network_by_name("used").unwrap().clone();
        let (refused, _) = cluster.propose(|store, _, changes| remove(store, &used, changes));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the network used is used by web; remove them first"
        );
        assert_eq!(cluster.commit(|store, _, changes| prune(store, changes)), ["unused"]);
        assert_eq!(cluster.store.networks().count(), 1);
    }
}
