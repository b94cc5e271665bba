//! One repository of one registry.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderName, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};

use super::auth::Authorization;
use super::config::Credentials;
use super::error::is_bad_moment;
use super::{Backoff, RegistryError};

/// Longest error or token that is read.
pub(super) const MAX_ANSWER: u64 = 64 << 10;

/// A repository, reached.
pub(crate) struct Session {
    pub(super) host: String,
    pub(super) repository: String,
    /// `https://host/v2`
    pub(super) base: String,
    pub(super) client: reqwest::Client,
    pub(super) credentials: Option<Credentials>,
    pub(super) put_at: Option<PathBuf>,
    pub(super) authorization: Mutex<Authorization>,
}

impl Session {
    /// Asks for the API's root, which says whether to authenticate (distribution-spec,
    /// "Determining Support").
    pub(super) async fn greet(&self, plain: bool, patient: bool) -> Result<(), RegistryError> {
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

    pub(super) async fn patiently(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match request().send().await {
                Err(error) => self.transport(&error),
                Ok(response) if is_bad_moment(response.status().as_u16()) => {
                    self.status(response, "a request").await
                }
                Ok(response) => return Ok(response),
            };
            let hopeless = error.is_absence() || !error.is_transient();
            if hopeless || !backoff.wait(error.retry_after()).await {
                return Err(error);
            }
            tracing::debug!(registry = self.host, %error, "asking a registry again");
        }
    }

    /// The error that a response which is no success stands for.
    pub(super) async fn status(&self, response: Response, what: &str) -> RegistryError {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
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
    pub(super) async fn reason(&self, response: Response) -> String {
        let Ok(bytes) = self.body(response, "an error", MAX_ANSWER).await else {
            return String::new();
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = value["errors"][0]["message"].as_str().or(value["details"].as_str());
        text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
    }

    pub(super) fn transport(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::transport(&self.host, self.put_at.clone(), error)
    }

    pub(super) fn denied(&self, reason: String) -> RegistryError {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        RegistryError::Denied { host, repository, reason }
    }

    fn authorization(&self) -> Authorization {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Authorization> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
