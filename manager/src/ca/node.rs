//! A node's own certificate: what it shows to others, where it is kept, when it is renewed.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::inspect::{self, NodeIdentity};
use super::token::ca_digests;
use super::{CLOCK_SKEW, CaError, MANAGER_NAME};
use crate::file;
use crate::keys::{is_sealed, open_line, seal_line};
use crate::raft::DataKey;

/// Key, certificate and root in one file, so that a crash can't leave halves that don't fit.
const FILE: &str = "node.pem";
/// What a sealed key is bound to.
const PLACE: &[u8] = b"node key";
/// A certificate is renewed in this part of its life.
const RENEWAL: std::ops::Range<f64> = 0.5..0.8;

/// A node's key and certificate with the root that vouches for it.
#[derive(Clone)]
pub struct NodeCertificate {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
    /// All roots to trust; the certificate is of the last.
    pub(super) roots_pem: String,
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
        roots_pem: &str,
        cluster: &str,
    ) -> Result<NodeCertificate, CaError> {
        let (identity, validity) =
            inspect::check_node(Path::new("the new certificate"), cert_pem, &self.key, cluster)
                .map_err(|error| CaError::Answer(error.to_string()))?;
        Ok(NodeCertificate {
            cert_pem: cert_pem.to_owned(),
            key_pem: self.key.serialize_pem(),
            roots_pem: roots_pem.to_owned(),
            identity,
            issued_at: validity.from + CLOCK_SKEW,
            expires_at: validity.until,
        })
    }
}

impl NodeCertificate {
    /// What a manager's server needs: it shows this certificate, and takes one of the cluster.
    ///
    /// # Errors
    /// The roots or the key can't be used.
    pub fn server_config(&self) -> Result<ServerConfig, CaError> {
        let tls = |error: String| CaError::Tls(error);
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots_pem.as_bytes()) {
            let root = root.map_err(|error| tls(error.to_string()))?;
            roots.add(root).map_err(|error| tls(error.to_string()))?;
        }
        let chain = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| tls(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| tls(error.to_string()))?;
        // A host that joins has none yet. Every service but that for joining asks for one.
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
        let verifier = verifier.build().map_err(|error| tls(error.to_string()))?;
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key);
        let mut config = config.map_err(|error| tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// What a node needs to dial a manager.
    #[must_use]
    pub fn client_config(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .ca_certificate(Certificate::from_pem(&self.roots_pem))
            .domain_name(MANAGER_NAME)
    }

    /// All roots that it trusts, as PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Digests of the roots that it trusts, as [`ca_digests`] gives them.
    #[must_use]
    pub fn trusted_roots(&self) -> Vec<String> {
        ca_digests(&self.roots_pem)
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

    /// Writes it to the folder, in place of an older one; its key is encrypted with a manager's data
    /// key.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn store(&self, dir: &Path, data_key: Option<&DataKey>) -> Result<(), CaError> {
        let key = match data_key {
            None => self.key_pem.clone(),
            Some(data_key) => seal_line(data_key, PLACE, &self.key_pem),
        };
        let parts = [&key, &self.cert_pem, &self.roots_pem];
        let text: String = parts.iter().map(|part| format!("{}\n", part.trim())).collect();
        Ok(file::write(&dir.join(FILE), text)?)
    }

    /// Reads what [`Self::store`] has written; none in a folder without it. One that has expired
    /// is read all the same, for the caller to renew.
    ///
    /// # Errors
    /// The file can't be read, its key and certificate don't fit, it is of another cluster, or is
    /// encrypted with another data key.
    pub fn load(
        dir: &Path,
        cluster: &str,
        data_key: Option<&DataKey>,
    ) -> Result<Option<Self>, CaError> {
        let path = dir.join(FILE);
        let Some(mut text) = file::read(&path)? else { return Ok(None) };
        if is_sealed(&text) {
            let (key, rest) = text.split_once('\n').unwrap_or((&text, ""));
            let key = data_key.and_then(|data_key| open_line(data_key, PLACE, key));
            let Some(key) = key else {
                let what = "its key is encrypted with another data key".to_owned();
                return Err(CaError::Damaged { path, what });
            };
            text = key + "\n" + rest;
        }
        let Some([key_pem, cert_pem, roots_pem]) = blocks(&text) else {
            let what = "it does not hold a key, a certificate and a root".to_owned();
            return Err(CaError::Damaged { path, what });
        };
        let key = KeyPair::from_pem(key_pem)
            .map_err(|source| CaError::Unreadable { path: path.clone(), source })?;
        let (identity, validity) = inspect::check_node(&path, cert_pem, &key, cluster)?;
        Ok(Some(Self {
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            roots_pem: roots_pem.to_owned(),
            identity,
            issued_at: validity.from + CLOCK_SKEW,
            expires_at: validity.until,
        }))
    }
}

/// Key, certificate and roots: PEM blocks, one after the other.
fn blocks(text: &str) -> Option<[&str; 3]> {
    let begins: Vec<usize> = text.match_indices("-----BEGIN ").map(|(at, _)| at).collect();
    let [key, cert, roots, ..] = begins[..] else { return None };
    Some([&text[key..cert], &text[cert..roots], &text[roots..]])
}
