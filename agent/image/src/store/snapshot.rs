//! Snapshots: a container's writable layer on an image's layers.
//!
//! What a snapshot stands on is in two symbolic links, `image` (an id) and `layers` (numbers, the
//! top first). A link's target is metadata, which the file system's journal keeps in order with
//! the folder itself, so a container's start has no fsync on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::content::{Content, Layer};
use super::janitor::Janitor;
use super::layout::{Layout, names};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;

/// The longest id; the folder's name must leave room in the mount's options.
const MAX_ID: usize = 128;

/// The folders of one overlay mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The image's layers, the top one first; never empty.
    pub lower: Vec<PathBuf>,
    /// What the container writes.
    pub upper: PathBuf,
    /// Overlayfs's own, on the same file system.
    pub work: PathBuf,
}

/// What a snapshot needs.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    image: Digest,
    /// Diff ids.
    pub(super) layers: BTreeSet<Digest>,
    /// The top first.
    numbers: Vec<u64>,
}

impl Content {
    pub(crate) fn prepare_snapshot(&self, id: &str, image: &Image) -> Result<Snapshot, ImageError> {
        if !is_id(id) {
            return Err(ImageError::SnapshotName(id.to_owned()));
        }
        // Held throughout, so that no layer goes while its number is written down.
        let mut state = self.state();
        if let Some(holding) = state.snapshots.get(id) {
            if holding.image != image.id {
                let (id, image) = (id.to_owned(), holding.image.clone());
                return Err(ImageError::SnapshotTaken { id, image });
            }
            return Ok(snapshot(self.layout(), id, &holding.numbers));
        }
        let mut layers = BTreeSet::new();
        let mut numbers = Vec::new();
        for diff_id in image.layers.iter().rev() {
            let layer = state.layers.get(diff_id);
            let layer = layer.ok_or_else(|| ImageError::ContentGone { image: image.id.clone() })?;
            // Overlayfs refuses a folder twice. The upper one has all that the lower one has.
            if layers.insert(diff_id.clone()) {
                numbers.push(layer.number);
            }
        }
        let snapshot = snapshot(self.layout(), id, &numbers);
        let staging = self.staging()?;
        let made = make(staging.path(), &snapshot.lower[0], &image.id, &numbers);
        made.map_err(|error| ImageError::io("create a snapshot in", staging.path(), error))?;
        let place = self.layout().snapshot(id);
        fs::rename(staging.path(), &place).map_err(|e| ImageError::io("create", &place, e))?;
        state.snapshots.insert(id.to_owned(), Holding { image: image.id.clone(), layers, numbers });
        Ok(snapshot)
    }

    /// A snapshot's folders, and the id of its image.
    pub(crate) fn snapshot(&self, id: &str) -> Option<(Snapshot, Digest)> {
        let state = self.state();
        let holding = state.snapshots.get(id)?;
        Some((snapshot(self.layout(), id, &holding.numbers), holding.image.clone()))
    }

    /// Returns the image that it was of.
    pub(crate) fn remove_snapshot(&self, id: &str) -> Result<Option<Digest>, ImageError> {
        let mut state = self.state();
        if !state.snapshots.contains_key(id) {
            return Ok(None);
        }
        self.janitor().discard(&self.layout().snapshot(id))?;
        Ok(state.snapshots.remove(id).map(|holding| holding.image))
    }

    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.state().snapshots.keys().cloned().collect()
    }

    /// The snapshots of an image.
    pub(crate) fn users(&self, image: &Digest) -> Vec<String> {
        let state = self.state();
        let of = state.snapshots.iter().filter(|(_, holding)| holding.image == *image);
        of.map(|(id, _)| id.clone()).collect()
    }
}

/// Reads all snapshots. One whose layers are gone is of no use any more.
pub(super) fn load(
    layout: &Layout,
    janitor: &Janitor,
    layers: &BTreeMap<Digest, Layer>,
) -> Result<BTreeMap<String, Holding>, ImageError> {
    let diff_ids: BTreeMap<u64, &Digest> =
        layers.iter().map(|(diff_id, layer)| (layer.number, diff_id)).collect();
    let mut snapshots = BTreeMap::new();
    for id in names(&layout.snapshots())? {
        let folder = layout.snapshot(&id);
        match read(&folder, &diff_ids) {
            Some(holding) if is_id(&id) => {
                snapshots.insert(id, holding);
            }
            _ => {
                tracing::warn!(snapshot = id, "removing a snapshot whose layers are gone");
                janitor.discard(&folder)?;
            }
        }
    }
    Ok(snapshots)
}

fn read(folder: &Path, diff_ids: &BTreeMap<u64, &Digest>) -> Option<Holding> {
    let target = |name| fs::read_link(folder.join(name)).ok()?.into_os_string().into_string().ok();
    let image = target("image")?.parse().ok()?;
    let text = target("layers")?;
    let numbers = text.split('.').filter(|part| !part.is_empty());
    let numbers: Vec<u64> =
        numbers.map(|part| u64::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let layers = numbers.iter().map(|number| diff_ids.get(number).copied().cloned());
    Some(Holding { image, layers: layers.collect::<Option<_>>()?, numbers })
}

fn snapshot(layout: &Layout, id: &str, numbers: &[u64]) -> Snapshot {
    let folder = layout.snapshot(id);
    let mut lower: Vec<_> = numbers.iter().map(|number| layout.layer_files(*number)).collect();
    if lower.is_empty() {
        lower.push(layout.empty());
    }
    Snapshot { lower, upper: folder.join("upper"), work: folder.join("work") }
}

/// An overlay's root has the owner and mode of its upper folder, so that gets the image's.
fn make(folder: &Path, top: &Path, image: &Digest, numbers: &[u64]) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder.join("work"))?;
    let upper = folder.join("upper");
    DirBuilder::new().mode(0o755).create(&upper)?;
    let like = fs::metadata(top)?;
    chown(&upper, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    symlink(image.as_str(), folder.join("image"))?;
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:x}")).collect();
    // A link can't be empty: the dot stands for no layers.
    symlink(format!(".{}", numbers.join(".")), folder.join("layers"))
}

/// One plain name, which no other meaning hides in: no dots first, no colon, which separates the
/// folders of an overlay's options.
fn is_id(id: &str) -> bool {
    id.len() <= MAX_ID
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
