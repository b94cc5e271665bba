//! Manifests and indexes: read, checked, and the right one chosen. Pure: no I/O.
//!
//! OCI image-spec 1.1 and Docker's schema 2, which differ in media types only.

use std::time::Duration;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use crate::digest::{Digest, DigestError};
use crate::image::HealthCheck;
use crate::platform::Platform;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a client says that it understands, in the order of its preference.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Longest manifest, index or configuration, as in containerd and in the distribution-spec's
/// "Pushing Manifests".
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// What is wrong with a manifest, an index or an image configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManifestError {
    #[error("it is not valid: {0}")]
    Json(String),
    #[error(
        "it is of schema version {0}, and only version 2 is supported; push the image again with a current tool"
    )]
    Schema(u64),
    #[error("it is both an index and a manifest")]
    Ambiguous,
    #[error("it is of type {0:?}, which is neither a manifest nor an index")]
    Type(String),
    #[error("it holds {0:?} and not a container image")]
    NotAnImage(String),
    #[error("it has {layers} layers and its configuration {diff_ids}")]
    Layers { layers: usize, diff_ids: usize },
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

/// One image for each of several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    manifests: Vec<(Option<Platform>, Blob)>,
}

/// What a tag or digest can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// Reads a manifest or an index. What it is, its own `mediaType` says, then the response's type,
/// then its fields; a document that has the fields of both is refused (CVE-2021-41190).
pub(crate) fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Document, ManifestError> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
    match value.get("schemaVersion").and_then(serde_json::Value::as_u64) {
        Some(2) | None => {}
        Some(other) => return Err(ManifestError::Schema(other)),
    }
    let (index, manifest) = (value.get("manifests").is_some(), value.get("layers").is_some());
    if index && (manifest || value.get("config").is_some()) {
        return Err(ManifestError::Ambiguous);
    }
    let own = value.get("mediaType").and_then(serde_json::Value::as_str);
    let sent = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let known = |text: &&str| ACCEPT.contains(text);
    match own.or(sent.filter(known)) {
        Some(OCI_INDEX | DOCKER_LIST) => read_index(value),
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => read_manifest(value),
        Some(other) => Err(ManifestError::Type(other.to_owned())),
        None if index => read_index(value),
        None if manifest => read_manifest(value),
        None => Err(ManifestError::Type(sent.unwrap_or("nothing known").to_owned())),
    }
}

fn read_index(value: serde_json::Value) -> Result<Document, ManifestError> {
    let index: ImageIndex = serde_json::from_value(value).map_err(json)?;
    let manifests = index
        .manifests()
        .iter()
        .filter(|entry| ACCEPT.contains(&entry.media_type().as_ref()))
        .map(|entry| {
            let platform = entry.platform().as_ref().map(|platform| {
                let architecture = platform.architecture().to_string();
                let variant = platform.variant().as_deref();
                Platform::new(&platform.os().to_string(), &architecture, variant)
            });
            Ok((platform, blob(entry)?))
        })
        .collect::<Result<_, ManifestError>>()?;
    Ok(Document::Index(Index { manifests }))
}

fn read_manifest(value: serde_json::Value) -> Result<Document, ManifestError> {
    let manifest: ImageManifest = serde_json::from_value(value).map_err(json)?;
    let kind = manifest.config().media_type().as_ref();
    if !matches!(kind, OCI_CONFIG | DOCKER_CONFIG) {
        let artifact = manifest.artifact_type().as_ref().map_or(kind, AsRef::as_ref);
        return Err(ManifestError::NotAnImage(artifact.to_owned()));
    }
    let layers = manifest.layers().iter().map(blob).collect::<Result<_, _>>()?;
    Ok(Document::Manifest(Manifest { config: blob(manifest.config())?, layers }))
}

impl Index {
    /// The manifest that suits a platform best; the earlier one of two that suit it as well. One
    /// that names no platform counts as the last resort.
    pub(crate) fn choose(&self, wanted: &Platform) -> Option<&Blob> {
        let rank = |platform: &Option<Platform>| match platform {
            Some(platform) => wanted.rank(platform),
            None => Some(u8::MAX),
        };
        let ranked = self.manifests.iter().filter_map(|(own, blob)| Some((rank(own)?, blob)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, blob)| blob)
    }

    /// The platforms that there are, without the attestations that builders add.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<_> = self
            .manifests
            .iter()
            .filter_map(|(platform, _)| platform.clone())
            .filter(|platform| platform.os != "unknown")
            .collect();
        platforms.sort();
        platforms.dedup();
        platforms
    }
}

/// An image's configuration with its lists in a stable order, and its layers' diff ids.
pub(crate) fn read_config(
    bytes: &[u8],
) -> Result<(ImageConfiguration, Vec<Digest>), ManifestError> {
    let mut config: ImageConfiguration = serde_json::from_slice(bytes).map_err(json)?;
    let diff_ids =
        config.rootfs().diff_ids().iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    // JSON maps, which oci-spec reads through a hash map.
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone();
        list.iter_mut().for_each(|list| list.sort());
        list
    };
    if let Some(mut run) = config.config().clone() {
        run.set_exposed_ports(sorted(run.exposed_ports()));
        run.set_volumes(sorted(run.volumes()));
        config.set_config(Some(run));
    }
    Ok((config, diff_ids))
}

/// The health check in a configuration: Docker's addition, which the OCI's types leave out.
/// Nothing when there is none or it is not in Docker's form.
#[must_use]
pub fn read_health_check(bytes: &[u8]) -> Option<HealthCheck> {
    #[derive(serde::Deserialize)]
    struct Outer {
        config: Option<Inner>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        healthcheck: Option<Check>,
    }
    // Times are in nanoseconds.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    #[derive(Default)]
    struct Check {
        test: Vec<String>,
        interval: u64,
        timeout: u64,
        start_period: u64,
        start_interval: u64,
        retries: u32,
    }
    let outer: Outer = serde_json::from_slice(bytes).ok()?;
    let check = outer.config?.healthcheck.filter(|check| !check.test.is_empty())?;
    Some(HealthCheck {
        test: check.test,
        interval: Duration::from_nanos(check.interval),
        timeout: Duration::from_nanos(check.timeout),
        start_period: Duration::from_nanos(check.start_period),
        start_interval: Duration::from_nanos(check.start_interval),
        retries: check.retries,
    })
}

/// The platform that a configuration names; nothing when it leaves it out.
pub(crate) fn platform_of(config: &ImageConfiguration) -> Option<Platform> {
    let (os, architecture) = (config.os().to_string(), config.architecture());
    let named = !os.is_empty() && !matches!(architecture, Arch::Other(name) if name.is_empty());
    named.then(|| Platform::new(&os, &architecture.to_string(), config.variant().as_deref()))
}

fn blob(descriptor: &Descriptor) -> Result<Blob, ManifestError> {
    let digest = descriptor.digest().to_string().parse()?;
    Ok(Blob { digest, size: descriptor.size() })
}

fn json(error: serde_json::Error) -> ManifestError {
    ManifestError::Json(error.to_string())
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
