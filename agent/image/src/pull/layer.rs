//! One layer's way into the store.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::intake::{IntakeError, receive};
use crate::layer::{Expected, LayerError};
use crate::manifest::Blob;
use crate::progress::{Counter, LayerState, Row};
use crate::registry::Session;
use crate::store::{Inner, Lease};

/// Pieces of a transfer between the network and the disk; each is some 10 to 100 KiB.
const PIECES: usize = 32;

/// Sees that a layer, which the caller has pinned, is in the store.
pub(super) async fn fetch(
    store: &Arc<Inner>,
    session: &Arc<Session>,
    image: &str,
    blob: &Blob,
    diff_id: &Digest,
    row: &Row,
) -> Result<(), ImageError> {
    loop {
        if store.content.layer_size(diff_id).is_some() {
            row.counter().set(LayerState::Exists);
            return Ok(());
        }
        let key = (diff_id.clone(), blob.digest.clone());
        let (flight, begun) = store.layers.join(key, |counter| {
            let (store, session) = (Arc::clone(store), Arc::clone(session));
            transfer(store, session, blob.clone(), diff_id.clone(), counter)
        });
        row.follow(Arc::clone(&flight.progress));
        let result = flight.wait().await;
        match result {
            Some(Ok(())) => return Ok(()),
            // Another pull has tried, from another repository maybe: this one's may do better.
            _ if !begun => {}
            Some(Err(IntakeError::Other(error))) => return Err(error),
            Some(Err(IntakeError::Content(source))) => {
                let (image, digest) = (image.to_owned(), blob.digest.clone());
                return Err(ImageError::Layer { image, digest, source });
            }
            None => return Err(ImageError::Interrupted(image.to_owned())),
        }
    }
}

/// Downloads, checks and unpacks, all at the same time.
async fn transfer(
    store: Arc<Inner>,
    session: Arc<Session>,
    blob: Blob,
    diff_id: Digest,
    counter: Arc<Counter>,
) -> Result<(), IntakeError> {
    let _turn = store.downloads.acquire().await;
    counter.set(LayerState::Downloading);
    let (feed, source) = mpsc::channel(PIECES);
    // Its own lease: it may outlive the pull that began it by a moment, and then it cleans up.
    let lease = Lease::new(&store, vec![blob.digest.clone(), diff_id.clone()]);
    let expected =
        Expected { blob: Some((blob.digest.clone(), blob.size)), diff_id: Some(diff_id) };
    let unpacking = tokio::task::spawn_blocking({
        let store = Arc::clone(&store);
        move || {
            let received = receive(&store.content, source, expected)?;
            received.keep(&store.content)?;
            drop(lease);
            Ok::<_, IntakeError>(())
        }
    });
    let downloaded = session.blob(&blob.digest, blob.size, &feed, &counter).await;
    // Without an end, the other side gives up and cleans up.
    drop(feed);
    let unpacked = unpacking.await;
    match (downloaded, unpacked) {
        (Ok(()), Ok(Ok(()))) => {
            counter.set(LayerState::Done);
            Ok(())
        }
        (Err(error), Ok(Ok(()) | Err(IntakeError::Content(LayerError::Stopped)))) => {
            Err(ImageError::from(error).into())
        }
        // A disk that has filled up, or damaged data, explains more than what became of the rest.
        (_, Ok(Err(error))) => Err(error),
        (_, Err(_)) => Err(ImageError::Interrupted(blob.digest.to_string()).into()),
    }
}
