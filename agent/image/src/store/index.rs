//! Names and images: what is here, and what a name means. Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::ImageSummary;
use crate::platform::Platform;
use crate::reference::Reference;

const VERSION: u32 = 1;

/// All that the store knows by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// By id.
    pub(crate) images: BTreeMap<Digest, Record>,
    /// Full references, by tag and by digest, and the images that they mean.
    names: BTreeMap<String, Digest>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of the platform.
    pub(crate) manifest: Digest,
    /// Indexes, manifests and compressed layers that belong to it.
    pub(crate) blobs: BTreeSet<Digest>,
    /// Diff ids, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) created: Option<SystemTime>,
    pub(crate) platform: Platform,
}

/// What a removal has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone, in their short form.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<Digest>,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: VERSION, images: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl Index {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let index: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if index.version != VERSION {
            return Err(format!("its version is {}, want {VERSION}", index.version));
        }
        match index.names.values().find(|id| !index.images.contains_key(id)) {
            Some(id) => Err(format!("a name means image {id}, which is not in it")),
            None => Ok(index),
        }
    }

    /// Adds an image, or what is new about one that is here, under names that it takes over.
    pub(crate) fn insert(&mut self, id: Digest, record: Record, names: &[Reference]) {
        let known = self.images.entry(id.clone()).or_insert_with(|| record.clone());
        known.blobs.extend(record.blobs);
        known.manifest = record.manifest;
        for name in names {
            self.names.insert(name.to_string(), id.clone());
        }
    }

    /// Forgets images whose content is not there.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Digest, &Record) -> bool) {
        self.images.retain(|id, record| keep(id, record));
        let images = &self.images;
        self.names.retain(|_, id| images.contains_key(id));
    }

    /// The image that a name, a digest, an id or the start of an id means.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Digest>, ImageError> {
        if let Ok(digest) = name.parse::<Digest>() {
            let by_manifest =
                || self.images.iter().find(|(_, image)| image.blobs.contains(&digest));
            return Ok(match self.images.contains_key(&digest) {
                true => Some(digest),
                false => by_manifest().map(|(id, _)| id.clone()),
            });
        }
        let reference = name.parse::<Reference>();
        if let Some(id) = reference.as_ref().ok().and_then(|reference| self.by_reference(reference))
        {
            return Ok(Some(id));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !prefix.is_empty() && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let found: Vec<&Digest> =
                self.images.keys().filter(|id| id.hex().starts_with(prefix)).collect();
            return match found.as_slice() {
                [] => Ok(None),
                [id] => Ok(Some((*id).clone())),
                several => Err(ImageError::Ambiguous {
                    prefix: prefix.to_owned(),
                    candidates: several.iter().map(|id| id.short().to_owned()).collect(),
                }),
            };
        }
        reference.map(|_| None).map_err(ImageError::from)
    }

    /// With a digest, the image that has it, known under that repository; else what the tag means.
    pub(crate) fn by_reference(&self, reference: &Reference) -> Option<Digest> {
        let Some(digest) = reference.digest() else {
            return self.names.get(&reference.to_string()).cloned();
        };
        let pinned = reference.at(digest.clone()).to_string();
        self.names.get(&pinned).cloned().or_else(|| {
            let name = reference.name();
            let in_repository = self.names.iter().filter(|(text, _)| repository(text) == name);
            let mut ids = in_repository.map(|(_, id)| id);
            ids.find(|id| self.images[*id].blobs.contains(digest)).cloned()
        })
    }

    /// An image's names: tags, then digests.
    pub(crate) fn names_of(&self, id: &Digest) -> (Vec<String>, Vec<String>) {
        let own = self.names.iter().filter(|(_, image)| *image == id);
        own.map(|(name, _)| familiar(name)).partition(|name| !name.contains('@'))
    }

    pub(crate) fn summaries(&self) -> Vec<ImageSummary> {
        let summary = |(id, record): (&Digest, &Record)| {
            let (tags, digests) = self.names_of(id);
            ImageSummary {
                id: id.clone(),
                tags,
                digests,
                created: record.created,
                size: record.size,
                platform: record.platform.clone(),
            }
        };
        let mut all: Vec<_> = self.images.iter().map(summary).collect();
        // The newest first, as Docker lists them.
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// Removes a name, and the image with its last one, by Docker's rules: an id takes the image
    /// with all names of one repository; more of them, or snapshots in use, need force.
    pub(crate) fn remove(
        &mut self,
        name: &str,
        force: bool,
        users: impl Fn(&Digest) -> Vec<String>,
    ) -> Result<Removed, ImageError> {
        let id = self.find(name)?.ok_or_else(|| ImageError::NotHere(name.to_owned()))?;
        let own: Vec<String> = self
            .names
            .iter()
            .filter(|(_, image)| **image == id)
            .map(|(name, _)| name.clone())
            .collect();
        let asked = name.parse::<Reference>().ok().filter(|asked| {
            self.by_reference(asked).as_ref() == Some(&id) && name.parse::<Digest>().is_err()
        });
        let going: Vec<String> = match &asked {
            // A tag takes the repository's digests along when it is the last of its tags.
            Some(asked) => {
                let (tag, name) = (asked.to_string(), asked.name());
                let last = !own.iter().any(|other| {
                    *other != tag && repository(other) == name && !other.contains('@')
                });
                let goes = |other: &&String| **other == tag || (last && repository(other) == name);
                own.iter().filter(goes).cloned().collect()
            }
            None => {
                let repositories: BTreeSet<&str> =
                    own.iter().map(|name| repository(name)).collect();
                if repositories.len() > 1 && !force {
                    let names = self.names_of(&id).0;
                    return Err(ImageError::SeveralNames { image: id.short().to_owned(), names });
                }
                own.clone()
            }
        };
        let dies = going.len() == own.len();
        let users = if dies && !force { users(&id) } else { Vec::new() };
        if !users.is_empty() {
            return Err(ImageError::InUse { image: name.to_owned(), users });
        }
        let mut removed = Removed::default();
        for name in going {
            self.names.remove(&name);
            removed.untagged.push(familiar(&name));
        }
        if dies {
            self.images.remove(&id);
            removed.deleted.push(id);
        }
        Ok(removed)
    }
}

/// Registry and repository of a full name.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    name[slash..].find(':').map_or(name, |colon| &name[..slash + colon])
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
