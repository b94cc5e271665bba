//! The cluster's own certificates: a root made when the cluster is, and one certificate a node,
//! which both ends of every connection between nodes show (mTLS).
//!
//! A node's certificate names the node (CN), its role (OU) and the cluster (O), as in Swarm; its
//! DNS name is the same for all managers, so that a client trusts the root and the role and not
//! an address.

mod file;

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use shoal_proto::NodeId;
use shoal_proto::v1::NodeRole;
use time::OffsetDateTime;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// DNS name in every manager's certificate.
const MANAGER_NAME: &str = "manager.shoal.internal";
/// DNS name in every worker's certificate.
const WORKER_NAME: &str = "worker.shoal.internal";
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a node's certificate is good for.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// Clocks of nodes may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the certificates' folder.
    #[error("certificates: {}: {source}", path.display())]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate that can't be made or read.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
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

/// A node's key and certificate with the root that vouches for it.
#[derive(Clone)]
pub struct NodeCertificate {
    cert_pem: String,
    key_pem: String,
    root_pem: String,
}

/// Whom a peer's certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: NodeId,
    /// Its role when the certificate was issued.
    pub role: NodeRole,
    /// The cluster's id.
    pub cluster: String,
}

impl ClusterCa {
    /// Reads the root from the folder, or makes a new one for a new cluster.
    ///
    /// # Errors
    /// The folder can't be used, or its files are no key and certificate.
    pub fn open_or_create(dir: &Path, cluster: &str, now: SystemTime) -> Result<Self, CaError> {
        let key_path = dir.join("root.key");
        let cert_path = dir.join("root.crt");
        file::make_dir(dir)?;
        if let (Some(key), Some(cert)) = (file::read(&key_path)?, file::read(&cert_path)?) {
            let key = KeyPair::from_pem(&key)?;
            let issuer = Issuer::from_ca_cert_pem(&cert, key)?;
            return Ok(Self { issuer, root_pem: cert, cluster: cluster.to_owned() });
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name("shoal root", None, cluster);
        set_validity(&mut params, now, ROOT_VALIDITY);
        let root_pem = params.self_signed(&key)?.pem();
        // The key last: a root without its key is made anew.
        file::write(&cert_path, &root_pem)?;
        file::write(&key_path, &key.serialize_pem())?;
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
        let dns = match role {
            NodeRole::Manager => MANAGER_NAME,
            NodeRole::Worker => WORKER_NAME,
        };
        let mut params = CertificateParams::new(vec![dns.to_owned()])?;
        params.distinguished_name = name(&node.to_string(), Some(role), &self.cluster);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, validity);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(NodeCertificate {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            root_pem: self.root_pem.clone(),
        })
    }
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

impl NodeCertificate {
    /// What a manager's server needs: it shows this certificate and asks for one of the cluster.
    #[must_use]
    pub fn server_config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .client_ca_root(Certificate::from_pem(&self.root_pem))
    }

    /// What a node needs to dial a manager.
    #[must_use]
    pub fn client_config(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .ca_certificate(Certificate::from_pem(&self.root_pem))
            .domain_name(MANAGER_NAME)
    }
}

/// Reads whom a peer's certificate names. That the cluster's root signed it, TLS has checked.
///
/// # Errors
/// A certificate without a node's id, role and cluster.
pub fn peer_identity(der: &[u8]) -> Result<NodeIdentity, CaError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| CaError::Peer(format!("can't be read: {error}")))?;
    let subject = certificate.subject();
    let text = |attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>, what: &str| {
        attribute
            .and_then(|attribute| attribute.as_str().ok())
            .map(str::to_owned)
            .ok_or_else(|| CaError::Peer(format!("names no {what}")))
    };
    let node = text(subject.iter_common_name().next(), "node")?;
    let role = text(subject.iter_organizational_unit().next(), "role")?;
    let role = match role.as_str() {
        "manager" => NodeRole::Manager,
        "worker" => NodeRole::Worker,
        other => return Err(CaError::Peer(format!("names an unknown role {other:?}"))),
    };
    Ok(NodeIdentity {
        node: node.parse().map_err(|error| CaError::Peer(format!("names no node: {error}")))?,
        role,
        cluster: text(subject.iter_organization().next(), "cluster")?,
    })
}

#[cfg(test)]
mod tests;
