//! The client side of registries (OCI distribution-spec, "Pull").
//!
//! A [`Session`] is one repository of one registry, reached and with its authentication known.
//! Whatever it hands out as a document has been checked against its digest; a blob's bytes are
//! checked by whoever reads them.

mod auth;
mod backoff;
mod blob;
mod config;
mod documents;
mod error;
mod login;
mod registries;
mod session;
mod tls;

pub use config::{Credentials, HostConfig, RegistryConfig};
pub use error::RegistryError;

pub(crate) use backoff::Backoff;
pub(crate) use registries::Registries;
pub(crate) use session::Session;
