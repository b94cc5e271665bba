//! What an operator says about registries.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::RegistryError;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// By host and, if it isn't the usual one, port, as in image names: `registry.lan:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// A folder with a folder for each registry (`registry.lan:5000/ca.crt`), as Docker's
    /// `/etc/docker/certs.d`. Every `*.crt` in it is trusted for that registry.
    pub certs_dir: Option<PathBuf>,
    /// Layers that are downloaded at once.
    pub max_downloads: usize,
}

/// How one registry is reached.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Talk plain HTTP to it.
    pub plain_http: bool,
    /// Files of PEM certificates to trust besides the system's and those in `certs_dir`.
    pub ca_files: Vec<PathBuf>,
    /// Whom to be there; nobody when unset.
    pub credentials: Option<Credentials>,
}

/// A user's name and password at a registry.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.username)
    }
}

impl Default for RegistryConfig {
    /// No hosts, no folder, three downloads at once as in Docker.
    fn default() -> Self {
        Self { hosts: BTreeMap::new(), certs_dir: None, max_downloads: 3 }
    }
}

impl RegistryConfig {
    pub(super) fn host(&self, host: &str) -> HostConfig {
        self.hosts.get(host).cloned().unwrap_or_default()
    }

    /// The certificate files for a host, in a stable order. Reads a folder.
    pub(super) fn ca_files(&self, host: &str) -> Result<Vec<PathBuf>, RegistryError> {
        let mut files = self.host(host).ca_files;
        if let Some(folder) = self.certs_folder(host) {
            files.extend(certificates_in(&folder).map_err(|source| RegistryError::CaFile {
                path: folder.clone(),
                reason: source.to_string(),
            })?);
        }
        Ok(files)
    }

    /// Where a certificate for a host belongs, for messages.
    pub(super) fn ca_place(&self, host: &str) -> Option<PathBuf> {
        Some(self.certs_folder(host)?.join("ca.crt"))
    }

    /// Hosts come from checked image names and hold no slash.
    fn certs_folder(&self, host: &str) -> Option<PathBuf> {
        Some(self.certs_dir.as_ref()?.join(host))
    }
}

fn certificates_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The address that requests for a registry's name go to: Docker Hub's differs from its name.
pub(super) fn address(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// Is the host this machine itself? Such registries may talk plain HTTP, as in Docker.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "localhost.example.com", "10.0.0.1", "[fd00::1]:80", "127.a.b"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials { username: "u".into(), password: "secret".into() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
