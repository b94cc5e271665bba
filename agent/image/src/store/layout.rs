//! Where things are in a store's folder.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::ImageError;

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the folders that are missing, for root's eyes only: layers hold set-user-id files.
    pub(crate) fn create(&self) -> Result<(), ImageError> {
        let folders = [
            self.root.clone(),
            self.root.join("blobs/sha256"),
            self.root.join("blobs/sha512"),
            self.layers(),
            self.snapshots(),
            self.tmp(),
            self.trash(),
        ];
        for folder in folders {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&folder).map_err(|e| ImageError::io("create", &folder, e))?;
        }
        let empty = self.empty();
        fs::DirBuilder::new()
            .recursive(true)
            .create(&empty)
            .and_then(|()| fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)))
            .map_err(|error| ImageError::io("create", &empty, error))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.as_str().split(':').next().unwrap_or_default();
        self.root.join("blobs").join(algorithm).join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, number: u64) -> PathBuf {
        self.layers().join(format!("{number:x}"))
    }

    pub(crate) fn layer_files(&self, number: u64) -> PathBuf {
        self.layer(number).join("fs")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, id: &str) -> PathBuf {
        self.snapshots().join(id)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }
}

/// The names in a folder, sorted. Those that aren't text are none of the store's.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, ImageError> {
    let failed = |error| ImageError::io("read", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
