//! What can go wrong between a node and a registry, told apart by what to do about it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::tls;
use crate::digest::Digest;
use crate::reference::Reference;

/// Why a registry did not give what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum RegistryError {
    #[error("image {reference} is not in the registry {host}; check its name and tag")]
    NotFound { reference: Reference, host: String },
    #[error("registry {host} has lost the blob {digest} of {repository}; push the image again")]
    BlobNotFound { host: String, repository: String, digest: Digest },
    #[error(
        "registry {host} denies access to {repository}{}; it does not exist there, or needs credentials that may read it",
        detail(.reason)
    )]
    Denied { host: String, repository: String, reason: String },
    #[error("registry {host} refused the user name and password; check its credentials")]
    BadCredentials { host: String },
    #[error("registry {host} refuses connections; is it running and is its port right?")]
    Refused { host: String },
    #[error(
        "the name of registry {host} can't be resolved: {reason}; check the name and this host's DNS"
    )]
    Name { host: String, reason: String },
    #[error(
        "registry {host} can't be reached: {reason}; check the address and this host's network"
    )]
    Unreachable { host: String, reason: String },
    #[error(
        "registry {host} does not answer within {seconds} s; check the network and firewalls between"
    )]
    Timeout { host: String, seconds: u64 },
    #[error("the certificate of registry {host} is signed by an authority that this host does not trust{}", place(.put_at))]
    UnknownAuthority { host: String, put_at: Option<PathBuf> },
    #[error("the certificate of registry {host} is not valid: {reason}")]
    Certificate { host: String, reason: String },
    #[error(
        "registry {host} talks plain HTTP; give it TLS, or allow plain HTTP for it in this node's configuration"
    )]
    PlainHttp { host: String },
    #[error("the connection to registry {host} broke: {reason}")]
    Broken { host: String, reason: String },
    #[error("registry {host} answers {status} to {what}{}", detail(.reason))]
    Status {
        host: String,
        what: String,
        status: u16,
        reason: String,
        retry_after: Option<Duration>,
    },
    #[error("registry {host} sends {what} longer than the {limit} bytes allowed")]
    TooLong { host: String, what: String, limit: u64 },
    #[error(
        "registry {host} serves {what} that does not match its digest: want {want}, got {got}; it or something on the way to it serves damaged data"
    )]
    Digest { host: String, what: String, want: Digest, got: Digest },
    #[error(
        "registry {host} asks for authentication in a way that is not understood: {challenge:?}"
    )]
    Challenge { host: String, challenge: String },
    #[error("the token server {realm} of registry {host} gives no token: {reason}")]
    Token { host: String, realm: String, reason: String },
    #[error("the certificates in {path} can't be used: {reason}")]
    CaFile { path: PathBuf, reason: String },
}

fn detail(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn place(put_at: &Option<PathBuf>) -> String {
    match put_at {
        Some(path) => format!("; put the authority's certificate at {}", path.display()),
        None => "; name the authority's certificate in this node's configuration".to_owned(),
    }
}

impl RegistryError {
    /// Sorts what the HTTP client met.
    pub(super) fn transport(host: &str, put_at: Option<PathBuf>, error: &reqwest::Error) -> Self {
        let host = host.to_owned();
        for cause in causes(error) {
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::tls(host, put_at, tls);
            }
            let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            match io {
                Some(io::ErrorKind::ConnectionRefused) => return Self::Refused { host },
                Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                    return Self::Unreachable { host, reason: reason(cause) };
                }
                _ => {}
            }
            // hyper-util keeps its kinds to itself; its words are stable.
            let text = cause.to_string();
            if let Some(reason) = text.strip_prefix("failed to lookup address information: ") {
                return Self::Name { host, reason: reason.to_lowercase() };
            }
        }
        if error.is_timeout() {
            let limit = if error.is_connect() { tls::CONNECT } else { tls::SILENCE };
            return Self::Timeout { host, seconds: limit.as_secs() };
        }
        Self::Broken { host, reason: causes(error).last().map(reason).unwrap_or_default() }
    }

    fn tls(host: String, put_at: Option<PathBuf>, error: &rustls::Error) -> Self {
        use rustls::{CertificateError, Error, InvalidMessage};
        match error {
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownAuthority { host, put_at },
            Error::InvalidCertificate(reason) => {
                Self::Certificate { host, reason: reason.to_string() }
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainHttp { host },
            other => Self::Broken { host, reason: other.to_string() },
        }
    }

    /// Could the next attempt go better?
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. } => true,
            Self::Status { status, .. } => is_bad_moment(*status),
            _ => false,
        }
    }

    /// Was no connection made at all? For a first request that is an answer; within a transfer it
    /// is a bad moment.
    pub(super) const fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreachable { .. })
    }

    /// How long the registry asked to be left alone.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Could it be that the port talks plain HTTP? Some servers say so, others hang up.
    pub(super) const fn is_about_tls(&self) -> bool {
        matches!(self, Self::PlainHttp { .. } | Self::Broken { .. }) || self.is_about_certificate()
    }

    /// Was there a certificate, and is it at fault?
    pub(super) const fn is_about_certificate(&self) -> bool {
        matches!(self, Self::UnknownAuthority { .. } | Self::Certificate { .. })
    }
}

/// Statuses that say nothing about the request itself.
pub(super) const fn is_bad_moment(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=504)
}

/// An error's words without the number that follows the operating system's.
fn reason(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// An error and its causes, outermost first. An `io::Error` hides the error that it wraps from
/// `source`, so it is opened.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| {
        let cause: &'a (dyn Error + 'static) = *cause;
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}
