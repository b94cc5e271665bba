//! Images: names, the registry client, the content store, layers and containers' snapshots.
//!
//! [`ImageStore`] owns one folder and everything in it:
//!
//! ```text
//! index.json               names and images; replaced atomically, the only truth about what is here
//! blobs/sha256/HEX         manifests, indexes, configurations, compressed layers: by digest
//! layers/N/layer.json      which layer it is (diff id) and how large
//! layers/N/fs/             its files, in overlayfs's form; shared by all images that have it
//! snapshots/ID/upper,work  a container's writable layer
//! snapshots/ID/image,layers  links that say what it stands on
//! empty/                   the lowest layer of an image that has none
//! tmp/N/                   work under way
//! trash/N                  on its way out
//! ```
//!
//! What always holds:
//!
//! - Nothing unverified is visible: blobs and layers are made in `tmp`, checked against their
//!   digests and renamed. What the index names has been written to the disk before it.
//! - Compressed layers stay, so that a node can serve them to its peers by digest.
//! - Layers have short numbers instead of digests for names, because mount(2) takes one page of
//!   options and an image may have 127 layers.
//! - Interrupted work leaves nothing: `tmp` is emptied by whoever stops, else at the next opening.
//! - Deleting is a rename into `trash`; a thread of its own does the rest.
//!
//! One process at a time may open a folder; whoever opens it sees to that.

mod digest;
mod error;
mod flight;
mod image;
mod import;
mod intake;
mod layer;
mod manifest;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod store;

pub use digest::{Algorithm, Digest, DigestError};
pub use error::ImageError;
pub use image::{HealthCheck, Image, ImageSummary};
pub use import::ImportOptions;
pub use layer::{Compression, ExtractError, LayerError, TarError};
pub use manifest::{ManifestError, read_health_check};
pub use platform::{Platform, PlatformError};
pub use progress::{LayerProgress, LayerState, PullEvent};
pub use reference::{Reference, ReferenceError};
pub use registry::{Credentials, HostConfig, RegistryConfig, RegistryError};
pub use store::{ImageStore, Removed, Snapshot};
