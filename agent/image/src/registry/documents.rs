//! Small things that are fetched whole and checked: manifests, indexes, configurations.

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};

use super::{Backoff, RegistryError, Session};
use crate::digest::{Digest, Hasher};
use crate::manifest::{self, MAX_DOCUMENT};
use crate::reference::Reference;

/// A manifest or an index as it came, and the digest of its bytes.
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
}

impl Session {
    /// Fetches a manifest or an index by tag or digest, and checks it.
    pub(crate) async fn document(
        &self,
        reference: &Reference,
        version: Result<&str, &Digest>,
    ) -> Result<Fetched, RegistryError> {
        again(|| self.document_once(reference, version)).await
    }

    /// Fetches a small blob whole, and checks it.
    pub(crate) async fn small_blob(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, RegistryError> {
        again(|| self.small_blob_once(digest, size)).await
    }

    async fn document_once(
        &self,
        reference: &Reference,
        version: Result<&str, &Digest>,
    ) -> Result<Fetched, RegistryError> {
        let name = version.unwrap_or_else(|digest| digest.as_str());
        let path = format!("manifests/{name}");
        let accept = manifest::ACCEPT.join(", ");
        let headers = [(ACCEPT, accept)];
        let response = self.request(Method::GET, &path, &headers).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NotFound {
                    reference: reference.clone(),
                    host: self.host.clone(),
                });
            }
            _ => return Err(self.status(response, &format!("the manifest {name}")).await),
        }
        let header = response.headers().get(CONTENT_TYPE);
        let content_type = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = self.body(response, "a manifest", MAX_DOCUMENT).await?;
        let mut hasher = Hasher::for_digest(version.err());
        hasher.update(&bytes);
        let got = hasher.finish();
        match version.err() {
            Some(want) if *want != got => Err(self.wrong_digest("a manifest", want, got)),
            _ => Ok(Fetched { digest: got, content_type, bytes }),
        }
    }

    async fn small_blob_once(&self, digest: &Digest, size: u64) -> Result<Bytes, RegistryError> {
        let what = "an image configuration";
        if size > MAX_DOCUMENT {
            let (host, what) = (self.host.clone(), what.to_owned());
            return Err(RegistryError::TooLong { host, what, limit: MAX_DOCUMENT });
        }
        let response = self.request(Method::GET, &format!("blobs/{digest}"), &[]).await?;
        let response = self.blob_found(response, digest).await?;
        let bytes = self.body(response, what, size).await?;
        let mut hasher = Hasher::for_digest(Some(digest));
        hasher.update(&bytes);
        let got = hasher.finish();
        if got == *digest { Ok(bytes) } else { Err(self.wrong_digest(what, digest, got)) }
    }

    pub(super) async fn blob_found(
        &self,
        response: Response,
        digest: &Digest,
    ) -> Result<Response, RegistryError> {
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::BlobNotFound {
                host: self.host.clone(),
                repository: self.repository.clone(),
                digest: digest.clone(),
            }),
            _ => Err(self.status(response, &format!("the blob {digest}")).await),
        }
    }

    /// A response's body, but not more than `limit` bytes of it.
    pub(super) async fn body(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if (body.len() + piece.len()) as u64 > limit {
                let (host, what) = (self.host.clone(), what.to_owned());
                return Err(RegistryError::TooLong { host, what, limit });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn wrong_digest(&self, what: &str, want: &Digest, got: Digest) -> RegistryError {
        RegistryError::Digest {
            host: self.host.clone(),
            what: what.to_owned(),
            want: want.clone(),
            got,
        }
    }
}

/// Begins again when a connection breaks in the middle of an answer. Requests that are not
/// answered at all have been repeated already.
async fn again<T, F: Future<Output = Result<T, RegistryError>>>(
    attempt: impl Fn() -> F,
) -> Result<T, RegistryError> {
    let mut backoff = Backoff::default();
    loop {
        match attempt().await {
            Err(RegistryError::Broken { .. }) if backoff.wait(None).await => {}
            result => return result,
        }
    }
}
