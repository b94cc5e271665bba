//! Encryption at rest of the log and the snapshots: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha)
//! with a random nonce before each ciphertext, which 192 bits leave room for without counting.
//!
//! What is sealed is bound to its place, so that a piece can't be put in another's.

use std::fmt;

use chacha20poly1305::aead::{Aead, AeadCore, OsRng, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

const NONCE: usize = 24;

/// A key of 256 bits.
#[derive(Clone)]
pub struct DataKey(XChaCha20Poly1305, [u8; 32]);

/// What was sealed with another key, for another place, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it can't be decrypted: the key is another, or it is damaged")]
pub struct SealError;

impl DataKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_bytes(XChaCha20Poly1305::generate_key(&mut OsRng).into())
    }

    /// The key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(Key::from_slice(&bytes)), bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.1
    }

    /// Encrypts for a place.
    #[must_use]
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: plain, aad: place };
        let cipher = self.0.encrypt(&nonce, payload);
        let cipher = cipher.expect("the cipher refuses nothing below 256 GiB");
        [nonce.as_slice(), &cipher].concat()
    }

    /// Decrypts what [`Self::seal`] has encrypted for that place.
    ///
    /// # Errors
    /// It is not that.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, cipher) = sealed.split_at_checked(NONCE).ok_or(SealError)?;
        let payload = Payload { msg: cipher, aad: place };
        self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_alone() {
        let key = DataKey::generate();
        let sealed = key.seal(b"entry 1", b"secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(key.open(b"entry 1", &sealed).unwrap(), b"secret");
        assert_eq!(key.open(b"entry 2", &sealed), Err(SealError));
        assert_eq!(DataKey::generate().open(b"entry 1", &sealed), Err(SealError));
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(key.open(b"entry 1", &damaged), Err(SealError));
        assert_eq!(key.open(b"entry 1", &sealed[..10]), Err(SealError));
    }
}
