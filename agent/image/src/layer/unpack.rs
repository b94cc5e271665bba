//! One layer's pipeline: two threads that work while a third party downloads.
//!
//! ```text
//! feed -> [hash, keep, decompress] -> blocks -> [hash, untar]
//! ```
//!
//! Blocks go back to be used again. When either side fails, the other one stops; damaged data is
//! read on to its end though, so that the digest, which is the better explanation, can be told.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use tokio::sync::mpsc;

use super::LayerError;
use super::decode::{Compression, PEEK};
use super::extract::{ExtractError, extract};
use super::feed::{Feed, FeedReader};
use super::tar::{Archive, TarError};
use crate::digest::{Digest, Hasher};

const BLOCK: usize = 256 << 10;
/// Blocks between the two threads: enough to even out their speeds, and 2 MiB at most.
const BLOCKS: usize = 8;

/// What a layer has to be; nothing when it comes from a file that only the caller knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Digest and length of the compressed bytes.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Digest of the bytes behind the compression.
    pub(crate) diff_id: Option<Digest>,
}

/// What a layer turned out to be.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    pub(crate) blob: Digest,
    pub(crate) blob_size: u64,
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
    /// Bytes that its files hold.
    pub(crate) content: u64,
}

/// Unpacks what comes from `feed` into the empty directory `root` and keeps it in `blob`.
///
/// Blocks the thread. After an error both hold whatever they hold: throw them away.
pub(crate) fn unpack(
    feed: mpsc::Receiver<Feed>,
    blob: File,
    root: &Path,
    expected: Expected,
) -> Result<Unpacked, LayerError> {
    let (full, blocks) = sync_channel(BLOCKS);
    let (used, free) = channel();
    let diff_id = expected.diff_id;
    // The errors of the disk end the transfer at once; those of the data may be the digest's.
    let disk_failed = AtomicBool::new(false);
    let (decoded, extracted) = std::thread::scope(|scope| {
        let reader = FeedReader::new(feed, blob, expected.blob);
        let decoder = scope.spawn(|| {
            let (full, free) = (full, free);
            decode(reader, &full, &free, &disk_failed)
        });
        let blocks = BlockReader::new(blocks, used, diff_id.as_ref());
        let extracted = untar(blocks, root, &disk_failed);
        (decoder.join().unwrap_or(Err(LayerError::Stopped)), extracted)
    });
    let (decoded, extracted) = match (decoded, extracted) {
        // Both have only been told to stop, or one of them.
        (
            Err(LayerError::Stopped),
            Err(LayerError::Extract(ExtractError::Tar(TarError::Read(_)))),
        ) => return Err(LayerError::Stopped),
        (Err(LayerError::Stopped), Err(error)) => return Err(error),
        (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        (Ok(decoded), Ok(extracted)) => (decoded, extracted),
    };
    match diff_id {
        Some(want) if want != extracted.diff_id => {
            Err(LayerError::DiffId { want, got: extracted.diff_id })
        }
        _ => Ok(Unpacked {
            blob: decoded.blob,
            blob_size: decoded.size,
            compression: decoded.compression,
            diff_id: extracted.diff_id,
            content: extracted.content,
        }),
    }
}

struct Decoded {
    blob: Digest,
    size: u64,
    compression: Compression,
}

struct Extracted {
    diff_id: Digest,
    content: u64,
}

/// A block of the unpacked stream, or its true end.
enum Block {
    Data(Vec<u8>, usize),
    End,
}

fn decode(
    mut feed: FeedReader,
    full: &SyncSender<Block>,
    free: &Receiver<Vec<u8>>,
    disk_failed: &AtomicBool,
) -> Result<Decoded, LayerError> {
    let pumped = feed
        .peek(PEEK)
        .map_err(|_| LayerError::Stopped)
        .and_then(Compression::detect)
        .and_then(|compression| Ok((compression, pump(&mut feed, compression, full, free)?)));
    if disk_failed.load(Ordering::Acquire) {
        return Err(LayerError::Stopped);
    }
    // What the stream itself has to say explains more than what decoding it met.
    let (blob, size) = feed.finish()?;
    let (compression, complete) = pumped?;
    // Only now: what ends here has been verified.
    if !complete || full.send(Block::End).is_err() {
        return Err(LayerError::Stopped);
    }
    Ok(Decoded { blob, size, compression })
}

/// Returns whether all blocks were taken.
fn pump(
    feed: &mut FeedReader,
    compression: Compression,
    full: &SyncSender<Block>,
    free: &Receiver<Vec<u8>>,
) -> Result<bool, LayerError> {
    let damaged = |source: io::Error| LayerError::Decode { compression, source: source.into() };
    let mut reader = compression.reader(feed).map_err(damaged)?;
    loop {
        let mut block = free.try_recv().unwrap_or_else(|_| vec![0; BLOCK]);
        let mut length = 0;
        while length < block.len() {
            match reader.read(&mut block[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(damaged(error)),
            }
        }
        if length == 0 {
            return Ok(true);
        }
        if full.send(Block::Data(block, length)).is_err() {
            return Ok(false);
        }
    }
}

fn untar(
    reader: BlockReader,
    root: &Path,
    disk_failed: &AtomicBool,
) -> Result<Extracted, LayerError> {
    let mut archive = Archive::new(reader);
    let content = extract(&mut archive, root).map_err(LayerError::from).inspect_err(|error| {
        disk_failed.store(error.local().is_some(), Ordering::Release);
    })?;
    Ok(Extracted { diff_id: archive.into_source().hasher.finish(), content })
}

/// The unpacked stream, hashed as it comes.
struct BlockReader {
    blocks: Receiver<Block>,
    used: Sender<Vec<u8>>,
    hasher: Hasher,
    current: Vec<u8>,
    position: usize,
    length: usize,
    ended: bool,
}

impl BlockReader {
    fn new(blocks: Receiver<Block>, used: Sender<Vec<u8>>, diff_id: Option<&Digest>) -> Self {
        let hasher = Hasher::for_digest(diff_id);
        Self { blocks, used, hasher, current: Vec::new(), position: 0, length: 0, ended: false }
    }
}

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.length && !self.ended {
            let used = std::mem::take(&mut self.current);
            (self.position, self.length) = (0, 0);
            if !used.is_empty() {
                // The decoder may have read everything already.
                let _ = self.used.send(used);
            }
            match self.blocks.recv() {
                Ok(Block::Data(block, length)) => {
                    self.hasher.update(&block[..length]);
                    (self.current, self.length) = (block, length);
                }
                Ok(Block::End) => self.ended = true,
                Err(_) => return Err(io::Error::other("the layer's data has stopped")),
            }
        }
        Ok(&self.current[self.position..self.length])
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.length);
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
