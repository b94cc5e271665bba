//! Pulls: from a name to an image that is here, whole and verified.
//!
//! One task does the work for all who ask for the same thing; each of them hears of its progress.

mod layer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;
use crate::manifest::{self, Document, Manifest, ManifestError};
use crate::platform::Platform;
use crate::progress::{Board, PullEvent, Row, Seen};
use crate::reference::Reference;
use crate::registry::Session;
use crate::store::{ImageStore, Inner, Lease, Record};

/// How often a waiter hears of progress.
const TELL: Duration = Duration::from_millis(100);

/// What a registry says about an image, checked, before its layers are fetched.
struct Plan {
    /// What the name means there: an index or a manifest.
    top: Digest,
    manifest_digest: Digest,
    manifest: Manifest,
    /// Manifest, index if there is one.
    documents: Vec<(Digest, Bytes)>,
}

impl ImageStore {
    /// Fetches an image from its registry, unless it is here, and tells `progress` about it. What
    /// others are pulling at the same time is shared. Dropped, it stops and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When the registry can't be reached, doesn't have or give the image, has no variant of it for
    /// the platform, or what it gives is damaged; when the disk is full.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        mut progress: impl FnMut(PullEvent) + Send,
    ) -> Result<Image, ImageError> {
        let name = reference.familiar();
        let key = (reference.to_string(), platform.clone());
        let (flight, _) = self.inner.pulls.join(key, |board| {
            let (reference, platform) = (reference.clone(), platform.clone());
            pull(Arc::clone(&self.inner), reference, platform, board)
        });
        let mut seen = Seen::default();
        let mut ticks = tokio::time::interval(TELL);
        let result = {
            let wait = flight.wait();
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    result = &mut wait => break result,
                    _ = ticks.tick() => flight.progress.tell(&mut seen, &mut progress),
                }
            }
        };
        flight.progress.tell(&mut seen, &mut progress);
        let id = result.unwrap_or_else(|| Err(ImageError::Interrupted(name.clone())))?;
        let image = self.blocking(&name, move |inner| inner.image(&id)).await?;
        image.ok_or(ImageError::NotHere(name))
    }
}

/// The shared work. Returns the image's id.
async fn pull(
    store: Arc<Inner>,
    reference: Reference,
    platform: Platform,
    board: Arc<Board>,
) -> Result<Digest, ImageError> {
    if let Some((id, digest)) = pinned_here(&store, &reference, &platform) {
        let _ = board.resolved.set(digest);
        return Ok(id);
    }
    let name = reference.familiar();
    let session = Arc::new(store.registries.session(&reference).await?);
    let plan = plan(&session, &reference, &platform).await?;
    let _ = board.resolved.set(plan.top.clone());
    let id = plan.manifest.config.digest.clone();

    let documents = plan.documents.iter().map(|(digest, _)| digest);
    let blobs = plan.manifest.layers.iter().map(|layer| &layer.digest);
    let own: Vec<Digest> = documents.chain(blobs).chain([&id]).cloned().collect();
    let blob_lease = Lease::new(&store, own.clone());
    let config = fetch_config(&store, &session, &plan.manifest).await?;
    let broken = |what, source| ImageError::Manifest { image: name.clone(), what, source };
    let (config_read, diff_ids) =
        manifest::read_config(&config).map_err(|source| broken("configuration", source))?;
    let (layers, count) = (plan.manifest.layers.len(), diff_ids.len());
    if layers != count {
        return Err(broken("manifest", ManifestError::Layers { layers, diff_ids: count }));
    }
    let own_platform = manifest::platform_of(&config_read).unwrap_or_else(|| platform.clone());
    if platform.rank(&own_platform).is_none() {
        let (wanted, available) = (platform, vec![own_platform]);
        return Err(ImageError::NoPlatform { image: name, wanted, available });
    }
    let layer_lease = Lease::new(&store, diff_ids.clone());

    let rows: Vec<Row> =
        plan.manifest.layers.iter().map(|l| Row::new(l.digest.clone(), l.size)).collect();
    let rows = board.rows.get_or_init(|| rows);
    let wanted = plan.manifest.layers.iter().zip(&diff_ids).zip(rows);
    try_join_all(
        wanted.map(|((blob, diff_id), row)| {
            layer::fetch(&store, &session, &name, blob, diff_id, row)
        }),
    )
    .await?;

    let size = diff_ids.iter().filter_map(|id| store.content.layer_size(id)).sum();
    let created = config_read.created().as_deref().and_then(|text| text.parse().ok());
    let record = Record {
        manifest: plan.manifest_digest,
        blobs: own.into_iter().filter(|digest| *digest != id).collect(),
        layers: diff_ids,
        size,
        created: created.map(|time: jiff::Timestamp| time.into()),
        platform: own_platform,
    };
    let mut names = vec![reference.at(plan.top)];
    if reference.digest().is_none() {
        names.push(reference.clone());
    }
    let mut documents = plan.documents;
    documents.push((id.clone(), config));
    let new = id.clone();
    store
        .blocking(&name, move |store| {
            let mut changed = !store.catalog.current().images.contains_key(&new);
            for (digest, bytes) in &documents {
                if !store.content.has_blob(digest) {
                    store.content.write_blob(digest, bytes)?;
                    changed = true;
                }
            }
            // What the index names must be on the disk before it.
            if changed {
                store.content.sync()?;
            }
            store.catalog.update(|index| {
                index.insert(new, record, &names);
                Ok(())
            })?;
            // Held by this thread, which goes on even if nobody waits for the pull any more.
            drop((blob_lease, layer_lease));
            Ok(())
        })
        .await?;
    tracing::info!(image = name, id = %id, "image pulled");
    Ok(id)
}

