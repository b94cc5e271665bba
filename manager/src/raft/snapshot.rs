//! Snapshots of the store as files: `INDEX-TERM.snap`, a checksum and an
//! encrypted [`StoreSnapshot`]. Written beside, synced and renamed, so that a file that is there is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message as _;
use shoal_core::store::Store;
use shoal_proto::v1::StoreSnapshot;

use super::storage::Mark;
use super::{DataKey, Members, RaftError};

/// The store with who was in the group, as it is kept and sent.
pub(super) fn encode(store: &Store, members: &Members) -> Vec<u8> {
    let mut snapshot = store.snapshot();
    snapshot.voters.extend(&members.voters);
    snapshot.learners.extend(&members.learners);
    snapshot.encode_to_vec()
}

/// What [`encode`] has encoded, or why it is not that.
pub(super) fn decode(body: &[u8]) -> Result<(Store, Members), String> {
    let mut snapshot = StoreSnapshot::decode(body).map_err(|error| error.to_string())?;
    let members = Members {
        voters: std::mem::take(&mut snapshot.voters).into_iter().collect(),
        learners: std::mem::take(&mut snapshot.learners).into_iter().collect(),
    };
    let store = Store::restore(snapshot).map_err(|error| error.to_string())?;
    Ok((store, members))
}

/// The folder that they are in, with what they are encrypted with.
#[derive(Clone)]
pub(super) struct SnapshotFiles {
    dir: PathBuf,
    key: DataKey,
}

/// Writes a store, encoded, as of `mark`.
impl SnapshotFiles {
    /// The folder is made when it is missing.
    pub(super) fn open(dir: PathBuf, key: &DataKey) -> Result<Self, RaftError> {
        match fs::create_dir_all(&dir) {
            Ok(()) => Ok(Self { dir, key: key.clone() }),
            Err(source) => Err(RaftError::Io { path: dir, source }),
        }
    }

    pub(super) fn write(&self, mark: Mark, body: &[u8]) -> Result<(), RaftError> {
        let path = self.path(mark);
        let sealed = self.key.seal(&place(mark), body);
        let partial = path.with_extension("partial");
        let written = File::create(&partial)
            .and_then(|mut file| {
                file.write_all(&crc32(&sealed).to_le_bytes())?;
                file.write_all(&sealed)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&partial, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(source) = written {
            // What is left goes with the next snapshot; the write's error counts.
            let _ = fs::remove_file(&partial);
            return Err(RaftError::Io { path, source });
        }
        Ok(())
    }

    fn path(&self, mark: Mark) -> PathBuf {
        self.dir.join(format!("{:020}-{:020}.snap", mark.index, mark.term))
    }

    /// The newest snapshot that is whole, as it is sent to others.
    pub(super) fn newest_body(&self) -> Option<(Mark, Vec<u8>)> {
        let all = list(&self.dir).ok()?;
        all.into_iter().rev().find_map(|(mark, path)| Some((mark, self.body(mark, &path).ok()?)))
    }

    /// Deletes all snapshots but these, damaged and half-written ones too. None may be being written.
    pub(super) fn keep_only(&self, kept: [Mark; 2]) -> Result<(), RaftError> {
        let io_error = |path: &Path, source| RaftError::Io { path: path.to_owned(), source };
        let dir = &self.dir;
        for file in fs::read_dir(dir).map_err(|source| io_error(dir, source))? {
            let path = file.map_err(|source| io_error(dir, source))?.path();
            let stale = match mark_of(&path) {
                Some(mark) => !kept.contains(&mark),
                None => path.extension().is_some_and(|extension| extension == "partial"),
            };
            if stale {
                fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
            }
        }
        Ok(())
    }

    /// The newest snapshot that can be read; none in a new folder. When there are some and none can be
    /// read, it is the empty store before the first entry, which a log that was never cut begins with.
    pub(super) fn newest(&self) -> Result<Option<(Mark, Store, Members)>, RaftError> {
        let io_error = |source| RaftError::Io { path: self.dir.clone(), source };
        let mut found = None;
        for (mark, path) in list(&self.dir).map_err(io_error)?.into_iter().rev() {
            match self.read(mark, &path) {
                Ok((store, members)) => return Ok(Some((mark, store, members))),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot can't be used; starting from what is before it");
                    found = Some(Default::default());
                }
            }
        }
        Ok(found)
    }

    fn read(&self, mark: Mark, path: &Path) -> Result<(Store, Members), RaftError> {
        let corrupt = |what: String| RaftError::Corrupt { path: path.to_owned(), what };
        decode(&self.body(mark, path)?).map_err(corrupt)
    }

    /// The encoded store in a file whose checksum fits.
    fn body(&self, mark: Mark, path: &Path) -> Result<Vec<u8>, RaftError> {
        let mut bytes =
            fs::read(path).map_err(|source| RaftError::Io { path: path.to_owned(), source })?;
        let corrupt =
            |what: &str| RaftError::Corrupt { path: path.to_owned(), what: what.to_owned() };
        if bytes.len() < 4 {
            return Err(corrupt("it is cut off"));
        }
        let sealed = bytes.split_off(4);
        if bytes != crc32(&sealed).to_le_bytes() {
            return Err(corrupt("its checksum does not match"));
        }
        self.key.open(&place(mark), &sealed).map_err(|error| corrupt(&error.to_string()))
    }
}

/// What a snapshot's ciphertext is bound to.
fn place(mark: Mark) -> Vec<u8> {
    [&b"snapshot"[..], &mark.encode()].concat()
}

/// All snapshots, the oldest first.
fn list(dir: &Path) -> io::Result<Vec<(Mark, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if let Some(mark) = mark_of(&path) {
            found.push((mark, path));
        }
    }
    found.sort_by_key(|(mark, _)| mark.index);
    Ok(found)
}

/// What a snapshot's name says that it is of; none for other files.
fn mark_of(path: &Path) -> Option<Mark> {
    let name = path.file_name()?.to_str()?;
    let (index, term) = name.strip_suffix(".snap")?.split_once('-')?;
    Some(Mark { index: index.parse().ok()?, term: term.parse().ok()? })
}

fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
