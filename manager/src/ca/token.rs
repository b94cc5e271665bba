//! Join tokens: what a host is given to become a node. A token pins the cluster's root by its digest,
//! so that the host can tell the cluster from one who only claims to be it, and holds the secret that
//! the cluster knows the host by.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use x509_parser::pem::{Pem, parse_x509_pem};

const PREFIX: &str = "SHOAL-1-";

/// A token: `SHOAL-1-DIGEST-SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the root certificate's DER, in hexadecimal.
    digest: String,
    secret: String,
}

/// A text that is no token, or a root that is not the token's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Of another form.
    #[error(
        "that is no join token: one begins with {PREFIX}; get it with \"ctl cluster join-token\" on a manager"
    )]
    Form,
    /// A PEM that holds no certificate.
    #[error("the cluster's root certificate can't be read: {0}")]
    Root(String),
    /// Of another cluster, or somebody is in between.
    #[error(
        "whoever answers at that address is not the cluster that the token is of: its root \
         certificate is another; check the address and the token"
    )]
    OtherRoot,
}

impl JoinToken {
    /// The token of a cluster with that root.
    ///
    /// # Errors
    /// The root can't be read.
    pub fn new(root_pem: &str, secret: &str) -> Result<Self, TokenError> {
        Ok(Self { digest: digest(root_pem)?, secret: secret.to_owned() })
    }

    /// The part that the cluster knows the host by.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether the root that the token pins is among these.
    ///
    /// # Errors
    /// It is not, or they can't be read.
    pub fn check_root(&self, roots_pem: &str) -> Result<(), TokenError> {
        // The first tells what is wrong with it.
        digest(roots_pem)?;
        match ca_digests(roots_pem).contains(&self.digest) {
            true => Ok(()),
            false => Err(TokenError::OtherRoot),
        }
    }
}

fn digest(root_pem: &str) -> Result<String, TokenError> {
    let (_, block) =
        parse_x509_pem(root_pem.as_bytes()).map_err(|error| TokenError::Root(error.to_string()))?;
    Ok(hex_digest(&block.contents))
}

/// Digests of the certificates in a bundle, in its order: SHA-256 of the DER, in hexadecimal. What
/// can't be read is left out.
#[must_use]
pub fn ca_digests(roots_pem: &str) -> Vec<String> {
    let roots = Pem::iter_from_buffer(roots_pem.as_bytes());
    roots.filter_map(Result::ok).map(|root| hex_digest(&root.contents)).collect()
}

fn hex_digest(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Secrets are compared in a time that does not tell how much of one was right.
#[must_use]
pub(crate) fn is_same_secret(a: &str, b: &str) -> bool {
    let differing = a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && differing == 0
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.digest, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", self.digest)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Form)?;
        let (digest, secret) = rest.split_once('-').ok_or(TokenError::Form)?;
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_hex(digest) || !is_plain(secret) {
            return Err(TokenError::Form);
        }
        Ok(Self { digest: digest.to_ascii_lowercase(), secret: secret.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_nothing_else_is() {
        let text = format!("{PREFIX}{}-abc123", "0a".repeat(32));
        assert_eq!(text.parse::<JoinToken>().unwrap().to_string(), text);
        let short = format!("{PREFIX}0a-abc123");
        let bare = format!("{PREFIX}{}", "0a".repeat(32));
        let empty = format!("{PREFIX}{}-", "0a".repeat(32));
        for wrong in ["", "SWMTKN-1-a-b", &short, &bare, &empty] {
            assert_eq!(wrong.parse::<JoinToken>(), Err(TokenError::Form), "{wrong}");
        }
        assert!(!format!("{:?}", text.parse::<JoinToken>().unwrap()).contains("abc123"));
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        assert!(is_same_secret("abc", "abc"));
        for (a, b) in [("abc", "abd"), ("abc", "ab"), ("", "a")] {
            assert!(!is_same_secret(a, b));
        }
    }
}
