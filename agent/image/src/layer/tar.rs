//! Reads tar archives: one entry after another, then the entry's data.
//!
//! Knows old, ustar, GNU (long names, sparse files, binary numbers) and pax archives. Names are
//! handed out as they stand; [`super::extract`] decides where they may lead. Memory is bounded:
//! no header makes it hold more than [`MAX_SPECIAL`] bytes.

use std::io::{self, BufRead};
use std::sync::Arc;

use super::header::{self, lossy, number, positive};
use super::pax::Extended;
use super::sparse::{self, Segment};

const BLOCK: usize = 512;
/// Longest extended header or long name, as in Go's reader.
const MAX_SPECIAL: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum TarError {
    #[error("the tar archive ends in the middle of an entry")]
    Truncated,
    #[error("a tar header has a wrong checksum: the layer is not a tar archive or is damaged")]
    Checksum,
    #[error("the tar header of {path:?} has a wrong number in its field {field}")]
    Number { path: String, field: &'static str },
    #[error("a tar archive has a malformed extended header")]
    Pax,
    #[error("a tar archive has an extended header of {0} bytes, more than any file needs")]
    SpecialTooLong(u64),
    #[error("a tar archive has a malformed map of a sparse file")]
    Sparse,
    #[error("the tar entry {path:?} is of type {kind:?}, which no image layer may hold")]
    Kind { path: String, kind: char },
    #[error("the unpacked layer can't be read: {0}")]
    Read(#[source] Arc<io::Error>),
}

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry, its data not included.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    /// Length of the file, holes included.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The stored parts of a sparse file.
    pub(crate) sparse: Option<Vec<Segment>>,
}

/// A tar archive that is read once, from its start to its end.
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes of the current entry's data that have not been read.
    remaining: u64,
    /// Bytes after them to the next block.
    padding: u64,
    global: Extended,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, remaining: 0, padding: 0, global: Extended::default() }
    }

    /// The next entry; what is left of the current one's data is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.pass(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut extended = self.global.clone();
        let mut in_entry = false;
        loop {
            let Some(header) = self.header()? else {
                return if in_entry { Err(TarError::Truncated) } else { Ok(None) };
            };
            let fields = header.as_old();
            let stored = positive(&header, "size", &fields.size)?;
            match fields.linkflag[0] {
                b'x' => extended.read(&self.special(stored)?)?,
                b'g' => {
                    let bytes = self.special(stored)?;
                    self.global.read(&bytes)?;
                    extended.read(&bytes)?;
                }
                b'L' => extended.path = Some(until_zero(self.special(stored)?)),
                b'K' => extended.link = Some(until_zero(self.special(stored)?)),
                // The archive's own name.
                b'V' => self.pass(stored.next_multiple_of(BLOCK as u64))?,
                _ => return self.entry(&header, extended, stored).map(Some),
            }
            in_entry = true;
        }
    }

    /// Hands the current entry's stored data to `sink`, piece by piece.
    pub(crate) fn data<E: From<TarError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.remaining > 0 {
            let piece = fill(&mut self.source)?;
            let length = piece.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            sink(&piece[..length])?;
            self.source.consume(length);
            self.remaining -= length as u64;
        }
        Ok(())
    }

    /// Gives the stream back.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// Reads what follows the archive's end, so that all of the stream is seen.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let piece = self.source.fill_buf().map_err(read_error)?.len();
            if piece == 0 {
                return Ok(());
            }
            self.source.consume(piece);
        }
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        extended: Extended,
        stored: u64,
    ) -> Result<Entry, TarError> {
        let fields = header.as_old();
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended
            .link
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = match fields.linkflag[0] {
            // Archives older than POSIX mark directories by a slash.
            b'0' | b'\0' if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind { path: lossy(&path), kind: char::from(other) }),
        };
        let owner = |field, pax: Option<u64>, raw: &[u8]| {
            let id = pax.map_or_else(|| positive(header, field, raw), Ok)?;
            u32::try_from(id).map_err(|_| TarError::Number { path: lossy(&path), field })
        };
        let device = match (kind, header.device_major(), header.device_minor()) {
            (Kind::CharDevice | Kind::BlockDevice, Ok(Some(major)), Ok(Some(minor))) => {
                (major, minor)
            }
            (Kind::CharDevice | Kind::BlockDevice, ..) => {
                return Err(TarError::Number { path: lossy(&path), field: "device" });
            }
            _ => (0, 0),
        };
        let mut entry = Entry {
            kind,
            link,
            mode: (positive(header, "mode", &fields.mode)? & 0o7777) as u32,
            uid: owner("uid", extended.uid, &fields.uid)?,
            gid: owner("gid", extended.gid, &fields.gid)?,
            mtime: extended.mtime.unwrap_or((number(&fields.mtime).unwrap_or(0), 0)),
            size: 0,
            device,
            xattrs: extended.xattrs,
            sparse: None,
            path,
        };
        // Sizes of entries that have no data mean nothing, as in Go's reader.
        if kind == Kind::File {
            self.remaining = extended.size.unwrap_or(stored);
            self.padding = (BLOCK as u64 - self.remaining % BLOCK as u64) % BLOCK as u64;
            if self.remaining > u64::MAX - BLOCK as u64 {
                return Err(TarError::Number { path: lossy(&entry.path), field: "size" });
            }
            entry.size = self.remaining;
            if let Some(name) = extended.sparse.name {
                entry.path = name;
            }
            if fields.linkflag[0] == b'S' {
                let size = header.as_gnu().ok_or(TarError::Sparse)?.realsize;
                let segments = self.old_sparse(header)?;
                self.make_sparse(&mut entry, positive(header, "realsize", &size)?, segments)?;
            } else if let Some(size) = extended.sparse.size {
                let segments = match extended.sparse.major {
                    Some(1) => self.sparse_map()?,
                    _ => sparse::from_numbers(&extended.sparse.numbers)?,
                };
                self.make_sparse(&mut entry, size, segments)?;
            }
        }
        Ok(entry)
    }

    fn make_sparse(
        &self,
        entry: &mut Entry,
        size: u64,
        mut segments: Vec<Segment>,
    ) -> Result<(), TarError> {
        segments.retain(|segment| segment.length > 0);
        sparse::check(&segments, size, self.remaining)?;
        entry.size = size;
        entry.sparse = Some(segments);
        Ok(())
    }

    fn old_sparse(&mut self, header: &tar::Header) -> Result<Vec<Segment>, TarError> {
        let gnu = header.as_gnu().ok_or(TarError::Sparse)?;
        let mut numbers = Vec::new();
        let mut take = |fields: &[tar::GnuSparseHeader]| -> Result<(), TarError> {
            for field in fields.iter().filter(|field| field.offset[0] != 0) {
                numbers.push(positive(header, "sparse", &field.offset)?);
                numbers.push(positive(header, "sparse", &field.numbytes)?);
            }
            if numbers.len() > sparse::MAX_MAP / BLOCK * 42 {
                Err(TarError::Sparse)
            } else {
                Ok(())
            }
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.exact(block.as_mut_bytes())?;
            take(&block.sparse)?;
            more = block.is_extended();
        }
        sparse::from_numbers(&numbers)
    }

    fn sparse_map(&mut self) -> Result<Vec<Segment>, TarError> {
        let mut map = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            if self.remaining < BLOCK as u64 || map.len() >= sparse::MAX_MAP {
                return Err(TarError::Sparse);
            }
            self.exact(&mut block)?;
            self.remaining -= BLOCK as u64;
            map.extend_from_slice(&block);
            if let Some(segments) = sparse::read_map(&map)? {
                return Ok(segments);
            }
        }
    }

    /// The next header; nothing at the end, which is a block of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        if self.source.fill_buf().map_err(read_error)?.is_empty() {
            return Ok(None);
        }
        let mut header = tar::Header::new_old();
        self.exact(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if header::has_checksum(&header) { Ok(Some(header)) } else { Err(TarError::Checksum) }
    }

    /// The data of an extended header or a long name.
    fn special(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL {
            return Err(TarError::SpecialTooLong(size));
        }
        let mut bytes = vec![0; size as usize];
        self.exact(&mut bytes)?;
        self.pass(size.next_multiple_of(BLOCK as u64) - size)?;
        Ok(bytes)
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), TarError> {
        io::Read::read_exact(&mut self.source, bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => read_error(error),
        })
    }

    fn pass(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let piece = fill(&mut self.source)?.len();
            let length = piece.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.source.consume(length);
            count -= length as u64;
        }
        Ok(())
    }
}

fn fill<R: BufRead>(source: &mut R) -> Result<&[u8], TarError> {
    let piece = source.fill_buf().map_err(read_error)?;
    if piece.is_empty() { Err(TarError::Truncated) } else { Ok(piece) }
}

fn read_error(error: io::Error) -> TarError {
    TarError::Read(Arc::new(error))
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}
