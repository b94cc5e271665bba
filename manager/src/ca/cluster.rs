//! The cluster's root: made for a new cluster, kept in the store ever after.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use shoal_proto::NodeId;
use shoal_proto::v1::{ClusterState, NodeRole, RootCa};
use time::OffsetDateTime;

use super::{
    CLOCK_SKEW, CLUSTER_DATA, CaError, MANAGER_NAME, NodeCertificate, NodeIdentity, ROOT_CERT,
    ROOT_KEY, ROOT_NAME, ROOT_VALIDITY, WORKER_NAME, inspect, node_name,
};
use crate::file;

/// The cluster's root key and certificate.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    /// The one that issues.
    root: RootCa,
    /// All to trust; the one that issues is the last.
    pub(super) roots_pem: String,
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
            (Some(key_pem), Some(cert_pem)) => {
                let key = KeyPair::from_pem(&key_pem)
                    .map_err(|source| CaError::Unreadable { path: key_path, source })?;
                inspect::check_root(&cert_path, &cert_pem, &key, cluster)?;
                Self::new(RootCa { cert_pem: cert_pem.clone(), key_pem }, cert_pem, cluster)
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

    /// Begins a cluster with a root of the operator's own.
    ///
    /// # Errors
    /// It can't be a root, or the folder can't be used.
    pub fn adopt(
        dir: &Path,
        root: RootCa,
        cluster: &str,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        Self::check_root(&root, now)?;
        if !file::is_used(dir)? {
            file::make_folder(dir, [(ROOT_CERT, &root.cert_pem), (ROOT_KEY, &root.key_pem)])?;
        }
        Self::new(root.clone(), root.cert_pem, cluster)
    }

    fn create(dir: &Path, cluster: &str, now: SystemTime) -> Result<Self, CaError> {
        let root = Self::make_root(cluster, now)?;
        file::make_folder(dir, [(ROOT_CERT, &root.cert_pem), (ROOT_KEY, &root.key_pem)])?;
        Self::new(root.clone(), root.cert_pem, cluster)
    }

    /// A new root, for a new cluster or in the place of an old one.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn make_root(cluster: &str, now: SystemTime) -> Result<RootCa, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name(ROOT_NAME, None, cluster);
        set_validity(&mut params, now, ROOT_VALIDITY);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(RootCa { cert_pem, key_pem: key.serialize_pem() })
    }

    /// A root of an operator's own, when it can be one.
    ///
    /// # Errors
    /// It is no certificate of an authority, has expired, or the key is not its own.
    pub fn check_root(root: &RootCa, now: SystemTime) -> Result<(), CaError> {
        let key = KeyPair::from_pem(&root.key_pem)
            .map_err(|error| CaError::Root(format!("has a key that can't be read: {error}")))?;
        inspect::check_authority(&root.cert_pem, &key, now)
    }

    /// That of a cluster, as the store has it.
    ///
    /// # Errors
    /// There is none in it, or it can't be read.
    pub fn of(state: &ClusterState) -> Result<Self, CaError> {
        let root = state.root.clone().unwrap_or_default();
        let (root, roots_pem) = match (&state.next_root, state.next_root_issues) {
            (None, _) => (root.clone(), root.cert_pem),
            (Some(next), false) => (root.clone(), bundle(&next.cert_pem, &root.cert_pem)),
            (Some(next), true) => (next.clone(), bundle(&root.cert_pem, &next.cert_pem)),
        };
        Self::new(root, roots_pem, &state.id)
    }

    fn new(root: RootCa, roots_pem: String, cluster: &str) -> Result<Self, CaError> {
        let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, KeyPair::from_pem(&root.key_pem)?)?;
        Ok(Self { issuer, root, roots_pem, cluster: cluster.to_owned() })
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
            roots_pem: self.roots_pem.clone(),
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

    /// The certificate of the root that issues, as PEM: what join tokens pin.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root.cert_pem
    }

    /// All roots to trust, as PEM; the one that issues is the last.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// The root that issues, with its key.
    #[must_use]
    pub fn root(&self) -> &RootCa {
        &self.root
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

fn bundle(first: &str, last: &str) -> String {
    format!("{}\n{}\n", first.trim(), last.trim())
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
