//! What a node's network should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// The cluster's id of a network.
pub type NetworkId = String;

/// All of it. Order means nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Networks that have a container here, or a published port.
    pub networks: Vec<Network>,
    /// Services that can be reached from here.
    pub services: Vec<Service>,
    /// Containers on this node.
    pub containers: Vec<Container>,
    /// Containers on other nodes that have names of their own.
    pub elsewhere: Vec<Container>,
    /// The other nodes; none where this one is alone.
    pub overlay: Option<Overlay>,
}

/// The other nodes and what is on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Where they find this one.
    pub own: Ipv4Addr,
    /// Where they are.
    pub peers: BTreeSet<Ipv4Addr>,
    /// The node of each container elsewhere that this node's containers may reach.
    pub routes: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// A network as seen on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The cluster's id.
    pub id: NetworkId,
    /// The full name, for people.
    pub name: String,
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// The nodes' own address on it; DNS answers there.
    pub gateway: Ipv4Addr,
    /// No way out.
    pub internal: bool,
}

/// A service with those of its tasks that take connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// The cluster's id.
    pub id: String,
    /// STACK_SERVICE
    pub name: String,
    /// Its name inside the stack.
    pub short_name: String,
    /// Its virtual address on each network; none in DNS round-robin mode.
    pub vips: BTreeMap<NetworkId, Ipv4Addr>,
    /// Further names on each of its networks.
    pub aliases: BTreeMap<NetworkId, Vec<String>>,
    /// Ports open on nodes.
    pub ports: Vec<PublishedPort>,
    /// Healthy, running tasks.
    pub endpoints: Vec<Endpoint>,
    /// A client's connections all go to one endpoint while that is there.
    pub sticky: bool,
}

/// A task that takes connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The task's id.
    pub task: String,
    /// Its slot.
    pub slot: u64,
    /// It runs on this node.
    pub local: bool,
    /// Its address on each network.
    pub addresses: BTreeMap<NetworkId, Ipv4Addr>,
    /// The network that its container answers strangers by; none: the only one.
    pub way_out: Option<NetworkId>,
}

impl Endpoint {
    /// Where published ports lead to: a reply with another address would go the wrong way.
    fn outward(&self) -> Option<Ipv4Addr> {
        let way_out = self.way_out.as_ref().and_then(|network| self.addresses.get(network));
        way_out.or_else(|| self.addresses.values().next()).copied()
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
    /// RFC 9260
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Where a published port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMode {
    /// On every node, for all tasks.
    Ingress,
    /// On the nodes of its tasks, for those.
    Host,
}

/// A port open on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub target: u16,
    /// The node's port.
    pub published: u16,
    /// The only address it is open on; none: all.
    pub host_ip: Option<IpAddr>,
    /// Where it is open.
    pub mode: PortMode,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// Its address there.
    pub address: Ipv4Addr,
    /// Further names there.
    pub aliases: Vec<String>,
}

/// A container with its places on networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// What it is called on all of its networks, for DNS.
    pub names: Vec<String>,
    /// Its addresses.
    pub attachments: Vec<Attachment>,
}

impl Desired {
    /// In an order that equal states share.
    pub(crate) fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        sorted.networks.sort_by(|a, b| a.id.cmp(&b.id));
        sorted.services.sort_by(|a, b| a.id.cmp(&b.id));
        sorted.containers.sort_by(|a, b| a.id.cmp(&b.id));
        for service in &mut sorted.services {
            let place = |port: &PublishedPort| {
                (port.protocol, port.published, port.host_ip, port.target, port.mode)
            };
            service.ports.sort_by_key(place);
            service.endpoints.sort_by(|a, b| (a.slot, &a.task).cmp(&(b.slot, &b.task)));
        }
        sorted.elsewhere.sort_by(|a, b| a.id.cmp(&b.id));
        for container in &mut sorted.containers {
            container.attachments.sort_by(|a, b| a.network.cmp(&b.network));
        }
        sorted
    }
}

impl Service {
    /// Addresses that the port leads to from this node, one for each endpoint: those of this node
    /// where it has some, which saves a way, unless a client is to come to the same one by any node.
    pub(crate) fn targets(&self, port: &PublishedPort) -> Vec<Ipv4Addr> {
        let has_local = !self.sticky && self.endpoints.iter().any(|endpoint| endpoint.local);
        let reachable = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.local || (port.mode == PortMode::Ingress && !has_local));
        reachable.filter_map(Endpoint::outward).collect()
    }
}
