//! A folder for work under way, gone with whoever does it.

use std::path::{Path, PathBuf};

use super::janitor::Janitor;

/// A folder in `tmp`. Dropped, it goes to the trash with everything that is still in it.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    janitor: Janitor,
}

impl Staging {
    pub(super) fn new(path: PathBuf, janitor: Janitor) -> Self {
        Self { path, janitor }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.janitor.discard(&self.path) {
            tracing::warn!(%error, "interrupted work stays until the next start");
        }
    }
}
