//! Snapshots of the store as files: `INDEX-TERM.snap`, a checksum and an encoded
//! [`StoreSnapshot`]. Written beside, synced and renamed, so that a file that is there is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message as _;
use shoal_core::store::Store;
use shoal_proto::v1::StoreSnapshot;

use super::RaftError;
use super::storage::Mark;

/// Writes the store as of `mark`.
pub(super) fn write(dir: &Path, mark: Mark, store: &Store) -> Result<(), RaftError> {
    let path = dir.join(format!("{:020}-{:020}.snap", mark.index, mark.term));
    let partial = path.with_extension("partial");
    let body = store.snapshot().encode_to_vec();
    let written = File::create(&partial)
        .and_then(|mut file| {
            file.write_all(&crc32(&body).to_le_bytes())?;
            file.write_all(&body)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&partial, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    if let Err(source) = written {
        // What is left goes with the next snapshot; the write's error counts.
        let _ = fs::remove_file(&partial);
        return Err(RaftError::Io { path, source });
    }
    Ok(())
}

/// Deletes all snapshots but these, damaged and half-written ones too. None may be being written.
pub(super) fn keep_only(dir: &Path, kept: [Mark; 2]) -> Result<(), RaftError> {
    let io_error = |path: &Path, source| RaftError::Io { path: path.to_owned(), source };
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
pub(super) fn newest(dir: &Path) -> Result<Option<(Mark, Store)>, RaftError> {
    let io_error = |source| RaftError::Io { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(io_error)?;
    let mut found = None;
    for (mark, path) in list(dir).map_err(io_error)?.into_iter().rev() {
        match read(&path) {
            Ok(store) => return Ok(Some((mark, store))),
            Err(error) => {
                tracing::warn!(%error, "a snapshot can't be used; starting from what is before it");
                found = Some(Default::default());
            }
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Store, RaftError> {
    let bytes = fs::read(path).map_err(|source| RaftError::Io { path: path.to_owned(), source })?;
    let corrupt = |what: String| RaftError::Corrupt { path: path.to_owned(), what };
    let (checksum, body) =
        bytes.split_at_checked(4).ok_or_else(|| corrupt("it is cut off".to_owned()))?;
    if checksum != crc32(body).to_le_bytes() {
        return Err(corrupt("its checksum does not match".to_owned()));
    }
    let snapshot = StoreSnapshot::decode(body).map_err(|error| corrupt(error.to_string()))?;
    Store::restore(snapshot).map_err(|error| corrupt(error.to_string()))
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
