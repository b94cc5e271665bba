//! Published ports as sockets: they serve what the firewall does not see (loopback, the node's own
//! processes, IPv6 clients), and they keep the port from everyone else.

mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::desired::{Desired, PortMode, Protocol, PublishedPort};
use crate::error::NetworkError;
use crate::ports::{PortKey, owner};
use crate::sticky;

/// Where each open port leads.
pub(crate) type Targets = BTreeMap<PortKey, Choice>;

/// Endpoints of a port.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    endpoints: Arc<[SocketAddr]>,
    sticky: bool,
}

impl Choice {
    /// In the order to try them: from the next, or from the one that the client's address has.
    pub(crate) fn order(&self, client: IpAddr, turn: usize) -> Vec<SocketAddr> {
        let mut order = self.endpoints.to_vec();
        let first = match self.sticky {
            true => sticky::choose(client, &order).unwrap_or_default(),
            false => turn.checked_rem(order.len()).unwrap_or_default(),
        };
        order.rotate_left(first);
        order
    }

    pub(crate) fn contains(&self, endpoint: SocketAddr) -> bool {
        self.endpoints.contains(&endpoint)
    }
}

/// The open ports.
pub(crate) struct Proxy {
    targets: watch::Sender<Targets>,
    listeners: BTreeMap<PortKey, Listener>,
    claims: BTreeMap<String, BTreeSet<PortKey>>,
    wanted: BTreeSet<PortKey>,
}

struct Listener {
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key(port: &PublishedPort) -> PortKey {
    let address = port.host_ip.filter(|ip| !ip.is_unspecified());
    PortKey { protocol: port.protocol, address, port: port.published }
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let (targets, _) = watch::channel(Targets::new());
        Self {
            targets,
            listeners: BTreeMap::new(),
            claims: BTreeMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// Opens ports for a task that is about to start, or finds who has them.
    pub(crate) async fn claim(
        &mut self,
        owner: &str,
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        let claimed = self.claim_more(owner, ports).await;
        if claimed.is_err() {
            self.release(owner);
        }
        claimed
    }

    /// The same beside what it has claimed: a refusal leaves that as it is.
    pub(crate) async fn claim_more(
        &mut self,
        owner: &str,
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        for port in ports.iter().filter(|port| port.published != 0) {
            let key = key(port);
            self.open(key).await?;
            self.claims.entry(owner.to_owned()).or_default().insert(key);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, owner: &str) {
        self.claims.remove(owner);
        self.close_unused();
    }

    /// Follows the desired state; returns what could not be opened.
    pub(crate) async fn apply(&mut self, desired: &Desired) -> Vec<NetworkError> {
        let mut targets = Targets::new();
        let mut errors = Vec::new();
        self.wanted.clear();
        for service in &desired.services {
            for port in service.ports.iter().filter(|port| port.published != 0) {
                let addresses = service.targets(port);
                let open = port.mode == PortMode::Ingress || !addresses.is_empty();
                if !open {
                    continue;
                }
                let key = key(port);
                self.wanted.insert(key);
                let sockets = addresses.iter().map(|address| (*address, port.target).into());
                let choice = Choice { endpoints: sockets.collect(), sticky: service.sticky };
                targets.insert(key, choice);
                errors.extend(self.open(key).await.err());
            }
        }
        self.targets.send_replace(targets);
        self.close_unused();
        errors
    }

    fn close_unused(&mut self) {
        let Self { listeners, claims, wanted, .. } = self;
        listeners.retain(|key, _| {
            wanted.contains(key) || claims.values().any(|claimed| claimed.contains(key))
        });
    }

    async fn open(&mut self, key: PortKey) -> Result<(), NetworkError> {
        if self.listeners.contains_key(&key) {
            return Ok(());
        }
        let targets = self.targets.subscribe();
        let opened = match key.protocol {
            Protocol::Tcp => bind(key, tcp::bind)
                .await
                .map(|socket| tokio::spawn(tcp::serve(socket, key, targets))),
            Protocol::Udp => bind(key, udp::bind)
                .await
                .map(|socket| tokio::spawn(udp::serve(socket, key, targets))),
            // The firewall alone serves SCTP: the runtime has no sockets for it.
            Protocol::Sctp => return Ok(()),
        };
        let task = opened.map_err(|source| refused(key, source))?;
        self.listeners.insert(key, Listener { task });
        Ok(())
    }
}

/// All addresses means IPv6 and IPv4 in one socket, or IPv4 alone on hosts without the other.
async fn bind<S, F: Future<Output = io::Result<S>>>(
    key: PortKey,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<S> {
    match key.address {
        Some(address) => open((address, key.port).into()).await,
        None => match open((IpAddr::V6(Ipv6Addr::UNSPECIFIED), key.port).into()).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => open((IpAddr::V4(Ipv4Addr::UNSPECIFIED), key.port).into()).await,
            bound => bound,
        },
    }
}

fn refused(key: PortKey, source: io::Error) -> NetworkError {
    let PortKey { protocol, address, port } = key;
    if source.kind() == io::ErrorKind::AddrInUse {
        let owner = owner(protocol, port);
        return NetworkError::PortTaken { port, protocol, address, owner };
    }
    NetworkError::Port { port, protocol, address, source }
}
