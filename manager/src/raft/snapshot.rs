//! Snapshots of the store as files: `INDEX-TERM.snap` holds a magic, a checksum and an encoded
//! [`StoreSnapshot`]. Written beside, synced and renamed, so that a file that is there is whole.
//!
//! The last two are kept, and the log from the older on: when the newest turns out to be damaged,
//! the older and the log still make the same store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message as _;
use shoal_core::store::Store;
use shoal_proto::v1::StoreSnapshot;

use super::RaftError;
use super::storage::Mark;

/// Older ones are deleted.
const KEPT: usize = 2;
/// First bytes of the file, with the format's version.
const MAGIC: &[u8; 8] = b"SHOALSN1";
const SUFFIX: &str = "snap";
/// A snapshot that is being written, or that a crash has left.
const PARTIAL: &str = "partial";

/// Writes the store as of `mark`. Returns the oldest snapshot's mark when as many are there as are
/// kept: the log up to it has become superfluous.
pub(super) fn write(dir: &Path, mark: Mark, store: &Store) -> Result<Option<Mark>, RaftError> {
    let path = dir.join(format!("{:020}-{:020}.{SUFFIX}", mark.index, mark.term));
    if let Err(source) = write_file(&path, &store.snapshot().encode_to_vec()) {
        // Its space may be what others wait for; the error that counts is the write's.
        let _ = fs::remove_file(path.with_extension(PARTIAL));
        return Err(RaftError::Io { path, source });
    }
    let mut snapshots = list(dir)?;
    let superfluous = snapshots.len().saturating_sub(KEPT);
    for (_, path) in snapshots.drain(..superfluous) {
        fs::remove_file(&path).map_err(|source| RaftError::Io { path, source })?;
    }
    Ok(snapshots.first().filter(|_| snapshots.len() == KEPT).map(|(mark, _)| *mark))
}

fn write_file(path: &Path, body: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL);
    let mut file = File::create(&partial)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32fast::hash(body).to_le_bytes())?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The newest snapshot that can be read; none in a new folder. Takes away what a crash has left.
pub(super) fn newest(dir: &Path) -> Result<Option<(Mark, Store)>, RaftError> {
    let mut damaged = None;
    for (mark, path) in list(dir)?.into_iter().rev() {
        match read(&path) {
            Ok(store) => return Ok(Some((mark, store))),
            Err(error) => {
                tracing::warn!(%error, "a snapshot is damaged, trying an older one");
                damaged = damaged.or(Some(error));
            }
        }
    }
    damaged.map_or(Ok(None), Err)
}

fn read(path: &Path) -> Result<Store, RaftError> {
    let bytes = fs::read(path).map_err(|source| RaftError::Io { path: path.to_owned(), source })?;
    let corrupt = |what: String| RaftError::Corrupt { path: path.to_owned(), what };
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| corrupt("it is no snapshot of this version of shoal".to_owned()))?;
    let (checksum, body) =
        rest.split_at_checked(4).ok_or_else(|| corrupt("it is cut off".to_owned()))?;
    if checksum != crc32fast::hash(body).to_le_bytes() {
        return Err(corrupt("its checksum does not match".to_owned()));
    }
    let snapshot = StoreSnapshot::decode(body).map_err(|error| corrupt(error.to_string()))?;
    Store::restore(snapshot).map_err(|error| corrupt(error.to_string()))
}

/// The snapshots, oldest first.
fn list(dir: &Path) -> Result<Vec<(Mark, PathBuf)>, RaftError> {
    let scan = || -> io::Result<_> {
        let mut found = Vec::new();
        for file in fs::read_dir(dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                fs::remove_file(path)?;
            } else if let Some(mark) = mark(&path) {
                found.push((mark, path));
            }
        }
        found.sort_by_key(|(mark, _)| mark.index);
        Ok(found)
    };
    scan().map_err(|source| RaftError::Io { path: dir.to_owned(), source })
}

fn mark(path: &Path) -> Option<Mark> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    let (index, term) = name.split_once('-')?;
    Some(Mark { index: index.parse().ok()?, term: term.parse().ok()? })
}

#[cfg(test)]
mod tests;
