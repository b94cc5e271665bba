//! Images as the rest of the node sees them.

use std::time::{Duration, SystemTime};

use oci_spec::image::ImageConfiguration;

use crate::digest::Digest;
use crate::platform::Platform;

/// An image that is on this node, whole and verified.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its configuration: what Docker calls the image's id.
    pub id: Digest,
    /// What to run in it, and as whom (OCI image-spec, config.md).
    pub config: ImageConfiguration,
    /// How to tell that a container of it is well, where the image says so.
    pub health_check: Option<HealthCheck>,
    /// Its layers' diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// Digest of its manifest, for its own platform.
    pub manifest_digest: Digest,
    /// What it can run on.
    pub platform: Platform,
    /// Short names with tags: `nginx:latest`.
    pub tags: Vec<String>,
    /// `NAME@DIGEST` as pulled; the digest of the index if there was one.
    pub digests: Vec<String>,
    /// Bytes that the files of its layers hold.
    pub size: u64,
}

/// A health check of an image's, in Docker's terms (Dockerfile reference, "HEALTHCHECK"). Zero
/// stands for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", argv...]` or `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// While failures don't count.
    pub start_period: Duration,
    /// Between two checks in the start period.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// A line of a list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of its configuration.
    pub id: Digest,
    /// Short names with tags.
    pub tags: Vec<String>,
    /// `NAME@DIGEST` as pulled.
    pub digests: Vec<String>,
    /// When it was built, if it says so.
    pub created: Option<SystemTime>,
    /// Bytes that the files of its layers hold.
    pub size: u64,
    /// What it can run on.
    pub platform: Platform,
}
