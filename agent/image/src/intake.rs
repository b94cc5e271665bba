//! A layer's way into the store, wherever its bytes come from.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::PermissionsExt;

use tokio::sync::mpsc;

use crate::error::{ImageError, is_full};
use crate::layer::{Expected, Feed, LayerError, Unpacked, unpack};
use crate::store::{Content, Staging};

/// Why a layer did not arrive: what it held, or anything else.
#[derive(Debug, Clone)]
pub(crate) enum IntakeError {
    Content(LayerError),
    Other(ImageError),
}

impl From<ImageError> for IntakeError {
    fn from(error: ImageError) -> Self {
        Self::Other(error)
    }
}

/// A layer that has been unpacked and checked, and that nobody sees yet. Dropped, it goes.
pub(crate) struct Received {
    pub(crate) layer: Unpacked,
    files: Staging,
    blob: Staging,
}

/// Unpacks a stream into folders for work under way. Blocks the thread until the stream ends.
pub(crate) fn receive(
    content: &Content,
    source: mpsc::Receiver<Feed>,
    expected: Expected,
) -> Result<Received, IntakeError> {
    let (files, blob) = (content.staging()?, content.staging()?);
    let (root, file) = (files.path().join("fs"), blob.path().join("blob"));
    // Whatever this process's umask is: an archive may leave the root out.
    DirBuilder::new()
        .create(&root)
        .and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o755)))
        .map_err(|error| ImageError::io("create", &root, error))?;
    let compressed = File::create_new(&file).map_err(|e| ImageError::io("create", &file, e))?;
    let layer = unpack(source, compressed, &root, expected).map_err(|error| {
        match error.local().is_some_and(is_full) {
            true => ImageError::DiskFull { path: content.layout().root().to_owned() }.into(),
            false => IntakeError::Content(error),
        }
    })?;
    Ok(Received { layer, files, blob })
}

impl Received {
    /// Makes the layer and its compressed form part of the store. Both must be leased.
    pub(crate) fn keep(self, content: &Content) -> Result<Unpacked, ImageError> {
        let Self { layer, files, blob } = self;
        content.keep_blob(&layer.blob, &blob.path().join("blob"))?;
        content.keep_layer(&layer.diff_id, layer.content, &files)?;
        Ok(layer)
    }
}
