//! One repository of one registry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};

use super::auth::{Authorization, Challenge, TokenAnswer, challenge};
use super::config::{Credentials, RegistryConfig, address, is_loopback};
use super::{Backoff, RegistryError, tls};
use crate::digest::{Digest, Hasher};
use crate::manifest::{self, MAX_DOCUMENT};
use crate::reference::Reference;

/// Longest error or token that is read.
const MAX_ANSWER: u64 = 64 << 10;

/// All registries, and the connections to them.
pub(crate) struct Registries {
    config: RegistryConfig,
    /// With the trusted files' paths: other files make another client.
    clients: Mutex<HashMap<String, reqwest::Client>>,
}

/// A repository, reached.
pub(crate) struct Session {
    pub(super) host: String,
    pub(super) repository: String,
    /// `https://host/v2`
    base: String,
    client: reqwest::Client,
    credentials: Option<Credentials>,
    put_at: Option<std::path::PathBuf>,
    authorization: Mutex<Authorization>,
}

/// A manifest or an index as it came, and the digest of its bytes.
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
}

impl Registries {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Mutex::new(HashMap::new()) }
    }

    /// Reaches a reference's registry and finds out how to talk to it.
    pub(crate) async fn session(&self, reference: &Reference) -> Result<Session, RegistryError> {
        let host = reference.registry();
        let settings = self.config.host(host);
        let ca_files = self.config.ca_files(host)?;
        let loopback = is_loopback(host);
        let schemes: &[&str] = match (settings.plain_http, loopback && ca_files.is_empty()) {
            (true, _) => &["http"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let mut session = Session {
            host: host.to_owned(),
            repository: reference.repository().to_owned(),
            base: String::new(),
            client: self.client(host, &ca_files, loopback)?,
            credentials: settings.credentials,
            put_at: self.config.ca_place(host),
            authorization: Mutex::new(Authorization::None),
        };
        let mut over_tls = None;
        for scheme in schemes {
            session.base = format!("{scheme}://{}/v2", address(host));
            let is_last = *scheme == schemes[schemes.len() - 1];
            match session.greet(*scheme == "http", is_last).await {
                Ok(()) => return Ok(session),
                Err(error) if !is_last && error.is_about_tls() => over_tls = Some(error),
                // Both failed. What is wrong with a certificate says more than the fact that a
                // port for TLS does not talk plain HTTP.
                Err(error) => {
                    return Err(over_tls
                        .filter(RegistryError::is_about_certificate)
                        .unwrap_or(error));
                }
            }
        }
        Err(over_tls.unwrap_or(RegistryError::Refused { host: host.to_owned() }))
    }

    fn client(
        &self,
        host: &str,
        ca_files: &[std::path::PathBuf],
        loopback: bool,
    ) -> Result<reqwest::Client, RegistryError> {
        let key = format!("{host} {ca_files:?}");
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = tls::client(ca_files, loopback)?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

impl Session {
    /// Asks for the API's root, which says whether to authenticate (distribution-spec,
    /// "Determining Support").
    async fn greet(&self, plain: bool, patient: bool) -> Result<(), RegistryError> {
        let url = format!("{}/", self.base);
        let response = match patient {
            true => self.patiently(|| self.client.get(&url)).await?,
            false => self.client.get(&url).send().await.map_err(|error| self.transport(&error))?,
        };
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                let challenge = self.challenge(&response)?;
                self.authenticate(challenge).await
            }
            // What a TLS server answers to plain HTTP.
            StatusCode::BAD_REQUEST if plain => Err(self.status(response, "a greeting").await),
            // Some registries have no root. The first real request will tell.
            _ => Ok(()),
        }
    }

    /// Fetches a manifest or an index by tag or digest, and checks it.
    pub(crate) async fn document(
        &self,
        reference: &Reference,
        version: Result<&str, &Digest>,
    ) -> Result<Fetched, RegistryError> {
        let name = version.unwrap_or_else(|digest| digest.as_str());
        let path = format!("manifests/{name}");
        let accept = manifest::ACCEPT.join(", ");
        let response = self.request(Method::GET, &path, &[(ACCEPT, accept)]).await?;
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

    /// Fetches a small blob whole, and checks it.
    pub(crate) async fn small_blob(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, RegistryError> {
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

    /// One request in the repository, authenticated; repeated when the network or the server has a
    /// bad moment. Other answers than success are for the caller.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Response, RegistryError> {
        let url = format!("{}/{}/{path}", self.base, self.repository);
        let send = || {
            let request = self.client.request(method.clone(), &url);
            let request = self.authorization().add_to(request);
            headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        };
        let response = self.patiently(send).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // The token has run out, or this repository wants another one.
        let challenge = self.challenge(&response)?;
        self.authenticate(challenge).await?;
        self.patiently(send).await
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

    async fn patiently(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match request().send().await {
                Err(error) => self.transport(&error),
                Ok(response) if is_bad_moment(response.status()) => {
                    self.status(response, "a request").await
                }
                Ok(response) => return Ok(response),
            };
            // A refused connection is an answer here; within a transfer it is a bad moment.
            let hopeless = matches!(error, RegistryError::Refused { .. }) || !error.is_transient();
            if hopeless || !backoff.wait(error.retry_after()).await {
                return Err(error);
            }
            tracing::debug!(registry = self.host, %error, "asking a registry again");
        }
    }

    fn challenge(&self, response: &Response) -> Result<Challenge, RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let texts: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        challenge(texts.iter().copied()).ok_or_else(|| RegistryError::Challenge {
            host: self.host.clone(),
            challenge: texts.join("; "),
        })
    }

    async fn authenticate(&self, challenge: Challenge) -> Result<(), RegistryError> {
        let authorization = match challenge {
            Challenge::Basic => match (&self.credentials, &*self.lock()) {
                (Some(_), Authorization::Basic(_)) => return Err(self.bad_credentials()),
                (Some(credentials), _) => Authorization::Basic(credentials.clone()),
                (None, _) => return Err(self.denied(String::new())),
            },
            Challenge::Bearer { realm, service, scope } => {
                Authorization::Bearer(self.token(&realm, service, scope).await?)
            }
        };
        *self.lock() = authorization;
        Ok(())
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, RegistryError> {
        let failed = |reason: String| RegistryError::Token {
            host: self.host.clone(),
            realm: realm.to_owned(),
            reason,
        };
        let url = reqwest::Url::parse(realm).map_err(|error| failed(error.to_string()))?;
        let name = url.host_str().unwrap_or_default();
        // Credentials that TLS has protected so far stay protected.
        if url.scheme() != "https" && self.base.starts_with("https") && !is_loopback(name) {
            return Err(failed("it has no TLS".to_owned()));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut query = vec![("scope", scope)];
        query.extend(service.map(|service| ("service", service)));
        let response = self
            .patiently(|| {
                let request = self.client.get(url.clone()).query(&query);
                match &self.credentials {
                    None => request,
                    Some(user) => request.basic_auth(&user.username, Some(&user.password)),
                }
            })
            .await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if self.credentials.is_some() => {
                return Err(self.bad_credentials());
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.denied(self.reason(response).await));
            }
            status => return Err(failed(format!("it answers {}", status.as_u16()))),
        }
        let bytes = self.body(response, "a token", MAX_ANSWER).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        answer.into_token().ok_or_else(|| failed("its answer holds none".to_owned()))
    }

    /// A response's body, but not more than `limit` bytes of it.
    async fn body(
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

    /// The error that a response which is no success stands for.
    async fn status(&self, response: Response, what: &str) -> RegistryError {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after =
            after.and_then(|text| text.parse().ok()).map(std::time::Duration::from_secs);
        let reason = self.reason(response).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(reason),
            _ => RegistryError::Status {
                host: self.host.clone(),
                what: what.to_owned(),
                status: status.as_u16(),
                reason,
                retry_after,
            },
        }
    }

    /// The registry's own words (distribution-spec, "Error Codes"), if there are any.
    async fn reason(&self, response: Response) -> String {
        let Ok(bytes) = self.body(response, "an error", MAX_ANSWER).await else {
            return String::new();
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = value["errors"][0]["message"].as_str().or(value["details"].as_str());
        text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
    }

    pub(super) fn transport(&self, error: &reqwest::Error) -> RegistryError {
        let seconds = tls::SILENCE.as_secs();
        RegistryError::transport(&self.host, self.put_at.clone(), seconds, error)
    }

    fn wrong_digest(&self, what: &str, want: &Digest, got: Digest) -> RegistryError {
        RegistryError::Digest {
            host: self.host.clone(),
            what: what.to_owned(),
            want: want.clone(),
            got,
        }
    }

    fn denied(&self, reason: String) -> RegistryError {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        RegistryError::Denied { host, repository, reason }
    }

    fn bad_credentials(&self) -> RegistryError {
        RegistryError::BadCredentials { host: self.host.clone() }
    }

    fn authorization(&self) -> Authorization {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Authorization> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_bad_moment(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}
