//! Compression of layers, told by its first bytes: media types are wrong too often.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::LayerError;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Bytes that [`Compression::detect`] wants to see.
pub(super) const PEEK: usize = 6;

impl Compression {
    /// Tells the compression by its magic number. Those that aren't supported are an error.
    pub(super) fn detect(start: &[u8]) -> Result<Self, LayerError> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or a skippable frame before it (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(LayerError::Compression("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(LayerError::Compression("xz")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(LayerError::Compression("lz4")),
            _ => Ok(Self::None),
        }
    }

    /// A reader of the bytes behind the compression.
    pub(super) fn reader<'a>(self, source: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(source)?),
        })
    }

    /// The OCI media type of a layer that is compressed like this.
    pub(crate) const fn media_type(self) -> oci_spec::image::MediaType {
        match self {
            Self::None => oci_spec::image::MediaType::ImageLayer,
            Self::Gzip => oci_spec::image::MediaType::ImageLayerGzip,
            Self::Zstd => oci_spec::image::MediaType::ImageLayerZstd,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
