//! Single containers on networks of the cluster: their addresses are the cluster's to give.

use std::sync::Arc;

use shoal_proto::v1::NetworkAttachmentSpec;
use shoal_proto::{ContainerId, NodeId};

use crate::allocator;
use crate::context::Context;
use crate::lookup::{self, LookupError};
use crate::store::{Attachment, Changes, Container, Meta, Object, Store};

/// Where a node wants one of its containers to be.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// The container.
    pub id: ContainerId,
    /// What it is called on all of its networks; the first is its name.
    pub names: Vec<String>,
    /// By name or id; none: it leaves them all.
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Its names are resolved while it does.
    pub running: bool,
}

/// Why a container can't be on a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No network goes by that name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its node is not in the cluster, or it is another node's.
    #[error("container {id} is not of this node")]
    Foreign {
        /// Its id.
        id: ContainerId,
    },
    /// The network is for services alone.
    #[error(
        "network {name} takes no single containers; in a compose file \"attachable: true\" lets it, and \
         ctl network create does unless told otherwise"
    )]
    NotAttachable {
        /// The network's name.
        name: String,
    },
    /// It is named twice.
    #[error("network {name} is given twice")]
    Twice {
        /// The network's name.
        name: String,
    },
    /// There is no address for it: in words.
    #[error("{reason}")]
    Address {
        /// Which rule the address breaks.
        reason: String,
    },
}

/// States the change that puts a container on those networks and takes it off all others. What it
/// has already it keeps. Returns its places in the order of the request.
///
/// # Errors
/// A network is unknown, takes no single containers, or has no address for it.
pub fn place(
    store: &Store,
    wanted: &Placement,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Result<Vec<Attachment>, PlaceError> {
    let Placement { node, id, running, .. } = *wanted;
    let old = store.container(id);
    if store.node(node).is_none() || old.is_some_and(|old| old.node != node) {
        return Err(PlaceError::Foreign { id });
    }
    let mut networks: Vec<Attachment> = Vec::with_capacity(wanted.networks.len());
    for one in &wanted.networks {
        let network = lookup::network(store, &one.network_id)?;
        let name = &network.spec.name;
        if networks.iter().any(|placed| placed.network == network.id) {
            return Err(PlaceError::Twice { name: name.clone() });
        }
        let mut held = old.into_iter().flat_map(|old| &old.networks);
        let held = held.find(|held| held.network == network.id).filter(|held| {
            one.address.is_empty() || held.address.addr().to_string() == one.address
        });
        let address = match held {
            Some(held) => held.address,
            None if !network.spec.attachable => {
                return Err(PlaceError::NotAttachable { name: name.clone() });
            }
            None => {
                changes.expect(&Object::Network(Arc::clone(network)));
                allocator::for_container(store, network, &one.address)
                    .map_err(|reason| PlaceError::Address { reason })?
            }
        };
        networks.push(Attachment { network: network.id, address, aliases: one.aliases.clone() });
    }
    match old {
        None if networks.is_empty() => {}
        None => {
            let (meta, names) = (Meta::default(), wanted.names.clone());
            let new = Container { id, meta, node, names, networks: networks.clone(), running };
            changes.create(context, new);
        }
        Some(old) if networks.is_empty() => changes.delete(&Object::Container(Arc::clone(old))),
        Some(old) => {
            let (names, networks) = (wanted.names.clone(), networks.clone());
            let new = Container { names, networks, running, ..(**old).clone() };
            if **old != new {
                changes.update(context, new);
            }
        }
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::NetworkSpec;

    use super::*;
    use crate::network;
    use crate::testing::{Cluster, node};

    const NODE: NodeId = NodeId::from_bits(1);

    /// Node 1 and the networks `a` and `b`; `b` is for services alone.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        cluster.put(node(1));
        for (name, attachable) in [("a", true), ("b", false)] {
            let (name, subnet) = (name.to_owned(), String::new());
            let spec = NetworkSpec { name, subnet, attachable, ..NetworkSpec::default() };
            cluster.commit(|store, context, changes| {
                network::create(store, spec, context, changes).unwrap()
            });
        }
        cluster
    }

    fn wanted(id: u128, networks: &[(&str, &str)]) -> Placement {
        let spec = |(network, address): &(&str, &str)| NetworkAttachmentSpec {
            network_id: (*network).to_owned(),
            address: (*address).to_owned(),
            ..NetworkAttachmentSpec::default()
        };
        Placement {
            node: NODE,
            id: ContainerId::from_bits(id),
            names: vec![format!("c{id}")],
            networks: networks.iter().map(spec).collect(),
            running: true,
        }
    }

    fn put(cluster: &mut Cluster, wanted: &Placement) -> Result<Vec<String>, String> {
        let placed = cluster.commit(|store, context, changes| {
            let mut own = Changes::default();
            let placed = place(store, wanted, context, &mut own);
            // What was stated before an error is never committed.
            if placed.is_ok() {
                *changes = own;
            }
            placed
        });
        let text = |held: Attachment| held.address.addr().to_string();
        let placed = placed.map_err(|error| error.to_string())?;
        Ok(placed.into_iter().map(text).collect())
    }

    #[test]
    fn addresses_are_kept_until_the_container_leaves_and_not_given_again_at_once() {
        let mut cluster = cluster();
        let first = put(&mut cluster, &wanted(7, &[("a", "")])).unwrap();
        assert_eq!(first, put(&mut cluster, &wanted(7, &[("a", "")])).unwrap());
        let second = put(&mut cluster, &wanted(8, &[("a", "")])).unwrap();
        assert_ne!(first, second);
        assert!(put(&mut cluster, &wanted(7, &[])).unwrap().is_empty());
        let third = put(&mut cluster, &wanted(9, &[("a", "")])).unwrap();
        assert!(third != first && third != second, "{first:?} {second:?} {third:?}");
        // Asked for, it is there.
        assert_eq!(put(&mut cluster, &wanted(10, &[("a", &first[0])])).unwrap(), first);
        let taken = put(&mut cluster, &wanted(11, &[("a", &first[0])])).unwrap_err();
        assert!(taken.contains("is held by container"), "{taken}");
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_reason() {
        for (networks, words) in [
            (&[("none", "")][..], "no such network: none"),
            (&[("b", "")], "network b takes no single containers"),
            (&[("a", ""), ("a", "")], "network a is given twice"),
            (&[("a", "1.2.3.4")], "address 1.2.3.4 is not in network a"),
            (&[("a", "x")], "\"x\" is not an address"),
        ] {
            let mut cluster = cluster();
            let error = put(&mut cluster, &wanted(7, networks)).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert_eq!(cluster.store.containers().count(), 0);
        }
        let mut cluster = cluster();
        let foreign = Placement { node: NodeId::from_bits(2), ..wanted(7, &[("a", "")]) };
        assert!(put(&mut cluster, &foreign).unwrap_err().contains("is not of this node"));
    }

    #[test]
    fn a_network_stays_while_a_container_is_on_it_and_a_node_goes_with_its_containers() {
        let mut cluster = cluster();
        put(&mut cluster, &wanted(7, &[("a", "")])).unwrap();
        let a = cluster.store.network_by_name("a").unwrap().clone();
        let (refused, _) = cluster.propose(|store, _, changes| network::remove(store, &a, changes));
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("used by container c7 on node"), "{said}");
        let gone = cluster.store.node(NODE).unwrap().clone();
        cluster.commit(|store, context, changes| {
            crate::node::remove(store, &gone, true, context, changes).unwrap();
        });
        assert_eq!(cluster.store.containers().count(), 0);
    }
}
