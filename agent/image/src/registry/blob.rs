//! Transfers of large blobs, taken up again where they broke.

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::{Backoff, RegistryError, Session};
use crate::digest::Digest;
use crate::layer::Feed;
use crate::progress::Counter;

impl Session {
    /// Sends a blob's bytes into `feed`, and its end when as many as `size` have come.
    ///
    /// Returns early and without an error when nobody reads any more: the reader knows why.
    pub(crate) async fn blob(
        &self,
        digest: &Digest,
        size: u64,
        feed: &tokio::sync::mpsc::Sender<Feed>,
        progress: &Counter,
    ) -> Result<(), RegistryError> {
        let mut backoff = Backoff::default();
        let mut got = 0;
        loop {
            let before = got;
            let error = match self.blob_from(digest, size, &mut got, feed, progress).await {
                Ok(true) => {
                    // Longer or shorter than it should be is for the reader to say.
                    let _ = feed.send(Feed::End).await;
                    return Ok(());
                }
                Ok(false) => return Ok(()),
                Err(error) => error,
            };
            if got > before {
                backoff.progress();
            }
            if !error.is_transient() || !backoff.wait(error.retry_after()).await {
                return Err(error);
            }
            tracing::debug!(blob = %digest, at = got, %error, "taking a transfer up again");
        }
    }

    /// One attempt. Returns whether the reader still reads.
    async fn blob_from(
        &self,
        digest: &Digest,
        size: u64,
        got: &mut u64,
        feed: &tokio::sync::mpsc::Sender<Feed>,
        progress: &Counter,
    ) -> Result<bool, RegistryError> {
        let range = (*got > 0).then(|| (RANGE, format!("bytes={got}-")));
        let headers: Vec<_> = range.into_iter().collect();
        let response = self.request(Method::GET, &format!("blobs/{digest}"), &headers).await?;
        let mut response = self.blob_found(response, digest).await?;
        // A server that knows no ranges starts again: pass over what is here already.
        let mut skip = if starts_at(&response, *got) { 0 } else { *got };
        while let Some(mut piece) =
            response.chunk().await.map_err(|error| self.transport(&error))?
        {
            let passed = skip.min(piece.len() as u64);
            skip -= passed;
            let _ = piece.split_to(passed as usize);
            *got += piece.len() as u64;
            progress.add(piece.len() as u64);
            if !piece.is_empty() && feed.send(Feed::Data(piece)).await.is_err() {
                return Ok(false);
            }
        }
        if *got < size {
            let reason = format!("the blob {digest} ended after {got} of {size} bytes");
            return Err(RegistryError::Broken { host: self.host.clone(), reason });
        }
        Ok(true)
    }
}

fn starts_at(response: &Response, offset: u64) -> bool {
    if offset == 0 {
        return true;
    }
    let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && header.is_some_and(|text| text.starts_with(&format!("bytes {offset}-")))
}
