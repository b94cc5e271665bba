//! Backups: the whole store in one file, with what tells a whole file from a damaged one. A backup
//! holds the cluster's root key and all secrets; where autolock is on, it is sealed with the unlock
//! key.

use prost::Message as _;
use sha2::{Digest, Sha256};
use shoal_core::store::Store;
use shoal_proto::v1::StoreSnapshot;

use crate::ca::ClusterCa;
use crate::keys::UnlockKey;

const MAGIC: &[u8] = b"SHOAL-BACKUP-1\n";
const OPEN: u8 = 0;
const SEALED: u8 = 1;
const DIGEST: usize = 32;
/// What a sealed backup is bound to.
const PLACE: &[u8] = b"backup";

/// Why a file is not restored from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Another file.
    #[error("it is no backup of a cluster: those begin with SHOAL-BACKUP-1")]
    Form,
    /// Cut off, or changed.
    #[error("it is damaged: its checksum does not match")]
    Damaged,
    /// It needs a key.
    #[error("it is sealed, because autolock was on: give the unlock key with --unlock-key")]
    Sealed,
    /// It needs another key.
    #[error("the unlock key is not the one that it is sealed with")]
    WrongKey,
    /// Of a version that is not understood.
    #[error("it can't be read: {0}")]
    Content(String),
}

/// The store as a file.
pub(crate) fn encode(store: &Store) -> Vec<u8> {
    let plain = store.snapshot().encode_to_vec();
    let key = store.cluster().and_then(|cluster| UnlockKey::of(&cluster.state));
    let (kind, body) = match key {
        None => (OPEN, plain),
        Some(key) => (SEALED, key.cipher().seal(PLACE, &plain)),
    };
    let mut file = MAGIC.to_vec();
    file.push(kind);
    file.extend(Sha256::digest(&body));
    file.extend(body);
    file
}

/// What a backup holds.
pub struct Backup {
    /// Everything.
    pub store: Store,
    /// The cluster's root.
    pub ca: ClusterCa,
}

impl Backup {
    /// Reads a file that "ctl cluster backup" has written.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn open(file: &[u8], key: Option<&UnlockKey>) -> Result<Self, BackupError> {
        let store = decode(file, key)?;
        let cluster = store.cluster().ok_or_else(|| BackupError::Content("it is empty".into()))?;
        let ca = ClusterCa::of(&cluster.state);
        let ca = ca.map_err(|error| BackupError::Content(error.to_string()))?;
        Ok(Self { store, ca })
    }
}

fn decode(file: &[u8], key: Option<&UnlockKey>) -> Result<Store, BackupError> {
    let rest = file.strip_prefix(MAGIC).ok_or(BackupError::Form)?;
    let (&kind, rest) = rest.split_first().ok_or(BackupError::Damaged)?;
    let (digest, body) = rest.split_at_checked(DIGEST).ok_or(BackupError::Damaged)?;
    if Sha256::digest(body).as_slice() != digest {
        return Err(BackupError::Damaged);
    }
    let plain = match (kind, key) {
        (OPEN, _) => body.to_vec(),
        (SEALED, None) => return Err(BackupError::Sealed),
        (SEALED, Some(key)) => key.cipher().open(PLACE, body).map_err(|_| BackupError::WrongKey)?,
        _ => return Err(BackupError::Form),
    };
    let snapshot = StoreSnapshot::decode(&*plain);
    let snapshot = snapshot.map_err(|error| BackupError::Content(error.to_string()))?;
    Store::restore(snapshot).map_err(|error| BackupError::Content(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use shoal_core::store::{Change, Cluster, Meta};
    use shoal_proto::v1::ClusterState;

    use super::*;

    fn store(unlock_key: Option<&UnlockKey>) -> Store {
        let state = ClusterState {
            id: "one".to_owned(),
            root: Some(ClusterCa::make_root("one", SystemTime::now()).unwrap()),
            unlock_key: unlock_key.map(|key| key.bytes().to_vec()).unwrap_or_default(),
            ..ClusterState::default()
        };
        let mut store = Store::default();
        let object = Cluster { meta: Meta::default(), state }.into();
        store.apply(7, vec![Change::Put { expected: 0, object }]).unwrap();
        store
    }

    #[test]
    fn a_backup_holds_everything_and_tells_when_it_is_damaged() {
        let store = store(None);
        let file = encode(&store);
        assert_eq!(Backup::open(&file, None).unwrap().store.snapshot(), store.snapshot());
        for end in 0..file.len() {
            assert!(Backup::open(&file[..end], None).is_err(), "cut at {end}");
        }
        let mut damaged = file.clone();
        damaged[file.len() / 2] ^= 1;
        assert_eq!(Backup::open(&damaged, None).err(), Some(BackupError::Damaged));
        assert_eq!(Backup::open(b"garbage", None).err(), Some(BackupError::Form));
    }

    #[test]
    fn with_autolock_a_backup_needs_the_unlock_key() {
        let key = UnlockKey::generate();
        let file = encode(&store(Some(&key)));
        assert_eq!(Backup::open(&file, None).err(), Some(BackupError::Sealed));
        let other = UnlockKey::generate();
        assert_eq!(Backup::open(&file, Some(&other)).err(), Some(BackupError::WrongKey));
        assert!(Backup::open(&file, Some(&key)).is_ok());
    }
}
