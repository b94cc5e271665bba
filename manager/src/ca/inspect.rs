//! What a certificate says, and whether it fits its key.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use shoal_proto::NodeId;
use shoal_proto::v1::NodeRole;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::x509::AttributeTypeAndValue;

use super::{CaError, ROOT_NAME};

/// Whom a node's certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: NodeId,
    /// Its role when the certificate was issued.
    pub role: NodeRole,
    /// The cluster's id.
    pub cluster: String,
}

/// Reads whom a peer's certificate names. That the cluster's root signed it, TLS has checked.
///
/// # Errors
/// A certificate without a node's id, role and cluster.
pub fn peer_identity(der: &[u8]) -> Result<NodeIdentity, CaError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| CaError::Peer(format!("can't be read: {error}")))?;
    identity(&certificate).map_err(CaError::Peer)
}

/// What the certificate's subject names, or what is wrong with it.
fn identity(certificate: &X509Certificate<'_>) -> Result<NodeIdentity, String> {
    let subject = certificate.subject();
    let node = text(subject.iter_common_name().next(), "node")?;
    let role = text(subject.iter_organizational_unit().next(), "role")?;
    let role = match role.as_str() {
        "manager" => NodeRole::Manager,
        "worker" => NodeRole::Worker,
        other => return Err(format!("names an unknown role {other:?}")),
    };
    Ok(NodeIdentity {
        node: node.parse().map_err(|error| format!("names no node: {error}"))?,
        role,
        cluster: cluster(certificate)?,
    })
}

fn cluster(certificate: &X509Certificate<'_>) -> Result<String, String> {
    text(certificate.subject().iter_organization().next(), "cluster")
}

fn text(attribute: Option<&AttributeTypeAndValue<'_>>, what: &str) -> Result<String, String> {
    attribute
        .and_then(|attribute| attribute.as_str().ok())
        .map(str::to_owned)
        .ok_or_else(|| format!("names no {what}"))
}

/// A certificate of a root, from a file, that fits its key and its cluster.
pub(super) fn check_root(
    path: &Path,
    pem: &str,
    key: &KeyPair,
    cluster_id: &str,
) -> Result<(), CaError> {
    let found = parse(path, pem, key, |certificate| {
        let name = text(certificate.subject().iter_common_name().next(), "root");
        // A root of an operator's own names no cluster.
        Ok(match name.as_deref() {
            Ok(ROOT_NAME) => Some(cluster(certificate)?),
            _ => None,
        })
    })?;
    found.map_or(Ok(()), |found| check_cluster(path, found, cluster_id))
}

/// A certificate that an operator gives as the cluster's root.
pub(super) fn check_authority(pem: &str, key: &KeyPair, now: SystemTime) -> Result<(), CaError> {
    let (_, block) = parse_x509_pem(pem.as_bytes())
        .map_err(|error| CaError::Root(format!("can't be read: {error}")))?;
    let certificate =
        block.parse_x509().map_err(|error| CaError::Root(format!("can't be read: {error}")))?;
    let refuse = |what: &str| Err(CaError::Root(what.to_owned()));
    if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
        return refuse("is not of the key that is with it");
    }
    if !certificate.is_ca() {
        return refuse("is not one of an authority: its basic constraints don't say CA");
    }
    if system_time(certificate.validity().not_after.timestamp()) <= now {
        return refuse("has expired");
    }
    Ok(())
}

/// What a node's certificate, from a file, says; it fits its key and its cluster.
pub(super) fn check_node(
    path: &Path,
    pem: &str,
    key: &KeyPair,
    cluster_id: &str,
) -> Result<(NodeIdentity, Validity), CaError> {
    let (identity, validity) = parse(path, pem, key, |certificate| {
        let validity = certificate.validity();
        let from = system_time(validity.not_before.timestamp());
        let until = system_time(validity.not_after.timestamp());
        Ok((identity(certificate)?, Validity { from, until }))
    })?;
    check_cluster(path, identity.cluster.clone(), cluster_id)?;
    Ok((identity, validity))
}

/// From when until when a certificate is good.
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

fn parse<T>(
    path: &Path,
    pem: &str,
    key: &KeyPair,
    extract: impl FnOnce(&X509Certificate<'_>) -> Result<T, String>,
) -> Result<T, CaError> {
    let damaged = |what: String| CaError::Damaged { path: path.to_owned(), what };
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|error| damaged(error.to_string()))?;
    let certificate = block.parse_x509().map_err(|error| damaged(error.to_string()))?;
    if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(CaError::KeyMismatch { path: path.to_owned() });
    }
    extract(&certificate).map_err(|what| damaged(format!("the certificate {what}")))
}

fn check_cluster(path: &Path, found: String, wanted: &str) -> Result<(), CaError> {
    if found == wanted {
        return Ok(());
    }
    Err(CaError::OtherCluster { path: path.to_owned(), found, wanted: wanted.to_owned() })
}

/// Times before 1970 become 1970.
fn system_time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
