//! The store as a node uses it: against a registry that misbehaves on demand, and against
//! Debian's `docker-registry`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod build;
mod debian;
mod importing;
mod misbehaving;
mod pulling;
mod removing;
mod server;
mod sharing;
mod snapshots;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shoal_image::{Image, ImageError, ImageStore, Platform, Reference, RegistryConfig};
use tempfile::TempDir;

/// A store in a folder of its own.
struct Store {
    store: ImageStore,
    folder: TempDir,
}

impl Store {
    async fn new() -> Self {
        Self::with(RegistryConfig::default()).await
    }

    async fn with(config: RegistryConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path(), config).await.unwrap();
        Self { store, folder }
    }

    /// Closes the store and opens its folder again, as an agent does that starts again.
    async fn reopen(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        let store = ImageStore::open(folder.path(), RegistryConfig::default()).await.unwrap();
        Self { store, folder }
    }

    async fn pull(&self, name: &str) -> Result<Image, ImageError> {
        self.store.pull(&reference(name), &amd64(), |_| ()).await
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The folders of an image's layers, the top one first.
    async fn layers(&self, image: &Image) -> Vec<PathBuf> {
        let snapshot = self.store.prepare_snapshot("look", image).await.unwrap();
        self.store.remove_snapshot("look").await.unwrap();
        snapshot.lower
    }

    fn count(&self, folder: &str) -> usize {
        names(&self.path(folder)).len()
    }

    /// Waits until work that was given up, or content that nobody needs, is gone.
    async fn settles(&self, layers: usize, blobs: usize) {
        let state = || {
            ["tmp", "trash", "layers", "blobs/sha256"].map(|folder| (folder, self.count(folder)))
        };
        let want = [("tmp", 0), ("trash", 0), ("layers", layers), ("blobs/sha256", blobs)];
        wait(|| state() == want, || format!("want {want:?}, got {:?}", state())).await;
    }
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Waits for a condition, ten seconds at most.
async fn wait(condition: impl Fn() -> bool, state: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{}", state());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Is this missing? Then the test is skipped, unless everything must run.
fn skip(missing: Option<&str>) -> bool {
    if let Some(what) = missing {
        let required = std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
        assert!(!required, "this test lacks {what}");
        println!("SKIPPED: {what}");
    }
    missing.is_some()
}

/// Layers have owners, devices and overlay attributes, which only root can make.
fn no_root() -> bool {
    skip((!rustix::process::geteuid().is_root()).then_some("root"))
}
