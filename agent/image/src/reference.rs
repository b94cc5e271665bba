//! Names of images, as `distribution/reference` defines them.
//!
//! `nginx` means `docker.io/library/nginx:latest`. A [`Reference`] always has a registry and a
//! repository and, unless it has a digest, a tag.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Registry and repository together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A full image name: registry, repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReferenceError {
    #[error("the image name is empty")]
    Empty,
    #[error("image name {text:?} has upper-case letters in its repository; use lower case")]
    UpperCase { text: String },
    #[error("image name {text:?} is not [REGISTRY/]NAME[:TAG][@DIGEST]: {part} {value:?} is wrong")]
    Part { text: String, part: &'static str, value: String },
    #[error("image name {text:?} has a wrong digest: {source}")]
    Digest { text: String, source: DigestError },
    #[error("image name {text:?} is longer than {MAX_NAME} characters")]
    TooLong { text: String },
    #[error("image name {text:?} is an image's id, not a name; a registry needs a name")]
    Id { text: String },
}

impl Reference {
    /// The registry's host and, if it isn't the usual one, port: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the image must have.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/nginx`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at a digest, without the tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form that people write: without `docker.io/library/`, with the tag.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = match (self.registry.as_str(), self.repository.strip_prefix(OFFICIAL)) {
            (DEFAULT_REGISTRY, Some(short)) if !short.contains('/') => short.to_owned(),
            (DEFAULT_REGISTRY, _) => self.repository.clone(),
            _ => self.name(),
        };
        self.push_version(&mut text);
        text
    }

    fn push_version(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Id { text: text.to_owned() });
        }
        let wrong = |part, value: &str| ReferenceError::Part {
            text: text.to_owned(),
            part,
            value: value.to_owned(),
        };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash starts a tag; one before it, a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            None => (rest, None),
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(wrong("tag", tag));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(registry) {
            return Err(wrong("registry", registry));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase { text: text.to_owned() });
        }
        if !repository.split('/').all(is_component) {
            return Err(wrong("repository", repository));
        }
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = format!("{}{repository}", if official { OFFICIAL } else { "" });
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceError::TooLong { text: text.to_owned() });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The first part is a registry only when it can't be a repository's: it has a dot or a colon,
/// is `localhost` or has upper-case letters.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", rest.strip_prefix(':').or((!rest.is_empty()).then_some("-")))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    (registry.starts_with('[') || host.split('.').all(label))
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

/// `[a-z0-9]+` joined by one dot, one or two underscores or any number of dashes.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    ends && bytes.split(|b| word(*b)).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
    })
}

impl fmt::Display for Reference {
    /// The full form, with registry: it parses to the same reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_version(&mut text);
        f.pad(&text)
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
