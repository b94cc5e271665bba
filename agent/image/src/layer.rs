//! Layers: from a stream of compressed bytes to a verified directory.
//!
//! [`unpack`] hashes, keeps, decompresses and unpacks while the bytes come in. It touches only the
//! directory and the file that it is given; whoever calls it makes the result visible, and only
//! when it returned without an error.

mod attributes;
mod decode;
mod directories;
mod extract;
mod feed;
mod header;
mod path;
mod pax;
mod sparse;
mod tar;
mod unpack;

use std::io;
use std::sync::Arc;

pub use decode::Compression;
pub use extract::ExtractError;
pub use tar::TarError;

pub(crate) use feed::Feed;
pub(crate) use unpack::{Expected, Unpacked, unpack};

use crate::digest::Digest;

/// Why a layer was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum LayerError {
    #[error(
        "its content does not match its digest: want {want}, got {got}; the registry or something on the way to it serves damaged data"
    )]
    Digest { want: Digest, got: Digest },
    #[error("its content is longer than the {want} bytes that the manifest says")]
    TooLong { want: u64 },
    #[error("its content ends after {got} of {want} bytes")]
    TooShort { want: u64, got: u64 },
    #[error(
        "its unpacked content does not match the image's configuration: want {want}, got {got}"
    )]
    DiffId { want: Digest, got: Digest },
    #[error("it is compressed with {0}, which is not supported; use gzip or zstd")]
    Compression(&'static str),
    #[error("its {compression} data is damaged: {source}")]
    Decode { compression: Compression, source: Arc<io::Error> },
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error("its content can't be kept: {0}")]
    Keep(#[source] Arc<io::Error>),
    #[error("the transfer was stopped")]
    Stopped,
}

impl LayerError {
    /// The system call that failed on this host, if that's what it was.
    pub(crate) fn local(&self) -> Option<&io::Error> {
        match self {
            Self::Extract(ExtractError::Io { source, .. }) | Self::Keep(source) => Some(source),
            _ => None,
        }
    }
}
