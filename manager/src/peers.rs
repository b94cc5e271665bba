//! Where the other managers are, and connections to them that show this manager's certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::ca::{Credentials, NodeIdentity, peer_identity};
use crate::raft::{Leadership, Raft};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that does not answer for so long is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a manager is not spoken to.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PeerError {
    /// It has told nobody where it is.
    #[error("the address of manager {0} is not known")]
    NoAddress(u64),
    /// It does not answer.
    #[error("the manager at {address} can't be reached: {what}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the connection says.
        what: String,
    },
}

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    credentials: Credentials,
    raft: OnceLock<Raft>,
    /// As they have said themselves when they called.
    callers: Mutex<BTreeMap<u64, String>>,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let shared = Shared {
            credentials,
            raft: OnceLock::new(),
            callers: Mutex::default(),
            channels: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Raft needs its transport first, and the transport raft.
    pub(crate) fn set_raft(&self, raft: Raft) {
        // Only the first one counts, and there is one.
        let _ = self.shared.raft.set(raft);
    }

    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.shared.raft.get()
    }

    /// Whom a caller's certificate names: a node of this cluster, or one that was.
    pub(crate) fn identify<T>(&self, request: &Request<T>) -> Result<NodeIdentity, Status> {
        let certificates = request.peer_certs();
        let own = certificates.as_ref().and_then(|certificates| certificates.first());
        let own = own.ok_or_else(|| Status::unauthenticated("a node must show its certificate"))?;
        let identity =
            peer_identity(own).map_err(|error| Status::unauthenticated(error.to_string()))?;
        // One root may be of several clusters when it is an operator's own.
        if identity.cluster != self.shared.credentials.current().identity().cluster {
            return Err(Status::permission_denied("that certificate is of another cluster"));
        }
        Ok(identity)
    }

    /// A manager has called from there.
    pub(crate) fn note_caller(&self, raft_id: u64, address: &str) {
        lock(&self.shared.callers).insert(raft_id, address.to_owned());
    }

    /// Where a manager is: as it said when it last called, or as its node says.
    pub(crate) fn address(&self, raft_id: u64) -> Option<String> {
        if let Some(address) = lock(&self.shared.callers).get(&raft_id) {
            return Some(address.clone());
        }
        let store = self.raft()?.store();
        let node = store.nodes().find(|node| node.raft_id.is_some_and(|id| id.get() == raft_id))?;
        Some(node.status.address.clone()).filter(|address| !address.is_empty())
    }

    /// Where the leader is; none when it is this manager, or nobody is known to lead.
    pub(crate) fn leader_address(&self) -> Option<String> {
        match self.raft()?.leadership() {
            Leadership::Leader { .. } => None,
            Leadership::Follower { leader } => self.address(leader?),
        }
    }

    /// A connection that has been opened: nothing has been sent over it when this fails.
    pub(crate) async fn connect(&self, raft_id: u64) -> Result<Channel, PeerError> {
        let address = self.address(raft_id).ok_or(PeerError::NoAddress(raft_id))?;
        self.connect_to(&address).await.inspect_err(|_| {
            // It may have moved: its node says where to.
            lock(&self.shared.callers).remove(&raft_id);
        })
    }

    pub(crate) async fn connect_to(&self, address: &str) -> Result<Channel, PeerError> {
        let unreachable = |error: tonic::transport::Error| PeerError::Unreachable {
            address: address.to_owned(),
            what: reason(&error),
        };
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| {
                endpoint.tls_config(self.shared.credentials.current().client_config())
            })
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        endpoint.connect().await.map_err(unreachable)
    }

    /// Whether nothing was sent when a call failed: the connection could not be made again.
    pub(crate) fn is_unsent(error: &tonic::transport::Error) -> bool {
        let mut inner: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = inner {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            inner = error.source();
        }
        false
    }

    /// A connection that is kept and used again.
    pub(crate) async fn kept(&self, address: &str) -> Result<Channel, PeerError> {
        if let Some(channel) = lock(&self.shared.channels).get(address) {
            return Ok(channel.clone());
        }
        let channel = self.connect_to(address).await?;
        lock(&self.shared.channels).insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// A kept connection has failed.
    pub(crate) fn forget(&self, address: &str) {
        lock(&self.shared.channels).remove(address);
    }
}

/// The innermost reason: the outer ones say only that it was the transport.
fn reason(error: &tonic::transport::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
