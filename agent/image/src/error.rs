//! What the store answers when it can't do what it was asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::layer::LayerError;
use crate::manifest::ManifestError;
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::registry::RegistryError;

/// Why something about images did not work. Cheap to clone: tasks that wait for the same pull get
/// the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the {what} of image {image} can't be used: {source}")]
    Manifest { image: String, what: &'static str, source: ManifestError },
    #[error(
        "image {image} has no variant for {wanted}; there are: {}",
        list(.available)
    )]
    NoPlatform { image: String, wanted: Platform, available: Vec<Platform> },
    #[error("layer {digest} of image {image} is not taken: {source}")]
    Layer { image: String, digest: Digest, source: LayerError },
    #[error("the archive can't be imported as {image}: {source}")]
    Import { image: String, source: LayerError },
    #[error("reading the archive to import as {image} failed: {source}")]
    ImportRead { image: String, source: Arc<io::Error> },
    #[error("an imported image needs a tag and not a digest: {0}")]
    ImportDigest(Reference),
    #[error("the port {0:?} to expose is not PORT[/tcp|udp|sctp], such as 8080/tcp")]
    Port(String),
    #[error("the environment entry {0:?} is not NAME=VALUE")]
    Environment(String),
    #[error(
        "no space left on the disk of {path}; what was written for this is removed again: free some space and try again"
    )]
    DiskFull { path: PathBuf },
    #[error("can't {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error("the image index {path} is damaged: {reason}; move it away to start with no images")]
    Index { path: PathBuf, reason: String },
    #[error("there is no image {0} on this node; pull or import it first")]
    NotHere(String),
    #[error("the image id {prefix} is ambiguous: {}; give more digits", list(.candidates))]
    Ambiguous { prefix: String, candidates: Vec<String> },
    #[error("image {image} is used by {}; remove them first, or force its removal", list(.users))]
    InUse { image: String, users: Vec<String> },
    #[error("image {image} has several names: {}; remove them one by one, or force its removal", list(.names))]
    SeveralNames { image: String, names: Vec<String> },
    #[error("the content of image {image} is no longer on this node; pull it again")]
    ContentGone { image: Digest },
    #[error(
        "{0:?} can't name a snapshot: want 1 to 128 letters, digits, dots, dashes and underscores, a letter or digit first"
    )]
    SnapshotName(String),
    #[error("snapshot {id} exists and is of another image, {image}; remove it first")]
    SnapshotTaken { id: String, image: Digest },
    #[error("the work on image {0} ended unexpectedly; try again")]
    Interrupted(String),
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Is a full disk, or a full quota, to blame?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl ImageError {
    /// Wraps what a system call on the store's own files said.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) {
            return Self::DiskFull { path };
        }
        Self::Io { action, path, source: Arc::new(source) }
    }
}
