//! The store: what is on this node, and the operations on it.
//!
//! Two locks, always in this order: the catalog's writer, then the content's state. Neither is
//! held over an `.await`; whatever touches the disk runs on a blocking thread.

mod catalog;
mod content;
mod index;
mod janitor;
mod layout;
mod lease;
mod snapshot;
mod staging;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

pub use index::Removed;
pub use snapshot::Snapshot;

pub(crate) use content::Content;
pub(crate) use index::Record;
pub(crate) use lease::Lease;
pub(crate) use staging::Staging;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::flight::Flights;
use crate::image::{Image, ImageSummary};
use crate::intake::IntakeError;
use crate::manifest;
use crate::platform::Platform;
use crate::progress::{Board, Counter};
use crate::registry::{Registries, RegistryConfig};
use catalog::Catalog;
use janitor::Janitor;
use layout::Layout;

/// Pulls under way, by reference and platform; each ends with an image's id.
type Pulls = Flights<(String, Platform), Result<Digest, ImageError>, Board>;

/// Layers under way, by diff id and blob; each ends with the layer in the store.
type Layers = Flights<(Digest, Digest), Result<(), IntakeError>, Counter>;

/// The images of one node. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) content: Content,
    pub(crate) catalog: Catalog,
    pub(crate) registries: Registries,
    pub(crate) downloads: Semaphore,
    pub(crate) pulls: Pulls,
    pub(crate) layers: Layers,
}

impl ImageStore {
    /// Opens a store's folder, or makes it, and removes what interrupted work has left there.
    ///
    /// # Errors
    ///
    /// When the folder can't be made or read, or its index is damaged.
    pub async fn open(root: &Path, registries: RegistryConfig) -> Result<Self, ImageError> {
        let layout = Layout::new(root);
        let work = move || {
            layout.create()?;
            let janitor = Janitor::start(&layout)?;
            let content = Content::load(layout.clone(), janitor)?;
            let catalog = Catalog::load(&layout)?;
            catalog.update(|index| {
                index.retain(|id, record| content.has_all(id, record));
                Ok(())
            })?;
            let inner = Inner {
                content,
                catalog,
                downloads: Semaphore::new(registries.max_downloads.max(1)),
                registries: Registries::new(registries),
                pulls: Pulls::new(),
                layers: Layers::new(),
            };
            inner.collect();
            Ok(Self { inner: Arc::new(inner) })
        };
        let opened = tokio::task::spawn_blocking(work).await;
        opened.unwrap_or_else(|_| Err(ImageError::Interrupted(root.display().to_string())))
    }

    /// The image that a name means: a tag, `NAME@DIGEST`, a digest, an id or the unique start of
    /// one. `None` when there is no such image on this node.
    ///
    /// # Errors
    ///
    /// When the text can't be a name, or is the start of several ids.
    pub async fn resolve(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let wanted = name.to_owned();
        self.blocking(name, move |inner| match inner.catalog.current().find(&wanted)? {
            Some(id) => inner.image(&id),
            None => Ok(None),
        })
        .await
    }

    /// All images, the newest first.
    ///
    /// # Errors
    ///
    /// None today; the list may come from the disk one day.
    pub async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        Ok(self.inner.catalog.current().summaries())
    }

    /// Removes a name and, with its last name, the image; then the layers that no image and no
    /// snapshot needs any more. Docker's rules hold: see `docker rmi`.
    ///
    /// # Errors
    ///
    /// When there is no such image, or it is in use, or has names in several repositories, and
    /// `force` is not set.
    pub async fn remove(&self, name: &str, force: bool) -> Result<Removed, ImageError> {
        let wanted = name.to_owned();
        self.blocking(name, move |inner| {
            let users = |id: &Digest| inner.content.users(id);
            let removed = inner.catalog.update(|index| index.remove(&wanted, force, users))?;
            if !removed.deleted.is_empty() {
                inner.collect();
            }
            tracing::info!(image = wanted, deleted = removed.deleted.len(), "image removed");
            Ok(removed)
        })
        .await
    }

    /// A writable layer on top of an image, to be mounted as an overlay. Asked for again, the same
    /// one, with what has been written to it.
    ///
    /// # Errors
    ///
    /// When the id can't name a folder, is taken by a snapshot of another image, or the image's
    /// layers are gone.
    pub async fn prepare_snapshot(&self, id: &str, image: &Image) -> Result<Snapshot, ImageError> {
        let (id, image) = (id.to_owned(), image.clone());
        self.blocking(&id.clone(), move |inner| inner.content.prepare_snapshot(&id, &image)).await
    }

    /// A snapshot's folders, and the image that it is of unless that was removed meanwhile.
    /// `None` when there is no such snapshot.
    ///
    /// # Errors
    ///
    /// When the image's configuration can't be read.
    pub async fn snapshot(
        &self,
        id: &str,
    ) -> Result<Option<(Snapshot, Option<Image>)>, ImageError> {
        let id = id.to_owned();
        self.blocking(&id.clone(), move |inner| match inner.content.snapshot(&id) {
            Some((snapshot, image)) => Ok(Some((snapshot, inner.image(&image)?))),
            None => Ok(None),
        })
        .await
    }

    /// Removes a snapshot and what was written to it; nothing happens when there is none. It must
    /// not be mounted.
    ///
    /// # Errors
    ///
    /// When its folder can't be moved away.
    pub async fn remove_snapshot(&self, id: &str) -> Result<(), ImageError> {
        let id = id.to_owned();
        self.blocking(&id.clone(), move |inner| {
            if let Some(image) = inner.content.remove_snapshot(&id)?
                && !inner.catalog.current().images.contains_key(&image)
            {
                inner.collect();
            }
            Ok(())
        })
        .await
    }

    /// The ids of all snapshots, sorted.
    ///
    /// # Errors
    ///
    /// None today; the list may come from the disk one day.
    pub async fn snapshots(&self) -> Result<Vec<String>, ImageError> {
        Ok(self.inner.content.snapshots())
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        self.inner.blocking(what, work).await
    }
}

impl Inner {
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        what: &str,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|_| Err(ImageError::Interrupted(what.to_owned())))
    }

    /// An image by its id, as the index has it. Reads its configuration from the disk.
    pub(crate) fn image(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        let index = self.catalog.current();
        let Some(record) = index.images.get(id) else {
            return Ok(None);
        };
        let bytes = self.content.read_blob(id)?;
        let (config, layers) = manifest::read_config(&bytes).map_err(|source| {
            ImageError::Manifest { image: id.to_string(), what: "configuration", source }
        })?;
        let (tags, digests) = index.names_of(id);
        Ok(Some(Image {
            id: id.clone(),
            health_check: manifest::read_health_check(&bytes),
            config,
            layers,
            manifest_digest: record.manifest.clone(),
            platform: record.platform.clone(),
            tags,
            digests,
            size: record.size,
        }))
    }

    /// Deletes the content that no image, snapshot or work under way needs.
    pub(crate) fn collect(&self) {
        self.catalog.hold(|index| self.content.collect(index));
    }
}
