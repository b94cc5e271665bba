//! A session's authentication: what a registry asks for, and getting it.

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Response, StatusCode};

use super::auth::{Authorization, Challenge, TokenAnswer, challenge};
use super::config::is_loopback;
use super::session::MAX_ANSWER;
use super::{RegistryError, Session};

impl Session {
    pub(super) fn challenge(&self, response: &Response) -> Result<Challenge, RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let texts: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        challenge(texts.iter().copied()).ok_or_else(|| RegistryError::Challenge {
            host: self.host.clone(),
            challenge: texts.join("; "),
        })
    }

    pub(super) async fn authenticate(&self, challenge: Challenge) -> Result<(), RegistryError> {
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

    fn bad_credentials(&self) -> RegistryError {
        RegistryError::BadCredentials { host: self.host.clone() }
    }
}
