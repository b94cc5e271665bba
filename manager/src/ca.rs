//! The cluster's own certificates: a root made when the cluster is, and one certificate a node,
//! which both ends of every connection between nodes show (mTLS).
//!
//! A node's certificate names the node (CN), its role (OU) and the cluster (O), as in Swarm. One
//! of its DNS names is the same for all managers, so that a client trusts the root and the role
//! and not an address; the other is the node's own.

mod cluster;
mod credentials;
mod inspect;
mod node;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use shoal_proto::NodeId;

use crate::file::FileError;

pub use cluster::ClusterCa;
pub use credentials::Credentials;
pub use inspect::{NodeIdentity, peer_identity};
pub use node::{NodeCertificate, NodeKey, manager_client};
pub use shoal_proto::v1::RootCa;
pub(crate) use token::is_same_secret;
pub use token::{JoinToken, TokenError, ca_digests};

/// What the roots that are made here are called.
const ROOT_NAME: &str = "shoal root";
const ROOT_KEY: &str = "root.key";
const ROOT_CERT: &str = "root.crt";
/// Beside the certificates' folder: what the cluster has in it needs the root that was there.
const CLUSTER_DATA: &str = "raft";
/// DNS name in every manager's certificate.
const MANAGER_NAME: &str = "manager.shoal.internal";
/// DNS name in every worker's certificate.
const WORKER_NAME: &str = "worker.shoal.internal";
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Clocks of nodes may differ by this much.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the certificates' folder.
    #[error("certificates: {0}")]
    Io(#[from] FileError),
    /// A key or certificate that can't be made.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file that is no key or certificate.
    #[error("certificates: {}: {source}; restore it from a backup", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate's file with something else in it.
    #[error("certificates: {}: {what}; restore it from a backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The root, or half of it, has gone from a cluster that is there.
    #[error(
        "certificates: {} is missing, but there is {}; restore it from a backup",
        missing.display(),
        there.display()
    )]
    Missing {
        /// The file that has gone.
        missing: PathBuf,
        /// What shows that it was there.
        there: PathBuf,
    },
    /// A key beside a certificate of another key.
    #[error("certificates: {} is not of the key that is with it; restore both", path.display())]
    KeyMismatch {
        /// The certificate's file.
        path: PathBuf,
    },
    /// A certificate of another cluster.
    #[error("certificates: {} is of cluster {found}, this one is {wanted}", path.display())]
    OtherCluster {
        /// The certificate's file.
        path: PathBuf,
        /// The cluster it names.
        found: String,
        /// This cluster.
        wanted: String,
    },
    /// A root of an operator's own that can't be one.
    #[error("the root certificate {0}")]
    Root(String),
    /// What TLS is to work with.
    #[error("certificates: TLS: {0}")]
    Tls(String),
    /// A certificate that was asked for is not what was asked for.
    #[error("the manager's answer: {0}")]
    Answer(String),
    /// A peer's certificate that is not one of this kind of cluster.
    #[error("the peer's certificate {0}")]
    Peer(String),
}

/// The DNS name that only this node's certificate has.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("{node}.node.shoal.internal")
}

#[cfg(test)]
mod tests;
