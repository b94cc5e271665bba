//! All registries: how each is reached, and the connections to them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::auth::Authorization;
use super::config::{RegistryConfig, address, is_loopback};
use super::{RegistryError, Session, tls};
use crate::reference::Reference;

/// Hands out sessions.
pub(crate) struct Registries {
    config: RegistryConfig,
    /// By host.
    clients: Mutex<HashMap<String, (Trust, reqwest::Client)>>,
}

/// The files that a client has its authorities from, as they were then. When one has changed, a
/// new client is made.
type Trust = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

impl Registries {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Mutex::new(HashMap::new()) }
    }

    /// Reaches a reference's registry and finds out how to talk to it.
    ///
    /// A registry on this machine for which no authority is named may talk plain HTTP, as in
    /// Docker: TLS is tried first.
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
                    let certificate = over_tls.filter(RegistryError::is_about_certificate);
                    return Err(certificate.unwrap_or(error));
                }
            }
        }
        Err(over_tls.unwrap_or(RegistryError::Refused { host: host.to_owned() }))
    }

    fn client(
        &self,
        host: &str,
        ca_files: &[PathBuf],
        loopback: bool,
    ) -> Result<reqwest::Client, RegistryError> {
        let stat = |path: &PathBuf| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let trust: Trust = ca_files.iter().map(|path| (path.clone(), stat(path))).collect();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.get(host).filter(|(known, _)| *known == trust) {
            return Ok(client.clone());
        }
        let client = tls::client(ca_files, loopback)?;
        clients.insert(host.to_owned(), (trust, client.clone()));
        Ok(client)
    }
}
