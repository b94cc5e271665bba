//! The node's assignments, and the network that they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use ipnet::Ipv4Net;
use shoal_network as net;
use shoal_proto::v1::assignment_change::Change;
use shoal_proto::v1::{
    AssignmentChange, Assignments, Container, Network, NetworkAttachment, Payload, Peer,
    PortProtocol, PortSpec, PublishMode, ServiceEndpoints, Task,
};

/// What the managers have told of that concerns single containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    /// Networks that are here.
    pub(crate) networks: BTreeMap<String, net::Network>,
    /// This node's, by id.
    pub(crate) containers: BTreeMap<String, Container>,
}

/// Everything that the managers have told this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assigned {
    tasks: BTreeMap<String, Task>,
    networks: BTreeMap<String, Network>,
    endpoints: BTreeMap<String, ServiceEndpoints>,
    /// Secrets and configs, without their data once those were taken.
    payloads: BTreeMap<String, Payload>,
    /// Single containers, of this node and of others.
    containers: BTreeMap<String, Container>,
    /// Where the other nodes are.
    peers: BTreeMap<String, Peer>,
}

impl Assigned {
    pub(crate) fn tasks(&self) -> &BTreeMap<String, Task> {
        &self.tasks
    }

    pub(crate) fn networks(&self) -> &BTreeMap<String, Network> {
        &self.networks
    }

    pub(crate) fn take(&mut self, assignments: Assignments) {
        if assignments.full {
            *self = Self::default();
        }
        for change in assignments.changes.into_iter().filter_map(|change| change.change) {
            match change {
                Change::Task(task) => drop(self.tasks.insert(task.id.clone(), task)),
                Change::Network(network) => {
                    drop(self.networks.insert(network.id.clone(), network));
                }
                Change::Endpoints(endpoints) => {
                    drop(self.endpoints.insert(endpoints.service_id.clone(), endpoints));
                }
                Change::Payload(payload) => {
                    drop(self.payloads.insert(payload.id.clone(), payload));
                }
                Change::Container(container) => {
                    drop(self.containers.insert(container.id.clone(), container));
                }
                Change::RemoveContainer(id) => drop(self.containers.remove(&id)),
                Change::Peer(peer) => drop(self.peers.insert(peer.node_id.clone(), peer)),
                Change::RemovePeer(id) => drop(self.peers.remove(&id)),
                Change::RemovePayload(id) => drop(self.payloads.remove(&id)),
                Change::RemoveTask(id) => drop(self.tasks.remove(&id)),
                Change::RemoveNetwork(id) => drop(self.networks.remove(&id)),
                Change::RemoveEndpoints(id) => drop(self.endpoints.remove(&id)),
            }
        }
    }

    /// What the single containers of this node are to go by.
    pub(crate) fn told(&self, own: &str) -> Told {
        let own = self.containers.values().filter(|container| container.node_id == own);
        Told {
            networks: self.networks.iter().filter_map(known).collect(),
            containers: own.map(|container| (container.id.clone(), container.clone())).collect(),
        }
    }

    /// Gives the secrets and configs that have come with their data to `keep`; the data of those
    /// that are kept there are not kept here.
    pub(crate) fn hand_over(&mut self, mut keep: impl FnMut(&Payload) -> bool) {
        for payload in self.payloads.values_mut().filter(|payload| !payload.data.is_empty()) {
            if keep(payload) {
                payload.data = Vec::new();
            }
        }
    }

    /// Ids of the secrets and configs that this node's tasks need.
    pub(crate) fn payloads(&self) -> BTreeSet<&str> {
        self.payloads.keys().map(String::as_str).collect()
    }

    /// As one full message, without the data of secrets and configs: it may go to disk.
    pub(crate) fn to_message(&self) -> Assignments {
        let networks = self.networks.values().cloned().map(Change::Network);
        let endpoints = self.endpoints.values().cloned().map(Change::Endpoints);
        let tasks = self.tasks.values().cloned().map(Change::Task);
        let without = |payload: &Payload| Payload { data: Vec::new(), ..payload.clone() };
        let payloads = self.payloads.values().map(without).map(Change::Payload);
        let peers = self.peers.values().cloned().map(Change::Peer);
        let containers = self.containers.values().cloned().map(Change::Container);
        let changes = peers.chain(networks).chain(endpoints).chain(containers);
        let changes = changes.chain(payloads).chain(tasks);
        let changes = changes.map(|change| AssignmentChange { change: Some(change) }).collect();
        Assignments { full: true, sequence: 0, changes }
    }

