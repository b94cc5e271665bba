//! HTTP clients: one for each registry, with the authorities that are trusted for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::RegistryError;

/// The longest wait for a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// The longest silence on a connection.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;

/// A client that trusts the system's authorities and those in `ca_files`.
pub(super) fn client(
    ca_files: &[PathBuf],
    loopback: bool,
) -> Result<reqwest::Client, RegistryError> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        // A host without ca-certificates can still reach public registries.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in ca_files {
        let wrong = |reason: String| RegistryError::CaFile { path: path.clone(), reason };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.len() == before {
            return Err(wrong("there is no PEM certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring's provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Layers come side by side: with a connection each, none waits for another's window.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut builder = reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .http1_only()
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > REDIRECTS {
                attempt.error("too many redirects")
            } else if from_tls && attempt.url().scheme() != "https" {
                attempt.error("a redirect leads from https to http")
            } else {
                attempt.follow()
            }
        }));
    if loopback {
        // A proxy's loopback is not ours.
        builder = builder.no_proxy();
    }
    Ok(builder.build().expect("a client of fixed settings"))
}
