//! The node's network as a whole: what the managers have assigned, and the node's own network for
//! single containers. Either part may change; both are put in force together.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use shoal_network::{ApplyReport, Desired, Engine, Network, NetworkError};
use tokio::sync::Mutex;

/// Its name for people and in DNS.
const NAME: &str = "bridge";
/// The first that nothing of the host's overlaps becomes the node's own network. None is in the
/// cluster's pool (10.208.0.0/12).
const SUBNETS: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 207, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 206, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 192, 0), 20),
];

/// What of the node's own network there should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Local {
    pub(crate) containers: Vec<shoal_network::Container>,
    pub(crate) services: Vec<shoal_network::Service>,
}

pub(crate) struct Fabric {
    engine: Engine,
    network: Network,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    cluster: Desired,
    local: Local,
    /// Once there, the node's own network stays until the agent ends: making its rules anew for the
    /// next container takes tens of milliseconds.
    has_local: bool,
}

impl Fabric {
    /// `file` keeps which subnet was chosen.
    pub(crate) async fn open(engine: Engine, file: &Path) -> Result<Self, NetworkError> {
        let kept = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        let subnet = match kept {
            Some(subnet) => subnet,
            None => {
                let taken = engine.host_routes().await?;
                let overlaps = |subnet: &Ipv4Net| {
                    let other = |net: &Ipv4Net| net.contains(subnet) || subnet.contains(net);
                    // The default route is everybody's.
                    taken.iter().filter(|net| net.prefix_len() > 0).any(other)
                };
                let free = SUBNETS.into_iter().find(|subnet| !overlaps(subnet));
                let subnet = free.unwrap_or(SUBNETS[0]);
                if let Err(error) = fs::write(file, subnet.to_string()) {
                    tracing::warn!(%error, "can't keep the node's own subnet on disk");
                }
                subnet
            }
        };
        let network = Network {
            id: "local".to_owned(),
            name: NAME.to_owned(),
            subnet,
            gateway: Ipv4Addr::from(u32::from(subnet.network()) + 1),
            internal: false,
        };
        Ok(Self { engine, network, parts: Mutex::default() })
    }

    /// The node's own network.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// An address of it that is not among those in use; none when it is full.
    pub(crate) fn free_address(&self, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.network
            .subnet
            .hosts()
            .find(|address| *address != self.network.gateway && !used.contains(address))
    }

    pub(crate) async fn set_cluster(&self, cluster: Desired) -> Result<ApplyReport, NetworkError> {
        let mut parts = self.parts.lock().await;
        parts.cluster = cluster;
        self.apply(&parts).await
    }

    pub(crate) async fn set_local(&self, local: Local) -> Result<ApplyReport, NetworkError> {
        let mut parts = self.parts.lock().await;
        parts.has_local |= !local.containers.is_empty();
        parts.local = local;
        self.apply(&parts).await
    }

    async fn apply(&self, parts: &Parts) -> Result<ApplyReport, NetworkError> {
        let mut desired = parts.cluster.clone();
        if parts.has_local {
            desired.networks.push(self.network.clone());
            desired.containers.extend(parts.local.containers.iter().cloned());
            desired.services.extend(parts.local.services.iter().cloned());
        }
        self.engine.apply(&desired).await
    }
}
