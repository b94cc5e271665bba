//! A manager's keys on disk: the data key, which its log and its certificate's key are encrypted
//! with, and, while autolock is on, the unlock key that the data key is sealed with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use shoal_proto::v1::ClusterState;

use crate::file::{self, FileError};
use crate::raft::DataKey;

/// The data key's file in a node's folder.
const FILE: &str = "raft.key";
const PREFIX: &str = "SHOALKEY-1-";
const SEALED: &str = "sealed ";
/// What a sealed data key is bound to.
const PLACE: &[u8] = b"data key";

/// What a locked manager is unlocked with: `SHOALKEY-1-` and 64 hexadecimal digits.
#[derive(Clone)]
pub struct UnlockKey(DataKey);

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A text of another form.
    #[error(
        "that is no unlock key: one begins with {PREFIX}; \"ctl cluster unlock-key\" shows it on a manager that runs"
    )]
    Form,
    /// A key is needed.
    #[error("the manager is locked: unlock it with \"ctl cluster unlock\"")]
    Locked,
    /// It is another one's.
    #[error("the unlock key is not the one that this manager was locked with")]
    Wrong,
    /// A file that holds no key.
    #[error("{}: it holds no key; restore the folder from a backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// A file that can't be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl UnlockKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(DataKey::generate())
    }

    /// The cluster's; none while autolock is off.
    #[must_use]
    pub fn of(state: &ClusterState) -> Option<Self> {
        let bytes = state.unlock_key.as_slice().try_into().ok()?;
        Some(Self(DataKey::from_bytes(bytes)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    pub(crate) fn cipher(&self) -> &DataKey {
        &self.0
    }
}

/// Encrypts a text into one line.
pub(crate) fn seal_line(key: &DataKey, place: &[u8], text: &str) -> String {
    format!("{SEALED}{}", hex(&key.seal(place, text.as_bytes())))
}

/// Decrypts what [`seal_line`] has made; none when the key is another.
pub(crate) fn open_line(key: &DataKey, place: &[u8], line: &str) -> Option<String> {
    let sealed = line.trim().strip_prefix(SEALED).and_then(unhex)?;
    String::from_utf8(key.open(place, &sealed).ok()?).ok()
}

/// Whether a text begins with a line that [`seal_line`] has made.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with(SEALED)
}

impl PartialEq for UnlockKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex(self.bytes()))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}…")
    }
}

impl FromStr for UnlockKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(KeyError::Form)?;
        let bytes = unhex(digits).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| Self(DataKey::from_bytes(bytes))).ok_or(KeyError::Form)
    }
}

/// Whether the folder has a data key: it is a manager's.
#[must_use]
pub fn exist(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// Whether the folder's data key is sealed.
#[must_use]
pub fn are_sealed(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join(FILE)).is_ok_and(|text| is_sealed(&text))
}

/// Takes the data key away: nothing that it has encrypted can be read any more.
///
/// # Errors
/// The file can't be removed.
pub fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The data key of the folder; a new one when there is none.
///
/// # Errors
/// It is sealed and `unlock` does not open it; the file can't be used.
pub fn load_or_create(dir: &Path, unlock: Option<&UnlockKey>) -> Result<DataKey, KeyError> {
    let path = dir.join(FILE);
    let Some(text) = file::read(&path)? else {
        let key = DataKey::generate();
        store(dir, &key, unlock)?;
        return Ok(key);
    };
    let digits = match (is_sealed(&text), unlock) {
        (false, _) => text,
        (true, None) => return Err(KeyError::Locked),
        (true, Some(unlock)) => open_line(&unlock.0, PLACE, &text).ok_or(KeyError::Wrong)?,
    };
    let bytes = unhex(digits.trim()).and_then(|bytes| bytes.try_into().ok());
    bytes.map(DataKey::from_bytes).ok_or(KeyError::Damaged { path })
}

/// Writes the data key, sealed when there is an unlock key.
///
/// # Errors
/// The file can't be written.
pub fn store(dir: &Path, key: &DataKey, unlock: Option<&UnlockKey>) -> Result<(), KeyError> {
    let digits = hex(key.bytes());
    let text = match unlock {
        None => digits,
        Some(unlock) => seal_line(&unlock.0, PLACE, &digits),
    };
    Ok(file::write(&dir.join(FILE), text)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_key_is_read_as_it_is_shown_and_nothing_else_is() {
        let key = UnlockKey::generate();
        assert_eq!(key.to_string().parse::<UnlockKey>().unwrap(), key);
        for wrong in ["", "SWMKEY-1-abc", "SHOALKEY-1-", "SHOALKEY-1-0g"] {
            assert!(matches!(wrong.parse::<UnlockKey>(), Err(KeyError::Form)), "{wrong}");
        }
        assert!(!format!("{key:?}").contains(&key.to_string()[12..20]));
    }

    #[test]
    fn a_sealed_data_key_needs_its_unlock_key() {
        let dir = std::env::temp_dir().join(format!("shoal-key-{:032x}", crate::random::bits()));
        let unlock = UnlockKey::generate();
        let key = load_or_create(&dir, None).unwrap();
        assert_eq!(load_or_create(&dir, None).unwrap().bytes(), key.bytes());
        store(&dir, &key, Some(&unlock)).unwrap();
        assert!(matches!(load_or_create(&dir, None), Err(KeyError::Locked)));
        let other = UnlockKey::generate();
        assert!(matches!(load_or_create(&dir, Some(&other)), Err(KeyError::Wrong)));
        assert_eq!(load_or_create(&dir, Some(&unlock)).unwrap().bytes(), key.bytes());
        std::fs::write(dir.join(FILE), "00").unwrap();
        assert!(matches!(load_or_create(&dir, None), Err(KeyError::Damaged { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