/// The image that a digest pins, if it is here: then there is nothing to ask a registry.
fn pinned_here(
    store: &Inner,
    reference: &Reference,
    platform: &Platform,
) -> Option<(Digest, Digest)> {
    let digest = reference.digest()?;
    let index = store.catalog.current();
    let id = index.by_reference(reference)?;
    let record = index.images.get(&id)?;
    platform.rank(&record.platform).map(|_| (id, digest.clone()))
}

/// Asks the registry what the image is.
async fn plan(
    session: &Session,
    reference: &Reference,
    platform: &Platform,
) -> Result<Plan, ImageError> {
    let image = reference.familiar();
    let broken = |source| ImageError::Manifest { image: image.clone(), what: "manifest", source };
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Err(digest),
        (None, tag) => Ok(tag.unwrap_or("latest")),
    };
    let top = session.document(reference, version).await?;
    let document = manifest::read(top.content_type.as_deref(), &top.bytes).map_err(broken)?;
    let index = match document {
        Document::Manifest(manifest) => {
            return Ok(Plan {
                top: top.digest.clone(),
                manifest_digest: top.digest.clone(),
                manifest,
                documents: vec![(top.digest, top.bytes)],
            });
        }
        Document::Index(index) => index,
    };
    let chosen = index.choose(platform).ok_or_else(|| ImageError::NoPlatform {
        image: image.clone(),
        wanted: platform.clone(),
        available: index.platforms(),
    })?;
    let own = session.document(reference, Err(&chosen.digest)).await?;
    match manifest::read(own.content_type.as_deref(), &own.bytes).map_err(broken)? {
        Document::Manifest(manifest) => Ok(Plan {
            top: top.digest.clone(),
            manifest_digest: own.digest.clone(),
            manifest,
            documents: vec![(own.digest, own.bytes), (top.digest, top.bytes)],
        }),
        Document::Index(_) => Err(broken(ManifestError::Type("an index in an index".to_owned()))),
    }
}

async fn fetch_config(
    store: &Arc<Inner>,
    session: &Session,
    manifest: &Manifest,
) -> Result<Bytes, ImageError> {
    let config = &manifest.config;
    if store.content.has_blob(&config.digest) {
        let digest = config.digest.clone();
        let read =
            store.blocking(config.digest.as_str(), move |store| store.content.read_blob(&digest));
        return read.await.map(Bytes::from);
    }
    Ok(session.small_blob(&config.digest, config.size).await?)
}
