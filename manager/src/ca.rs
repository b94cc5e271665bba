//! The cluster's own certificates: a root made when the cluster is, and one certificate a node,
//! which both ends of every connection between nodes show (mTLS).
//!
//! A node's certificate names the node (CN), its role (OU) and the cluster (O), as in Swarm. One
//! of its DNS names is the same for all managers, so that a client trusts the root and the role
//! and not an address; the other is the node's own.

mod file;
mod inspect;
mod node;
mod token;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use shoal_proto::NodeId;
use shoal_proto::v1::NodeRole;
use time::OffsetDateTime;

pub use inspect::{NodeIdentity, peer_identity};
pub use node::{NodeCertificate, NodeKey, manager_client};
pub(crate) use token::is_same_secret;
pub use token::{JoinToken, TokenError};

const ROOT_KEY: &str = "root.key";
const ROOT_CERT: &str = "root.crt";
/// Beside the certificates' folder: what the cluster has in it needs the root that was there.
const CLUSTER_DATA: &str = "raft";
/// DNS name in every manager's certificate.
const MANAGER_NAME: &str = "manager.shoal.internal";
/// DNS name in every worker's certificate.
const WORKER_NAME: &str = "worker.shoal.internal";
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a node's certificate is good for.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// Clocks of nodes may differ by this much.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the certificates' folder.
    #[error("certificates: {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
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
    /// A certificate that was asked for is not what was asked for.
    #[error("the manager's answer: {0}")]
    Answer(String),
    /// A peer's certificate that is not one of this kind of cluster.
    #[error("the peer's certificate {0}")]
    Peer(String),
}

/// The cluster's root key and certificate.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    cluster: String,
}

impl ClusterCa {
    /// Reads the root from the folder, or makes a new one for a new cluster: one whose folder is
    /// missing or empty, with no raft data beside it.
    ///
    /// # Errors
    /// The folder can't be used; its files are no key and certificate, don't fit each other, or
    /// are of another cluster; one of them has gone, or both have and the cluster is not new.
    pub fn open_or_create(dir: &Path, cluster: &str, now: SystemTime) -> Result<Self, CaError> {
        let key_path = dir.join(ROOT_KEY);
        let cert_path = dir.join(ROOT_CERT);
        match (file::read(&key_path)?, file::read(&cert_path)?) {
            (Some(key), Some(cert)) => {
                let key = KeyPair::from_pem(&key)
                    .map_err(|source| CaError::Unreadable { path: key_path, source })?;
                inspect::check_root(&cert_path, &cert, &key, cluster)?;
                Self::new(key, cert, cluster)
            }
            (Some(_), None) => Err(CaError::Missing { missing: cert_path, there: key_path }),
            (None, Some(_)) => Err(CaError::Missing { missing: key_path, there: cert_path }),
            (None, None) => {
                for there in [dir.to_owned(), dir.with_file_name(CLUSTER_DATA)] {
                    if file::is_used(&there)? {
                        return Err(CaError::Missing { missing: key_path, there });
                    }
                }
                Self::create(dir, cluster, now)
            }
        }
    }

    fn create(dir: &Path, cluster: &str, now: SystemTime) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name("shoal root", None, cluster);
        set_validity(&mut params, now, ROOT_VALIDITY);
        let root_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        file::make_folder(dir, [(ROOT_CERT, root_pem.as_str()), (ROOT_KEY, key_pem.as_str())])?;
        Self::new(key, root_pem, cluster)
    }

    fn new(key: KeyPair, root_pem: String, cluster: &str) -> Result<Self, CaError> {
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)?;
        Ok(Self { issuer, root_pem, cluster: cluster.to_owned() })
    }

    /// Makes a key and a certificate for a node, good from an hour before `now`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn issue(
        &self,
        node: NodeId,
        role: NodeRole,
        validity: Duration,
        now: SystemTime,
    ) -> Result<NodeCertificate, CaError> {
        let key = KeyPair::generate()?;
        let params = self.params(node, role, validity, now)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(NodeCertificate {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            root_pem: self.root_pem.clone(),
            identity: NodeIdentity { node, role, cluster: self.cluster.clone() },
            issued_at: now,
            expires_at: now + validity,
        })
    }
}

impl ClusterCa {
    /// Makes a certificate for a node that has made its key itself; `request` is a PKCS #10 request
    /// as PEM, of which nothing but the public key counts.
    ///
    /// # Errors
    /// The request can't be read, or its key has not signed it.
    pub fn sign(
        &self,
        request: &str,
        node: NodeId,
        role: NodeRole,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, CaError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        request.params = self.params(node, role, validity, now)?;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    fn params(
        &self,
        node: NodeId,
        role: NodeRole,
        validity: Duration,
        now: SystemTime,
    ) -> Result<CertificateParams, CaError> {
        let dns = match role {
            NodeRole::Manager => MANAGER_NAME,
            NodeRole::Worker => WORKER_NAME,
        };
        let mut params = CertificateParams::new(vec![dns.to_owned(), node_name(node)])?;
        params.distinguished_name = name(&node.to_string(), Some(role), &self.cluster);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, validity);
        Ok(params)
    }

    /// The root's certificate, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// The DNS name that only this node's certificate has.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("{node}.node.shoal.internal")
}

fn name(common: &str, role: Option<NodeRole>, cluster: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(role) = role {
        name.push(DnType::OrganizationalUnitName, role.to_string());
    }
    name.push(DnType::OrganizationName, cluster);
    name
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, validity: Duration) {
    params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(now + validity);
}

#[cfg(test)]
mod tests;
