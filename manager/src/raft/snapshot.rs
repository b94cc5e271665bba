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

/// Older ones than the last two are deleted.
const KEPT: usize = 2;

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
        // What is left is taken away with the next snapshot; the write's error counts.
        let _ = fs::remove_file(&partial);
        return Err(RaftError::Io { path, source });
    }
    clean(dir).map_err(|source| RaftError::Io { path: dir.to_owned(), source })
}

/// The newest snapshot that can be read; none in a new folder.
pub(super) fn newest(dir: &Path) -> Result<Option<(Mark, Store)>, RaftError> {
    let io_error = |source| RaftError::Io { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(io_error)?;
    let mut unreadable = None;
    for (mark, path) in list(dir).map_err(io_error)?.into_iter().rev() {
        match read(&path) {
            Ok(store) => return Ok(Some((mark, store))),
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    unreadable.map_or(Ok(None), Err)
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

fn list(dir: &Path) -> io::Result<Vec<(Mark, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mark = name.strip_suffix(".snap").and_then(|name| name.split_once('-'));
        if let Some((index, term)) = mark
            && let (Ok(index), Ok(term)) = (index.parse(), term.parse())
        {
            found.push((Mark { index, term }, path));
        }
    }
    found.sort_by_key(|(mark, _)| mark.index);
    Ok(found)
}

fn clean(dir: &Path) -> io::Result<()> {
    let snapshots = list(dir)?;
    let old = snapshots.len().saturating_sub(KEPT);
    for (_, path) in snapshots.into_iter().take(old) {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
