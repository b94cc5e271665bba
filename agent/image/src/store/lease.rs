//! Content that work under way needs, before an image does.

use std::sync::Arc;

use super::Inner;
use crate::digest::Digest;

/// Keeps blobs and layers, which need not be here yet, from being collected. Dropped, it has what
/// nobody else needs collected.
pub(crate) struct Lease {
    store: Arc<Inner>,
    digests: Vec<Digest>,
}

impl Lease {
    pub(crate) fn new(store: &Arc<Inner>, digests: Vec<Digest>) -> Self {
        store.content.pin(&digests);
        Self { store: Arc::clone(store), digests }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.content.unpin(&self.digests);
        self.store.content.janitor().collect(Arc::downgrade(&self.store));
    }
}
