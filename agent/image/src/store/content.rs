//! Blobs and layers: what is on the disk, who needs it, and its removal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::index::{Index, Record};
use super::janitor::Janitor;
use super::layout::{Layout, names};
use super::snapshot::{self, Holding};
use super::staging::Staging;
use crate::digest::Digest;
use crate::error::ImageError;

/// The store's files, and a picture of them in memory that only its own methods change.
pub(crate) struct Content {
    layout: Layout,
    janitor: Janitor,
    /// The next number of a layer or of a folder in `tmp`; never used twice in a run.
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// By diff id.
    pub(super) layers: BTreeMap<Digest, Layer>,
    blobs: BTreeSet<Digest>,
    /// How many pieces of work need a blob or a layer.
    pins: BTreeMap<Digest, usize>,
    /// By id.
    pub(super) snapshots: BTreeMap<String, Holding>,
}

/// An unpacked layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub(super) number: u64,
    size: u64,
}

/// What `layer.json` says.
#[derive(Serialize, Deserialize)]
struct Description {
    diff_id: Digest,
    size: u64,
}

impl Content {
    /// Looks through the folders; what is incomplete goes to the trash.
    pub(crate) fn load(layout: Layout, janitor: Janitor) -> Result<Self, ImageError> {
        for name in names(&layout.tmp())? {
            janitor.discard(&layout.tmp().join(name))?;
        }
        let mut state = State::default();
        let mut next = 1;
        for name in names(&layout.layers())? {
            let number = u64::from_str_radix(&name, 16).ok();
            match number.and_then(|number| describe(&layout, number)) {
                Some((diff_id, layer)) if !state.layers.contains_key(&diff_id) => {
                    next = next.max(layer.number + 1);
                    state.layers.insert(diff_id, layer);
                }
                _ => janitor.discard(&layout.layers().join(name))?,
            }
        }
        for algorithm in ["sha256", "sha512"] {
            let folder = layout.blobs().join(algorithm);
            for name in names(&folder)? {
                match format!("{algorithm}:{name}").parse() {
                    Ok(digest) => {
                        state.blobs.insert(digest);
                    }
                    Err(_) => janitor.discard(&folder.join(name))?,
                }
            }
        }
        state.snapshots = snapshot::load(&layout, &janitor, &state.layers)?;
        Ok(Self { layout, janitor, next: AtomicU64::new(next), state: Mutex::new(state) })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn janitor(&self) -> &Janitor {
        &self.janitor
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A new folder for work under way.
    pub(crate) fn staging(&self) -> Result<Staging, ImageError> {
        let path = self.layout.tmp().join(format!("{:x}", self.number()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| ImageError::io("create", &path, error))?;
        Ok(Staging::new(path, self.janitor.clone()))
    }

    pub(crate) fn pin(&self, digests: &[Digest]) {
        let mut state = self.state();
        for digest in digests {
            *state.pins.entry(digest.clone()).or_default() += 1;
        }
    }

    pub(crate) fn unpin(&self, digests: &[Digest]) {
        let mut state = self.state();
        for digest in digests {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                }
            }
        }
    }

    /// The bytes that a layer's files hold; nothing when it is not here.
    pub(crate) fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        self.state().layers.get(diff_id).map(|layer| layer.size)
    }

    /// Is everything here that containers of an image need? Compressed layers aren't.
    pub(crate) fn has_all(&self, id: &Digest, record: &Record) -> bool {
        let state = self.state();
        state.blobs.contains(id)
            && state.blobs.contains(&record.manifest)
            && record.layers.iter().all(|layer| state.layers.contains_key(layer))
    }

    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.layout.blob(digest);
        fs::read(&path).map_err(|error| ImageError::io("read", &path, error))
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.state().blobs.contains(digest)
    }

    /// Keeps a small blob whose digest the caller has checked, and pinned.
    pub(crate) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let staging = self.staging()?;
        let path = staging.path().join("blob");
        File::create_new(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| ImageError::io("write", &path, error))?;
        self.keep_blob(digest, &path)
    }

    /// Takes in a checked blob's file.
    pub(crate) fn keep_blob(&self, digest: &Digest, file: &Path) -> Result<(), ImageError> {
        let path = self.layout.blob(digest);
        let mut state = self.state();
        fs::rename(file, &path).map_err(|error| ImageError::io("create", &path, error))?;
        state.blobs.insert(digest.clone());
        Ok(())
    }

    /// Takes in a checked layer: a staging folder that holds nothing but `fs`.
    pub(crate) fn keep_layer(
        &self,
        diff_id: &Digest,
        size: u64,
        staging: &Staging,
    ) -> Result<(), ImageError> {
        let path = staging.path().join("layer.json");
        let description = Description { diff_id: diff_id.clone(), size };
        let bytes = serde_json::to_vec(&description).unwrap_or_default();
        fs::write(&path, bytes).map_err(|error| ImageError::io("write", &path, error))?;
        let mut state = self.state();
        if state.layers.contains_key(diff_id) {
            return Ok(());
        }
        let number = self.number();
        let place = self.layout.layer(number);
        fs::rename(staging.path(), &place).map_err(|e| ImageError::io("create", &place, e))?;
        state.layers.insert(diff_id.clone(), Layer { number, size });
        Ok(())
    }

    /// Writes everything to the disk, so that an index may name it. Blocks for as long as it takes.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        let root = self.layout.root();
        File::open(root)
            .and_then(|root| Ok(rustix::fs::syncfs(root)?))
            .map_err(|error| ImageError::io("sync", root, error))
    }

    /// Removes the blobs and layers that the index, the snapshots and the pins don't need.
    pub(crate) fn collect(&self, index: &Index) {
        let mut state = self.state();
        let state = &mut *state;
        let mut needed: BTreeSet<&Digest> = state.pins.keys().collect();
        for (id, record) in &index.images {
            needed.insert(id);
            needed.insert(&record.manifest);
            needed.extend(&record.blobs);
            needed.extend(&record.layers);
        }
        needed.extend(state.snapshots.values().flat_map(|snapshot| &snapshot.layers));
        let discard = |path: &Path| match self.janitor.discard(path) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, "unneeded content stays");
                true
            }
        };
        state.layers.retain(|diff_id, layer| {
            needed.contains(diff_id) || discard(&self.layout.layer(layer.number))
        });
        state.blobs.retain(|digest| needed.contains(digest) || discard(&self.layout.blob(digest)));
    }
}

fn describe(layout: &Layout, number: u64) -> Option<(Digest, Layer)> {
    let bytes = fs::read(layout.layer(number).join("layer.json")).ok()?;
    let Description { diff_id, size } = serde_json::from_slice(&bytes).ok()?;
    layout.layer_files(number).is_dir().then_some((diff_id, Layer { number, size }))
}
