//! Platforms: which of an image's variants a node can run.
//!
//! Names are Go's, as image indexes have them; the machine's other names for the same thing
//! (`x86_64`, `aarch64`) are turned into them on the way in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and processor, such as `linux/arm64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `riscv64`, …
    pub architecture: String,
    /// `v6` and `v7` for arm, `v2` and up for amd64; nothing when it is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform: want OS/ARCHITECTURE[/VARIANT], such as linux/arm64")]
pub struct PlatformError {
    /// The text as given.
    pub text: String,
}

impl Platform {
    /// A platform with its names in their usual form.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", _) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", _) => ("arm64", variant),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7".to_owned())),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6".to_owned())),
            ("arm", Some("5")) => ("arm", Some("v5".to_owned())),
            (other, _) => (other, variant),
        };
        let architecture = architecture.to_owned();
        Self { os: os.to_ascii_lowercase(), architecture, variant }
    }

    /// The platform that this program runs on.
    #[must_use]
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// How well an image made for `offered` runs here: `None` not at all, else lower is better.
    ///
    /// The rules are containerd's: an arm runs images for older arms, everything else needs its
    /// own variant.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        let level = |platform: &Self| match platform.variant.as_deref() {
            None => Some(1),
            Some(variant) => variant.strip_prefix('v')?.parse::<u8>().ok(),
        };
        match self.architecture.as_str() {
            "arm" | "amd64" => {
                let (own, other) = (level(self)?, level(offered)?);
                own.checked_sub(other)
            }
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(word) => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] if parts.iter().all(word) => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(PlatformError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_the_same_machine_are_one() {
        assert_eq!(platform("linux/x86_64"), platform("linux/amd64"));
        assert_eq!(platform("linux/aarch64/v8"), platform("Linux/arm64"));
        assert_eq!(platform("linux/armhf").to_string(), "linux/arm/v7");
        for text in ["", "linux", "linux/", "linux/a/b/c", "linux/../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_arm_takes_older_arms_and_prefers_its_own() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.rank(&platform("linux/arm/v7")), Some(0));
        assert_eq!(v7.rank(&platform("linux/arm/v6")), Some(1));
        assert_eq!(platform("linux/arm/v6").rank(&v7), None);
        assert_eq!(v7.rank(&platform("linux/arm64")), None);
    }

    #[test]
    fn a_newer_instruction_set_is_not_assumed() {
        let amd64 = platform("linux/amd64");
        assert_eq!(amd64.rank(&platform("linux/amd64/v3")), None);
        assert_eq!(platform("linux/amd64/v3").rank(&amd64), Some(2));
        assert_eq!(amd64.rank(&platform("windows/amd64")), None);
    }
}
