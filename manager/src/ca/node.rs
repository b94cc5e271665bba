//! A node's own certificate: what it shows to others, where it is kept, when it is renewed.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use super::inspect::{self, NodeIdentity};
use super::{CLOCK_SKEW, CaError, MANAGER_NAME, file};

/// Key, certificate and root in one file, so that a crash can't leave halves that don't fit.
const FILE: &str = "node.pem";
/// A certificate is renewed in this part of its life.
const RENEWAL: std::ops::Range<f64> = 0.5..0.8;

/// A node's key and certificate with the root that vouches for it.
#[derive(Clone)]
pub struct NodeCertificate {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
    pub(super) root_pem: String,
    pub(super) identity: NodeIdentity,
    pub(super) issued_at: SystemTime,
    pub(super) expires_at: SystemTime,
}

/// What a host needs to dial a manager of the cluster with that root before it has a certificate.
#[must_use]
pub fn manager_client(root_pem: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root_pem)).domain_name(MANAGER_NAME)
}

/// A key that a node has made for a certificate that it asks for.
pub struct NodeKey {
    key: KeyPair,
    request_pem: String,
}

impl NodeKey {
    /// Makes one.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let request_pem = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
        Ok(Self { key, request_pem })
    }

    /// The request for a certificate, PKCS #10 as PEM.
    #[must_use]
    pub fn request_pem(&self) -> &str {
        &self.request_pem
    }

    /// The node's certificate, from what a manager has answered.
    ///
    /// # Errors
    /// The certificate is not of this key, or not of the cluster that the manager names.
    pub fn certified(
        self,
        cert_pem: &str,
        root_pem: &str,
        cluster: &str,
    ) -> Result<NodeCertificate, CaError> {
        let (identity, validity) =
            inspect::check_node(Path::new("the new certificate"), cert_pem, &self.key, cluster)
                .map_err(|error| CaError::Answer(error.to_string()))?;
        Ok(NodeCertificate {
            cert_pem: cert_pem.to_owned(),
            key_pem: self.key.serialize_pem(),
            root_pem: root_pem.to_owned(),
            identity,
            issued_at: validity.from + CLOCK_SKEW,
            expires_at: validity.until,
        })
    }
}

impl NodeCertificate {
    /// What a manager's server needs: it shows this certificate, and takes one of the cluster.
    #[must_use]
    pub fn server_config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .client_ca_root(Certificate::from_pem(&self.root_pem))
            // A host that joins has none yet. Every service but that for joining asks for one.
            .client_auth_optional(true)
    }

    /// What a node needs to dial a manager.
    #[must_use]
    pub fn client_config(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .ca_certificate(Certificate::from_pem(&self.root_pem))
            .domain_name(MANAGER_NAME)
    }

    /// Whom it names.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// From then on nobody accepts it.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// When to ask for the next one: after 50 to 80 % of its life. `jitter` says where between,
    /// from 0 to `u32::MAX`, so that nodes that joined together don't ask together.
    #[must_use]
    pub fn renew_at(&self, jitter: u32) -> SystemTime {
        let place = f64::from(jitter) / f64::from(u32::MAX);
        let share = RENEWAL.start + (RENEWAL.end - RENEWAL.start) * place;
        let life = self.expires_at.duration_since(self.issued_at).unwrap_or_default();
        self.issued_at + life.mul_f64(share)
    }

    /// Writes it to the folder, in place of an older one.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn store(&self, dir: &Path) -> Result<(), CaError> {
        let parts = [&self.key_pem, &self.cert_pem, &self.root_pem];
        let text: String = parts.iter().map(|part| format!("{}\n", part.trim())).collect();
        file::write(&dir.join(FILE), &text)
    }

    /// Reads what [`Self::store`] has written; none in a folder without it. One that has expired
    /// is read all the same, for the caller to renew.
    ///
    /// # Errors
    /// The file can't be read, its key and certificate don't fit, or it is of another cluster.
    pub fn load(dir: &Path, cluster: &str) -> Result<Option<Self>, CaError> {
        let path = dir.join(FILE);
        let Some(text) = file::read(&path)? else { return Ok(None) };
        let Some([key_pem, cert_pem, root_pem]) = blocks(&text) else {
            let what = "it does not hold a key and two certificates".to_owned();
            return Err(CaError::Damaged { path, what });
        };
        let key = KeyPair::from_pem(key_pem)
            .map_err(|source| CaError::Unreadable { path: path.clone(), source })?;
        let (identity, validity) = inspect::check_node(&path, cert_pem, &key, cluster)?;
        Ok(Some(Self {
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            root_pem: root_pem.to_owned(),
            identity,
            issued_at: validity.from + CLOCK_SKEW,
            expires_at: validity.until,
        }))
    }
}

/// The three PEM blocks of a text that has exactly three.
fn blocks(text: &str) -> Option<[&str; 3]> {
    let begins: Vec<usize> = text.match_indices("-----BEGIN ").map(|(at, _)| at).collect();
    let [key, cert, root] = begins[..] else { return None };
    Some([&text[key..cert], &text[cert..root], &text[root..]])
}
