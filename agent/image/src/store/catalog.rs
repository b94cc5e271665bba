//! The index on the disk and in memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::index::Index;
use super::layout::Layout;
use crate::error::ImageError;

/// The index: read by anyone at any time, changed by one after another.
pub(crate) struct Catalog {
    path: PathBuf,
    writer: Mutex<()>,
    current: RwLock<Arc<Index>>,
}

impl Catalog {
    pub(crate) fn load(layout: &Layout) -> Result<Self, ImageError> {
        let path = layout.index();
        let index = match fs::read(&path) {
            Ok(bytes) => Index::read(&bytes)
                .map_err(|reason| ImageError::Index { path: path.clone(), reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(ImageError::io("read", &path, error)),
        };
        Ok(Self { path, writer: Mutex::new(()), current: RwLock::new(Arc::new(index)) })
    }

    /// The index as it is now.
    pub(crate) fn current(&self) -> Arc<Index> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the index: on the disk first, then for all to see; not at all after an error.
    /// Blocks the thread.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        let mut index = Index::clone(&old);
        let result = change(&mut index)?;
        if index != *old {
            let bytes = serde_json::to_vec(&index).map_err(|error| ImageError::Index {
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
            replace(&self.path, &bytes)
                .map_err(|error| ImageError::io("write", &self.path, error))?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        }
        Ok(result)
    }

    /// Looks at the index while nobody can change it.
    pub(crate) fn hold<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        look(&self.current())
    }
}

/// Replaces a file so that a crash leaves the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