    /// What the network should be for it, with the tasks' host names.
    pub(crate) fn network(
        &self,
        own: &str,
        address: Option<Ipv4Addr>,
        hostname: impl Fn(&Task) -> String,
    ) -> net::Desired {
        let live = self.tasks.values().filter(|task| {
            !task.status.as_ref().is_some_and(|status| status.state().is_terminal())
        });
        net::Desired {
            networks: self.networks.values().filter_map(network).collect(),
            services: self.endpoints.values().map(|service| self.service(service, own)).collect(),
            containers: live.map(|task| container(task, hostname(task))).collect(),
            elsewhere: self.elsewhere(own),
            overlay: address.and_then(|address| self.overlay(own, address)),
        }
    }

    /// Single containers of other nodes that run.
    fn elsewhere(&self, own: &str) -> Vec<net::Container> {
        let others = self.containers.values().filter(|one| one.node_id != own && one.running);
        let container = |one: &Container| net::Container {
            id: one.id.clone(),
            names: one.names.clone(),
            attachments: one.networks.iter().filter_map(attachment).collect(),
        };
        others.map(container).collect()
    }

    /// The other nodes, and the way to the containers there.
    fn overlay(&self, own: &str, address: Ipv4Addr) -> Option<net::Overlay> {
        let place = |peer: &Peer| Some((peer.node_id.clone(), outer_address(&peer.address)?));
        // Another agent's containers on this host are reached as the host's own.
        let elsewhere = |(_, outer): &(String, Ipv4Addr)| *outer != address;
        let nodes: BTreeMap<String, Ipv4Addr> =
            self.peers.values().filter_map(place).filter(elsewhere).collect();
        let places = self.endpoints.values().flat_map(|service| {
            let places = service.endpoints.iter().chain(&service.others);
            places.map(|place| (&place.node_id, &place.networks))
        });
        let single = self.containers.values().map(|one| (&one.node_id, &one.networks));
        let places = places.chain(single).filter(|(node, _)| *node != own);
        let mut routes = BTreeMap::new();
        for (held, node) in places.filter_map(|(node, held)| Some((held, *nodes.get(node)?))) {
            let known = held.iter().filter(|held| self.networks.contains_key(&held.network_id));
            routes.extend(known.filter_map(|held| Some((self::address(&held.address)?, node))));
        }
        let peers = nodes.into_values().collect();
        Some(net::Overlay { own: address, peers, routes })
    }

    /// The first with a way out, as its interfaces have it.
    fn way_out(&self, held: &[NetworkAttachment]) -> Option<String> {
        let is_internal = |id: &String| {
            let spec = self.networks.get(id).and_then(|network| network.spec.as_ref());
            spec.is_some_and(|spec| spec.internal)
        };
        held.iter().map(|held| &held.network_id).find(|id| !is_internal(id)).cloned()
    }

    fn service(&self, service: &ServiceEndpoints, own: &str) -> net::Service {
        let known = |id: &String| self.networks.contains_key(id);
        let vips = service.vips.iter().filter(|vip| known(&vip.network_id));
        let attached = service.networks.iter().filter(|attached| known(&attached.network_id));
        let endpoints = service.endpoints.iter().map(|endpoint| net::Endpoint {
            task: endpoint.task_id.clone(),
            slot: endpoint.slot,
            local: endpoint.node_id == own,
            addresses: endpoint
                .networks
                .iter()
                .filter_map(|held| Some((held.network_id.clone(), address(&held.address)?)))
                .collect(),
            way_out: self.way_out(&endpoint.networks),
        });
        net::Service {
            id: service.service_id.clone(),
            name: service.name.clone(),
            short_name: service.short_name.clone(),
            vips: vips
                .filter_map(|vip| Some((vip.network_id.clone(), vip.address.parse().ok()?)))
                .collect(),
            aliases: attached
                .map(|attached| (attached.network_id.clone(), attached.aliases.clone()))
                .collect(),
            ports: service.ports.iter().filter_map(port).collect(),
            endpoints: endpoints.collect(),
            sticky: service.sticky,
        }
    }
}

/// The IPv4 address of `HOST:PORT`; a name is looked up.
pub(crate) fn outer_address(text: &str) -> Option<Ipv4Addr> {
    let found = text.to_socket_addrs().inspect_err(|error| {
        tracing::warn!(address = text, %error, "a node can't be found");
    });
    found.ok()?.find_map(|address| match address.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    })
}

/// The address in `10.1.2.3/24`.
fn address(text: &str) -> Option<Ipv4Addr> {
    text.parse::<Ipv4Net>().ok().map(|net| net.addr())
}

fn attachment(held: &NetworkAttachment) -> Option<net::Attachment> {
    let (network, aliases) = (held.network_id.clone(), held.aliases.clone());
    Some(net::Attachment { network, address: address(&held.address)?, aliases })
}

fn known((id, one): (&String, &Network)) -> Option<(String, net::Network)> {
    Some((id.clone(), network(one)?))
}

