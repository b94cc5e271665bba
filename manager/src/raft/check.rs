//! Tells a log that a crash cut off from one that is damaged, before `raft-engine` opens it.
//!
//! `raft-engine` drops everything from the first unreadable record of its last file on. After a
//! crash that is right: each record is synced before the next is written, so only the last can be
//! torn. When whole records follow, they were acknowledged, and dropping them would lose them
//! silently. Its other recovery modes either refuse a torn end or drop even more.
//!
//! A file of format 2 is a header, then records: a length (56 bits), a compression (8 bits) and
//! the footer's offset (64 bits), big-endian; entries with their CRC-32, if any; the footer with
//! its CRC-32, XORed with the number in the file's name.

use std::fs;
use std::path::{Path, PathBuf};

use super::RaftError;

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// The magic is followed by version and alignment, eight bytes each.
const HEADER: usize = MAGIC.len() + 16;
const RECORD_HEADER: usize = 16;
const LZ4: u64 = 1;

/// Reads all records of the log.
///
/// # Errors
/// A file can't be read, or is damaged elsewhere than at the log's end.
pub(super) fn log(dir: &Path) -> Result<(), RaftError> {
    let files = list(dir).map_err(|source| RaftError::Io { path: dir.to_owned(), source })?;
    let last = files.last().map(|(number, _)| *number);
    for (number, path) in files {
        let bytes =
            fs::read(&path).map_err(|source| RaftError::Io { path: path.clone(), source })?;
        // Only the low half is in the checksums.
        let signature = number as u32;
        let Some(at) = first_damage(&bytes, signature) else { continue };
        if last != Some(number) || holds_record(&bytes[at..], signature) {
            let what = format!("it is damaged at byte {at}, with whole records behind");
            return Err(RaftError::Corrupt { path, what });
        }
        if bytes[at..].iter().any(|byte| *byte != 0) {
            let path = path.display();
            tracing::warn!(%path, at, "the log's last write was cut off and is dropped");
        }
    }
    Ok(())
}

/// The files of the log by number; none in a new folder.
fn list(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    if !dir.exists() {
        return Ok(files);
    }
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".raftlog").and_then(|name| name.parse().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Where the first byte is that belongs to no whole record; none when there is no such byte.
fn first_damage(bytes: &[u8], signature: u32) -> Option<usize> {
    let header = [MAGIC, &2u64.to_be_bytes()[..], &0u64.to_be_bytes()[..]].concat();
    if !bytes.starts_with(&header) {
        return Some(0);
    }
    let mut at = HEADER;
    while at < bytes.len() {
        match record_length(&bytes[at..], signature) {
            Some(length) => at += length,
            None => return Some(at),
        }
    }
    None
}

fn holds_record(bytes: &[u8], signature: u32) -> bool {
    (0..bytes.len()).any(|at| record_length(&bytes[at..], signature).is_some())
}

/// The length of the whole record that the bytes begin with.
fn record_length(bytes: &[u8], signature: u32) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let head = u64::from_be_bytes(*head);
    let footer = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    let length = usize::try_from(head >> 8).ok()?;
    let footer = usize::try_from(footer).ok()?;
    if head & 0xff > LZ4 || footer < RECORD_HEADER || footer > length {
        return None;
    }
    let record = bytes.get(..length)?;
    let entries = &record[RECORD_HEADER..footer];
    let sound =
        is_sound(&record[footer..], signature) && (entries.is_empty() || is_sound(entries, 0));
    sound.then_some(length)
}

/// Whether a block fits the checksum at its end.
fn is_sound(block: &[u8], signature: u32) -> bool {
    block.split_last_chunk::<4>().is_some_and(|(body, sum)| {
        !body.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*sum) ^ signature
    })
}
