//! The compressed bytes of a layer on their way from an async task to a blocking thread.
//!
//! Reading them hashes them, counts them and writes them to the blob's file, so that nothing can
//! be read without having been checked.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::LayerError;
use crate::digest::{Digest, Hasher};

/// What the sender has to say. A sender that goes without `End` has given up.
#[derive(Debug)]
pub(crate) enum Feed {
    Data(Bytes),
    End,
}

/// The reading end.
pub(super) struct FeedReader {
    source: mpsc::Receiver<Feed>,
    current: Bytes,
    ended: bool,
    hasher: Hasher,
    blob: File,
    count: u64,
    want: Option<(Digest, u64)>,
    /// What went wrong, for [`FeedReader::finish`]: an `io::Error` can't carry it.
    error: Option<LayerError>,
}

impl FeedReader {
    pub(super) fn new(
        source: mpsc::Receiver<Feed>,
        blob: File,
        want: Option<(Digest, u64)>,
    ) -> Self {
        let hasher = Hasher::for_digest(want.as_ref().map(|(digest, _)| digest));
        let current = Bytes::new();
        Self { source, current, ended: false, hasher, blob, count: 0, want, error: None }
    }

    /// At least `length` bytes without consuming them; fewer only at the end.
    pub(super) fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.current.len() < length && !self.ended {
            let Some(next) = self.receive()? else { break };
            let mut joined = BytesMut::from(&self.current[..]);
            joined.extend_from_slice(&next);
            self.current = joined.freeze();
        }
        Ok(&self.current)
    }

    /// Reads to the end and checks what has been read. Returns the digest and the length.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), LayerError> {
        while self.error.is_none() && !self.ended {
            self.current.clear();
            // The error is in `self.error`.
            let _ = self.receive();
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let got = self.hasher.finish();
        match self.want {
            Some((_, want)) if self.count < want => {
                Err(LayerError::TooShort { want, got: self.count })
            }
            Some((want, _)) if want != got => Err(LayerError::Digest { want, got }),
            _ => Ok((got, self.count)),
        }
    }

    /// The next piece; nothing at the end.
    fn receive(&mut self) -> io::Result<Option<Bytes>> {
        if self.error.is_some() {
            return Err(io::Error::other("the layer's bytes have stopped"));
        }
        loop {
            match self.source.blocking_recv() {
                Some(Feed::Data(bytes)) if bytes.is_empty() => {}
                Some(Feed::Data(bytes)) => {
                    self.take(&bytes).map_err(|error| {
                        self.error = Some(error);
                        io::Error::other("the layer's bytes were refused")
                    })?;
                    return Ok(Some(bytes));
                }
                Some(Feed::End) => {
                    self.ended = true;
                    return Ok(None);
                }
                None => {
                    self.error = Some(LayerError::Stopped);
                    return Err(io::Error::other("the transfer was stopped"));
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.count += bytes.len() as u64;
        if let Some((_, want)) = self.want.as_ref().filter(|(_, want)| self.count > *want) {
            return Err(LayerError::TooLong { want: *want });
        }
        self.hasher.update(bytes);
        self.blob.write_all(bytes).map_err(|error| LayerError::Keep(error.into()))
    }
}

impl BufRead for FeedReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty()
            && !self.ended
            && let Some(next) = self.receive()?
        {
            self.current = next;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for FeedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}