/// None for one that has no addresses yet.
pub(crate) fn network(network: &Network) -> Option<net::Network> {
    let spec = network.spec.clone().unwrap_or_default();
    Some(net::Network {
        id: network.id.clone(),
        name: spec.name,
        subnet: network.subnet.parse().ok()?,
        gateway: network.gateway.parse().ok()?,
        internal: spec.internal,
    })
}

pub(crate) fn port(port: &PortSpec) -> Option<net::PublishedPort> {
    Some(net::PublishedPort {
        protocol: match port.protocol() {
            PortProtocol::Tcp => net::Protocol::Tcp,
            PortProtocol::Udp => net::Protocol::Udp,
            PortProtocol::Sctp => net::Protocol::Sctp,
        },
        target: port.target_port.try_into().ok()?,
        published: port.published_port.try_into().ok()?,
        host_ip: port.host_ip.parse().ok(),
        mode: match port.mode() {
            PublishMode::Ingress => net::PortMode::Ingress,
            PublishMode::Host => net::PortMode::Host,
        },
    })
}

fn container(task: &Task, hostname: String) -> net::Container {
    let name = format!("{}.{}", task.service_name, task.slot);
    // Aliases are the service's.
    let attachments = task.networks.iter().filter_map(attachment);
    let attachments = attachments.map(|one| net::Attachment { aliases: Vec::new(), ..one });
    net::Container {
        id: task.id.clone(),
        names: vec![name.clone(), format!("{name}.{}", task.id), hostname],
        attachments: attachments.collect(),
    }
}

/// The host name that a task's container has: its own as written, or the beginning of its id as in
/// Docker.
pub(crate) fn hostname(task: &Task) -> String {
    let container = task.spec.as_ref().and_then(|spec| spec.container.as_ref());
    match container.map(|container| container.hostname.as_str()) {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => task.id.chars().take(12).collect(),
    }
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::{ContainerSpec, TaskSpec};

    use super::*;

    fn told(full: bool, changes: impl IntoIterator<Item = Change>) -> Assignments {
        let changed = |change| AssignmentChange { change: Some(change) };
        let changes = changes.into_iter().map(changed).collect();
        Assignments { full, sequence: 1, changes }
    }

    fn payload(id: &str, data: &str) -> Change {
        let data = data.as_bytes().to_vec();
        Change::Payload(Payload { id: id.to_owned(), data, ..Payload::default() })
    }

    #[test]
    fn data_of_secrets_are_not_in_what_is_kept_on_disk() {
        let mut assigned = Assigned::default();
        assigned.take(told(true, [payload("a", "hush"), payload("b", "quiet")]));
        let handed = |assigned: &mut Assigned, is_kept: bool| {
            let mut data = Vec::new();
            assigned.hand_over(|payload| {
                data.push(payload.data.clone());
                is_kept
            });
            data
        };
        let data = [b"hush".to_vec(), b"quiet".to_vec()];
        assert_eq!(handed(&mut assigned, false), data);
        let is_without = |change: &AssignmentChange| match &change.change {
            Some(Change::Payload(payload)) => payload.data.is_empty(),
            _ => false,
        };
        let kept = assigned.to_message();
        assert!(kept.changes.len() == 2 && kept.changes.iter().all(is_without), "{kept:?}");
        assert_eq!(handed(&mut assigned, true), data, "there was no room before");
        assert!(handed(&mut assigned, true).is_empty(), "once");
        let kept = assigned.to_message();
        assert!(kept.changes.len() == 2 && kept.changes.iter().all(is_without), "{kept:?}");

        // An agent that starts anew goes on from there.
        let mut anew = Assigned::default();
        anew.take(kept);
        assert_eq!(anew.payloads(), BTreeSet::from(["a", "b"]));
        anew.take(told(false, [Change::RemovePayload("a".to_owned()), payload("c", "new")]));
        assert_eq!(anew.payloads(), BTreeSet::from(["b", "c"]));
        assert_eq!(handed(&mut anew, true).len(), 1);
        anew.take(told(true, []));
        assert!(anew.payloads().is_empty());
    }

    #[test]
    fn a_container_is_found_by_the_host_name_that_it_has() {
        let container =
            ContainerSpec { hostname: "web-{{.Task.Slot}}".to_owned(), ..ContainerSpec::default() };
        let task = Task {
            id: "t".to_owned(),
            service_name: "web".to_owned(),
            slot: 3,
            spec: Some(TaskSpec { container: Some(container), ..TaskSpec::default() }),
            ..Task::default()
        };
        let mut assigned = Assigned::default();
        assigned.take(told(true, [Change::Task(task)]));
        let filled_in = |task: &Task| hostname(task).replace("{{.Task.Slot}}", "3");
        let desired = assigned.network("n", None, filled_in);
        assert_eq!(desired.containers[0].names, ["web.3", "web.3.t", "web-3"]);
    }
}
